"""NIP-44 against the official vectors, and both ways against nostr-sdk."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given
from hypothesis import strategies as st
from nostr_sdk import Nip44Version, PublicKey, SecretKey, nip44_decrypt, nip44_encrypt

from nostrllm.crypto import keys, nip44
from nostrllm.errors import LocalError, NostrllmError, RemoteError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data" / "nip44.vectors.json").read_text()
)["v2"]
VALID, INVALID = VECTORS["valid"], VECTORS["invalid"]
KEY = bytes(range(32))
NONCE = bytes(range(1, 33))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
SECRETS = st.integers(1, keys.ORDER - 1).map(lambda number: number.to_bytes(32, "big"))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def payload_of(padded: bytes) -> str:
    """A payload whose padded plaintext is whatever the test wants, with a true MAC."""
    cipher_key, cipher_nonce, mac_key = nip44.message_keys(KEY, NONCE)
    cipher = Cipher(ChaCha20(cipher_key, bytes(4) + cipher_nonce), None)
    ciphertext = cipher.encryptor().update(padded)
    mac = hmac.digest(mac_key, NONCE + ciphertext, "sha256")
    return base64.b64encode(b"\2" + NONCE + ciphertext + mac).decode()


def extended(text: bytes) -> str:
    filling = bytes(nip44.padded_size(len(text)) - len(text))
    return payload_of(b"\0\0" + len(text).to_bytes(4, "big") + text + filling)


@pytest.mark.parametrize("case", VALID["get_conversation_key"])
def test_conversation_key(case: dict[str, str]) -> None:
    key = nip44.conversation_key(unhex(case["sec1"]), case["pub2"])
    assert key.hex() == case["conversation_key"]


@pytest.mark.parametrize("case", VALID["get_message_keys"]["keys"])
def test_message_keys(case: dict[str, str]) -> None:
    conversation = unhex(VALID["get_message_keys"]["conversation_key"])
    found = nip44.message_keys(conversation, unhex(case["nonce"]))
    assert [part.hex() for part in found] == [
        case["chacha_key"],
        case["chacha_nonce"],
        case["hmac_key"],
    ]


@pytest.mark.parametrize(("size", "padded"), VALID["calc_padded_len"])
def test_padded_size(size: int, padded: int) -> None:
    assert nip44.padded_size(size) == padded


@pytest.mark.parametrize("case", VALID["encrypt_decrypt"])
def test_encrypt_decrypt(case: dict[str, str]) -> None:
    key = nip44.conversation_key(unhex(case["sec1"]), keys.public_key(unhex(case["sec2"])))
    back = nip44.conversation_key(unhex(case["sec2"]), keys.public_key(unhex(case["sec1"])))
    assert key.hex() == back.hex() == case["conversation_key"]
    assert nip44.encrypt(key, case["plaintext"].encode(), unhex(case["nonce"])) == case["payload"]
    assert nip44.decrypt(key, case["payload"]).decode() == case["plaintext"]


@pytest.mark.parametrize("case", VALID["encrypt_decrypt_long_msg"])
def test_long_message(case: dict[str, Any]) -> None:
    """131,070 bytes, to which the vector gives no checksum: read, but never sent."""
    key, text = unhex(case["conversation_key"]), case["letter"].encode() * case["repeat"]
    with pytest.raises(RemoteError):
        nip44.encrypt(key, text, unhex(case["nonce"]))
    assert nip44.decrypt(KEY, extended(text)) == text


@pytest.mark.parametrize("size", INVALID["encrypt_msg_lengths"])
def test_encrypt_refuses_length(size: int) -> None:
    with pytest.raises(RemoteError) as caught:
        nip44.encrypt(KEY, b"a" * size, NONCE)
    assert caught.value.code == ("message-too-large" if size else "message-invalid")


@pytest.mark.parametrize("size", INVALID["decrypt_msg_lengths"])
def test_decrypt_refuses_length(size: int) -> None:
    with pytest.raises(RemoteError):
        nip44.decrypt(KEY, "A" * size)


@pytest.mark.parametrize("case", INVALID["get_conversation_key"])
def test_conversation_key_refuses(case: dict[str, str]) -> None:
    """A bad secret is our fault (LocalError), a bad public key the peer's (RemoteError)."""
    with pytest.raises(NostrllmError):
        nip44.conversation_key(unhex(case["sec1"]), case["pub2"])


