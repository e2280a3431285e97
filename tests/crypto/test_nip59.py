"""Gift wraps both ways against nostr-sdk, and against wraps that lie."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from coincurve.utils import get_valid_secret
from hypothesis import given
from hypothesis import strategies as st
from nostr_sdk import (
    Event as SdkEvent,
)
from nostr_sdk import (
    EventBuilder,
    Keys,
    Kind,
    PublicKey,
    SecretKey,
    UnwrappedGift,
    nip59_make_gift_wrap,
)

from nostrllm.crypto import keys, nip44, nip59
from nostrllm.errors import LocalError, RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, Rumor, parse_event, rumor

ALICE, BOB, ONCE = (bytes([number]) * 32 for number in (1, 2, 3))
ALICE_KEY, BOB_KEY = keys.public_key(ALICE), keys.public_key(BOB)
HELLO = rumor(Draft(kinds.DM, "hello", 1_700_000_000, (("p", BOB_KEY),)), ALICE_KEY)
HOW = nip59.Wrapping(
    author=keys.load(ALICE),
    to=BOB_KEY,
    once=keys.load(ONCE),
    seal_nonce=b"\4" * 32,
    wrap_nonce=b"\5" * 32,
    seal_created_at=1_699_990_000,
    wrap_created_at=1_699_980_000,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def wrapped(inner: object, *, kind: int = kinds.GIFT_WRAP) -> Event:
    """A gift wrap from ONCE to Bob around any JSON value, or around bytes as they are."""
    text = inner if isinstance(inner, bytes) else json.dumps(inner).encode()
    key = nip44.conversation_key(ONCE, BOB_KEY)
    return keys.sign_event(Draft(kind, nip44.encrypt(key, text, b"\6" * 32), 1), ONCE)


def sealed(inner: object, *, kind: int = kinds.SEAL) -> Event:
    """A seal by Alice to Bob around any JSON value, or around bytes as they are."""
    text = inner if isinstance(inner, bytes) else json.dumps(inner).encode()
    key = nip44.conversation_key(ALICE, BOB_KEY)
    tags = (("surplus", "tag"),)
    return keys.sign_event(Draft(kind, nip44.encrypt(key, text, b"\7" * 32), 1, tags), ALICE)


def test_wrap_hides_its_author() -> None:
    wrap = nip59.wrap(HELLO, HOW)
    assert (wrap.kind, wrap.pubkey, wrap.created_at) == (1059, keys.public_key(ONCE), 1_699_980_000)
    assert wrap.tags == (("p", BOB_KEY),)
    assert keys.verify_event(wrap)
    seal = nip59.open_wrap(wrap, BOB, verify_outer=True)
    assert (seal.kind, seal.pubkey, seal.created_at, seal.tags) == (
        13,
        ALICE_KEY,
        1_699_990_000,
        (),
    )
    assert nip59.unwrap(wrap, BOB) == HELLO


def test_ephemeral_wrap_with_expiration() -> None:
    how = replace(HOW, ephemeral=True, expiration=1_700_000_600)
    wrap = nip59.wrap(HELLO, how)
    assert wrap.kind == kinds.GIFT_WRAP_EPHEMERAL
    assert wrap.tags == (("p", BOB_KEY), ("expiration", "1700000600"))
    assert nip59.unwrap(wrap, BOB, verify_outer=True) == HELLO


def test_conversation_key_may_be_given() -> None:
    how = replace(HOW, conversation=nip44.conversation_key(ALICE, BOB_KEY))
    assert nip59.wrap(HELLO, how) == nip59.wrap(HELLO, HOW)


def test_repr_shows_no_key() -> None:
    assert ALICE.hex() not in repr(HOW)
    assert repr(ALICE) not in repr(HOW)


def test_only_the_author_seals() -> None:
    with pytest.raises(LocalError):
        nip59.wrap(HELLO, replace(HOW, author=keys.load(BOB)))


def test_too_long_and_not_unicode_are_refused() -> None:
    long = rumor(Draft(kinds.DM, "x" * 48_000, 1), ALICE_KEY)
    with pytest.raises(RemoteError) as caught:
        nip59.wrap(long, HOW)
    assert caught.value.code == "message-too-large"
    with pytest.raises(RemoteError):
        nip59.wrap(replace(HELLO, content="\ud800"), HOW)


def test_wrong_reader_and_wrong_recipient() -> None:
    with pytest.raises(RemoteError):
        nip59.unwrap(nip59.wrap(HELLO, HOW), ALICE)
    with pytest.raises(RemoteError):
        nip59.wrap(HELLO, replace(HOW, to="f" * 64))


def test_outer_signature_is_checked_on_request() -> None:
    wrap = replace(nip59.wrap(HELLO, HOW), sig="0" * 128)
    assert nip59.unwrap(wrap, BOB) == HELLO
    with pytest.raises(RemoteError):
        nip59.unwrap(wrap, BOB, verify_outer=True)


def test_tags_of_the_seal_are_ignored() -> None:
    assert nip59.unwrap(wrapped(sealed(HELLO.as_dict()).as_dict()), BOB) == HELLO


def test_rumor_without_id_gets_one() -> None:
    fields = HELLO.as_dict()
    del fields["id"]
    assert nip59.unwrap(wrapped(sealed(fields).as_dict()), BOB) == HELLO


SEAL = sealed(HELLO.as_dict())
BOBS = rumor(Draft(kinds.DM, "I owe you", 1), BOB_KEY)


@pytest.mark.parametrize(
    "wrap",
    [
        wrapped(SEAL.as_dict(), kind=1),
        wrapped(SEAL.as_dict(), kind=kinds.SEAL),
        wrapped(sealed(HELLO.as_dict(), kind=1).as_dict()),
        wrapped({**SEAL.as_dict(), "sig": "0" * 128}),
        wrapped({**SEAL.as_dict(), "pubkey": BOB_KEY}),
        wrapped({**SEAL.as_dict(), "created_at": 2}),
        wrapped({**SEAL.as_dict(), "kind": "13"}),
        wrapped(sealed(BOBS.as_dict()).as_dict()),
        wrapped(sealed({**HELLO.as_dict(), "content": "changed"}).as_dict()),
        wrapped(sealed({**HELLO.as_dict(), "id": "0" * 64}).as_dict()),
        wrapped(sealed([]).as_dict()),
        wrapped(sealed(b"{").as_dict()),
        wrapped(sealed(b"\xff\xfe").as_dict()),
        wrapped(sealed(b"[" * 5_000).as_dict()),
        wrapped(replace(SEAL, content="no payload").as_dict()),
        wrapped(HELLO.as_dict()),
        wrapped(b"not JSON"),
        wrapped(17),
    ],
)
def test_lying_wrap_is_refused(wrap: Event) -> None:
    with pytest.raises(RemoteError):
        nip59.unwrap(wrap, BOB)


@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_unwrap_is_total(inner: bytes, in_seal: bool) -> None:
    with pytest.raises(RemoteError):
        nip59.unwrap(wrapped(sealed(inner).as_dict() if in_seal else inner), BOB)


DRAFTS = st.builds(
    Draft,
    kind=st.integers(0, 65_535),
    content=TEXT,
    created_at=st.integers(0, 1 << 33),
    tags=st.lists(st.lists(TEXT, min_size=1, max_size=4).map(tuple), max_size=4).map(tuple),
)


@given(DRAFTS, st.binary(min_size=32, max_size=32))
def test_round_trip(draft: Draft, nonce: bytes) -> None:
    inner = rumor(draft, ALICE_KEY)
    how = replace(HOW, seal_nonce=nonce, wrap_nonce=nonce)
    assert nip59.unwrap(nip59.wrap(inner, how), BOB) == inner


async def test_nostr_sdk_reads_ours() -> None:
    inner: Rumor = rumor(Draft(kinds.MESSAGE, '{"v":1,"é":"\\n"}', 5, (("a", "b"),)), ALICE_KEY)
    wrap = SdkEvent.from_json(json.dumps(nip59.wrap(inner, HOW).as_dict()))
    gift = UnwrappedGift.from_gift_wrap(Keys(SecretKey.from_bytes(BOB)), wrap)
    assert gift.sender().to_hex() == ALICE_KEY
    assert gift.rumor().content() == inner.content
    assert gift.rumor().kind().as_u16() == inner.kind


async def test_we_read_nostr_sdk() -> None:
    author = Keys(SecretKey.from_bytes(ALICE))
    inner = EventBuilder(Kind(kinds.MESSAGE), "grüße").finalize_unsigned(author.public_key())
    gift = nip59_make_gift_wrap(author, PublicKey.parse(BOB_KEY), inner)
    wrap = parse_event(json.loads(gift.as_json()))
    found = nip59.unwrap(wrap, BOB, verify_outer=True)
    assert (found.pubkey, found.kind, found.content) == (ALICE_KEY, kinds.MESSAGE, "grüße")


def test_wrapping_takes_any_once_key() -> None:
    assert (
        nip59.unwrap(nip59.wrap(HELLO, replace(HOW, once=keys.load(get_valid_secret()))), BOB)
        == HELLO
    )
