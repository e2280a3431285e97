"""Keys and signatures against the BIP-340 vectors, nostr-sdk and forged input."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nostr_sdk import Event as SdkEvent
from nostr_sdk import EventBuilder, Keys, Kind, SecretKey, Tag, Timestamp

from nostrllm.crypto import keys
from nostrllm.errors import LocalError
from nostrllm.wire.event import Draft, Event, parse_event

SECRET = bytes.fromhex("b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfef")
PUBKEY = "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659"
SECRETS = st.integers(1, keys.ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
DRAFTS = st.builds(
    Draft,
    kind=st.integers(0, 65_535),
    content=TEXT,
    created_at=st.integers(0, 1 << 33),
    tags=st.lists(st.lists(TEXT, min_size=1, max_size=4).map(tuple), max_size=4).map(tuple),
)


def test_public_key_of_bip340_vector_1() -> None:
    assert keys.public_key(SECRET) == PUBKEY
    assert keys.is_public_key(PUBKEY)


def test_signature_of_bip340_vector_1() -> None:
    """The vector's message and aux, through the same call that signs an event's id."""
    message = bytes.fromhex("243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89")
    aux = bytes.fromhex("0000000000000000000000000000000000000000000000000000000000000001")
    sig = (
        "6896bd60eeae296db48a229ff71dfe071bde413e6d43f917dc8dcf8c78de3341"
        "8906d11ac976abccb20b091292bff4ea897efcb639ea871cfa95f6de339e4b0a"
    )
    assert keys.load(SECRET).sign_schnorr(message, aux).hex() == sig
    assert keys.verify(PUBKEY, sig, message)


def test_a_key_pair_shows_nothing_and_signs_digests_only() -> None:
    pair = keys.load(SECRET)
    assert pair.pubkey == PUBKEY
    assert SECRET.hex() not in repr(pair)
    assert PUBKEY[:8] in repr(pair)
    with pytest.raises(TypeError):
        copy.copy(pair)
    for digest, aux in ((b"short", bytes(32)), (bytes(32), b"")):
        with pytest.raises(LocalError):
            pair.sign_schnorr(digest, aux)


@pytest.mark.parametrize("text", ["", "00", PUBKEY.upper(), PUBKEY + "\n", "f" * 64, "é" * 64])
def test_is_public_key_refuses(text: str) -> None:
    assert not keys.is_public_key(text)


@pytest.mark.parametrize(
    "secret",
    [b"", b"\1" * 31, b"\1" * 33, bytes(32), keys.ORDER.to_bytes(32, "big"), b"\xff" * 32],
)
def test_load_refuses_what_is_no_secret(secret: bytes) -> None:
    with pytest.raises(LocalError) as caught:
        keys.load(secret)
    assert secret.hex() not in str(caught.value) or not secret


@given(DRAFTS, SECRETS)
def test_signed_event_verifies_here_and_in_nostr_sdk(draft: Draft, secret: bytes) -> None:
    event = keys.sign_event(draft, secret)
    assert keys.verify_event(event)
    assert SdkEvent.from_json(json.dumps(event.as_dict())).verify()
    assert keys.sign_event(draft, keys.load(secret)) == event
    assert keys.verify_event(keys.sign_event(draft, secret, b"\7" * 32))


@given(TEXT, SECRETS)
def test_event_of_nostr_sdk_verifies_here(content: str, secret: bytes) -> None:
    tag = Tag.parse(["x", content or "-"])
    builder = EventBuilder(Kind(1), content).tags([tag])
    theirs = builder.custom_created_at(Timestamp.from_secs(1_700_000_000)).finalize(
        Keys(SecretKey.from_bytes(secret))
    )
    assert keys.verify_event(parse_event(json.loads(theirs.as_json())))


EVENT = keys.sign_event(Draft(1, "hello", 1_700_000_000, (("t", "x"),)), SECRET)
OTHER = keys.sign_event(Draft(1, "hello!", 1_700_000_000, (("t", "x"),)), SECRET)


@pytest.mark.parametrize(
    "event",
    [
        replace(EVENT, content="hello!"),
        replace(EVENT, id=OTHER.id),
        replace(EVENT, sig=OTHER.sig),
        replace(OTHER, sig=EVENT.sig),
        replace(EVENT, kind=2),
        replace(EVENT, tags=()),
        replace(EVENT, created_at=1),
        replace(EVENT, pubkey=keys.public_key(b"\1" * 32)),
        replace(EVENT, content="\ud800"),
    ],
)
def test_forged_event_does_not_verify(event: Event) -> None:
    assert not keys.verify_event(event)


@pytest.mark.parametrize(
    ("pubkey", "sig"),
    [
        ("zz", EVENT.sig),
        (PUBKEY[:62], EVENT.sig),
        ("f" * 64, EVENT.sig),
        (PUBKEY, EVENT.sig[:126]),
        (PUBKEY, "zz"),
        (PUBKEY, ""),
    ],
)
def test_verify_is_total(pubkey: str, sig: str) -> None:
    assert not keys.verify(pubkey, sig, bytes.fromhex(EVENT.id))


def test_derive_is_stable() -> None:
    """Released clients find their reply keys by this value: it may never change."""
    secret = keys.derive(b"\1" * 32, "reply", "7")
    assert secret.hex() == "17272274d8ae9333cf8f023a709dd543e0f7d5b49c56966f3ae0141a85868f9b"


@given(st.binary(min_size=16, max_size=64), st.lists(TEXT, min_size=1, max_size=4))
def test_derive_gives_secrets(seed: bytes, path: list[str]) -> None:
    assert keys.is_public_key(keys.public_key(keys.derive(seed, *path)))


@given(*[st.lists(TEXT, min_size=1, max_size=4)] * 2)
def test_derive_separates_paths(one: list[str], other: list[str]) -> None:
    seed = b"\1" * 32
    assert (keys.derive(seed, *one) == keys.derive(seed, *other)) == (one == other)


@pytest.mark.parametrize(("seed", "path"), [(b"short", ("a",)), (b"\1" * 32, ())])
def test_derive_refuses(seed: bytes, path: tuple[str, ...]) -> None:
    with pytest.raises(LocalError):
        keys.derive(seed, *path)


HARDENED = """
import ctypes, mmap, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) != 0:  # PR_SET_MDWE
    sys.exit(77)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    sys.exit(77)
from nostrllm.crypto.keys import public_key, shared_x
assert shared_x(bytes(31) + b"\\x02", public_key(bytes(31) + b"\\x03")) == shared_x(
    bytes(31) + b"\\x03", public_key(bytes(31) + b"\\x02")
)
"""


def test_it_runs_where_memory_is_never_writable_and_executable() -> None:
    """What MemoryDenyWriteExecute of the systemd unit does to the process."""
    code = subprocess.run([sys.executable, "-c", HARDENED], check=False).returncode
    if code == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert code == 0
