"""NIP-04 both ways against nostr-sdk, and against input that lies."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st
from nostr_sdk import PublicKey, SecretKey, nip04_decrypt, nip04_encrypt

from nostrllm.crypto import keys, nip04
from nostrllm.errors import LocalError, RemoteError

KEY = bytes(range(32))
IV = bytes(range(16))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SECRETS = st.integers(1, keys.ORDER - 1).map(lambda number: number.to_bytes(32, "big"))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@given(TEXT, SECRETS, SECRETS, st.binary(min_size=16, max_size=16))
def test_nostr_sdk_reads_ours_and_we_read_theirs(
    text: str, mine: bytes, other: bytes, iv: bytes
) -> None:
    my_secret, other_secret = SecretKey.from_bytes(mine), SecretKey.from_bytes(other)
    my_key = PublicKey.parse(keys.public_key(mine))
    other_key = PublicKey.parse(keys.public_key(other))
    key = nip04.conversation_key(mine, keys.public_key(other))
    assert nip04_decrypt(other_secret, my_key, nip04.encrypt(key, text.encode(), iv)) == text
    theirs = nip04_encrypt(my_secret, other_key, text)
    back = nip04.conversation_key(other, keys.public_key(mine))
    assert nip04.decrypt(back, theirs).decode() == text


@given(st.binary(max_size=2_000), st.binary(min_size=16, max_size=16))
def test_round_trip(text: bytes, iv: bytes) -> None:
    assert nip04.decrypt(KEY, nip04.encrypt(KEY, text, iv)) == text


def test_encrypt_refuses() -> None:
    with pytest.raises(RemoteError) as caught:
        nip04.encrypt(KEY, bytes(nip04.PLAINTEXT_BYTES_MAX + 1), IV)
    assert caught.value.code == "message-too-large"
    with pytest.raises(LocalError):
        nip04.encrypt(KEY, b"hello", b"short")


def test_longest_text_can_be_read() -> None:
    text = bytes(nip04.PLAINTEXT_BYTES_MAX)
    assert nip04.decrypt(KEY, nip04.encrypt(KEY, text, IV)) == text


def test_wrong_padding_is_refused() -> None:
    ciphertext = Cipher(AES256(KEY), CBC(IV)).encryptor().update(bytes(16))
    with pytest.raises(RemoteError):
        nip04.decrypt(KEY, f"{b64(ciphertext)}?iv={b64(IV)}")


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "hello",
        "?iv=",
        b64(bytes(16)),
        f"?iv={b64(IV)}",
        f"{b64(bytes(15))}?iv={b64(IV)}",
        f"{b64(bytes(16))}?iv={b64(IV[:15])}",
        f"{b64(bytes(16))}?iv=é",
        f"{b64(bytes(16))}?iv={b64(IV)}?iv={b64(IV)}",
    ],
)
def test_decrypt_refuses(payload: str) -> None:
    with pytest.raises(RemoteError):
        nip04.decrypt(KEY, payload)


def test_size_limit_comes_before_work() -> None:
    with pytest.raises(RemoteError) as caught:
        nip04.decrypt(KEY, "A" * (nip04.PAYLOAD_CHARS_MAX + 1))
    assert caught.value.code == "message-too-large"


@given(
    st.text(max_size=200)
    | st.tuples(st.binary(max_size=80), st.binary(max_size=20)).map(
        lambda pair: f"{b64(pair[0])}?iv={b64(pair[1])}"
    )
)
def test_decrypt_is_total(payload: str) -> None:
    try:
        assert isinstance(nip04.decrypt(KEY, payload), bytes)
    except RemoteError:
        return