@pytest.mark.parametrize("pubkey", ["", "zz" * 32, "00" * 31, "f" * 64])
def test_conversation_key_blames_the_peer(pubkey: str) -> None:
    with pytest.raises(RemoteError):
        nip44.conversation_key(KEY, pubkey)


@pytest.mark.parametrize("case", INVALID["decrypt"])
def test_decrypt_refuses(case: dict[str, str]) -> None:
    with pytest.raises(RemoteError):
        nip44.decrypt(unhex(case["conversation_key"]), case["payload"])


def test_encrypt_wants_a_whole_nonce() -> None:
    with pytest.raises(LocalError):
        nip44.encrypt(KEY, b"hello", b"short")


def test_unknown_versions_say_so() -> None:
    raw = base64.b64decode(nip44.encrypt(KEY, b"hello", NONCE))
    for payload in ("#" + "A" * 200, base64.b64encode(b"\1" + raw[1:]).decode()):
        with pytest.raises(RemoteError) as caught:
            nip44.decrypt(KEY, payload)
        assert caught.value.code == "version-unsupported"


def test_size_limit_comes_before_work() -> None:
    with pytest.raises(RemoteError) as caught:
        nip44.decrypt(KEY, "A" * (nip44.PAYLOAD_CHARS_MAX + 1))
    assert caught.value.code == "message-too-large"


@pytest.mark.parametrize("size", [65_536, 65_537, 100_000])
def test_extended_length_is_read(size: int) -> None:
    assert nip44.decrypt(KEY, extended(b"x" * size)) == b"x" * size


@pytest.mark.parametrize("size", [1, 32, 65_535])
def test_extended_length_must_be_needed(size: int) -> None:
    with pytest.raises(RemoteError):
        nip44.decrypt(KEY, extended(b"x" * size))


@pytest.mark.parametrize(
    "padded",
    [
        bytes(34),
        b"\0\x20" + bytes(33),
        b"\0\x21" + bytes(32),
        b"\xff\xff" + bytes(32),
        b"\0\0\xff\xff\xff\xff" + bytes(64),
        b"\0\0\0\1\0\0" + bytes(40_000),
    ],
)
def test_wrong_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(RemoteError):
        nip44.decrypt(KEY, payload_of(padded))


@given(st.binary(min_size=1, max_size=2_000), st.binary(min_size=32, max_size=32))
def test_round_trip(text: bytes, nonce: bytes) -> None:
    assert nip44.decrypt(KEY, nip44.encrypt(KEY, text, nonce)) == text


@given(st.integers(0, 200), st.integers(1, 255))
def test_any_flipped_byte_is_refused(place: int, flip: int) -> None:
    raw = bytearray(base64.b64decode(nip44.encrypt(KEY, b"hello", NONCE)))
    raw[place % len(raw)] ^= flip
    with pytest.raises(RemoteError):
        nip44.decrypt(KEY, base64.b64encode(raw).decode())


@given(
    st.text(max_size=400) | st.binary(max_size=400).map(lambda raw: base64.b64encode(raw).decode())
)
def test_decrypt_is_total(payload: str) -> None:
    with pytest.raises(RemoteError):
        nip44.decrypt(KEY, payload)


@given(st.binary(min_size=34, max_size=300))
def test_unpadding_is_total(padded: bytes) -> None:
    try:
        assert len(nip44.decrypt(KEY, payload_of(padded))) >= 1
    except RemoteError:
        return


@given(TEXT, SECRETS, SECRETS, st.binary(min_size=32, max_size=32))
def test_nostr_sdk_reads_ours_and_we_read_theirs(
    text: str, mine: bytes, other: bytes, nonce: bytes
) -> None:
    my_secret, other_secret = SecretKey.from_bytes(mine), SecretKey.from_bytes(other)
    my_key = PublicKey.parse(keys.public_key(mine))
    other_key = PublicKey.parse(keys.public_key(other))
    payload = nip44.encrypt(
        nip44.conversation_key(mine, keys.public_key(other)), text.encode(), nonce
    )
    assert nip44_decrypt(other_secret, my_key, payload) == text
    theirs = nip44_encrypt(my_secret, other_key, text, Nip44Version.V2)
    key = nip44.conversation_key(other, keys.public_key(mine))
    assert nip44.decrypt(key, theirs).decode() == text
