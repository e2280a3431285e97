"""Parts of a message: any order and any doubling gives it back, and lies give RemoteError."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import parts
from nostrllm.core.parts import Assemblies, Limits
from nostrllm.crypto import keys, nip59
from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Rumor, Tags, rumor

ALICE, BOB = "a" * 64, "b" * 64
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


def message(content: str, author: str = ALICE, kind: int = kinds.MESSAGE) -> Rumor:
    return rumor(Draft(kind, content, 1_700_000_000), author)


def drafts_as_rumors(whole: Rumor, author: str = ALICE) -> list[Rumor]:
    return [rumor(draft, author) for draft in parts.split(whole, 5)]


def part_of(
    raw: bytes, order: str, *, place: tuple[int, int] = (0, 1), digest: str | None = None
) -> Rumor:
    """A part with anything inside; its sha256 is that of `raw` unless told."""
    tags: Tags = (
        ("order", order),
        ("part", str(place[0]), str(place[1])),
        ("sha256", digest or hashlib.sha256(raw).hexdigest()),
    )
    return rumor(Draft(kinds.PART, base64.b64encode(raw).decode(), 5, tags), ALICE)


LONG = message(json.dumps({"v": 1, "text": "déjà vu " * 8_000}))
PARTS = drafts_as_rumors(LONG)


def test_split_says_what_belongs_where() -> None:
    assert len(PARTS) > 4
    assert [part.kind for part in PARTS] == [kinds.PART] * len(PARTS)
    assert [part.tags[1] for part in PARTS] == [
        ("part", str(index), str(len(PARTS))) for index in range(len(PARTS))
    ]
    assert {part.value("order") for part in PARTS} == {LONG.id}
    assert len({part.value("sha256") for part in PARTS}) == 1
    assert {part.created_at for part in PARTS} == {5}


def test_a_wrapped_part_passes_common_relays() -> None:
    """39 kB for a full part and for the longest whole rumor; the strict relays stop at 64 KiB."""
    secret = b"\1" * 32
    author = keys.public_key(secret)
    how = nip59.Wrapping(
        author=keys.load(secret),
        to=author,
        once=keys.load(b"\2" * 32),
        seal_nonce=bytes(32),
        wrap_nonce=bytes(32),
        seal_created_at=1_700_000_000,
        wrap_created_at=1_700_000_000,
        expiration=1_700_000_000,
    )
    longest = message("x" * (parts.WHOLE_BYTES_MAX - len(parts._serialise(message("", author)))))
    longest = rumor(Draft(longest.kind, longest.content, 1_700_000_000), author)
    assert parts.fits(longest)
    for inner in (longest, *drafts_as_rumors(LONG, author)):
        wrap = nip59.wrap(inner, how)
        assert len(json.dumps(wrap.as_dict(), separators=(",", ":"))) < 40_000


def test_what_fits_is_measured_with_its_escapes() -> None:
    assert parts.fits(message("x" * 18_000))
    assert not parts.fits(message('"' * 12_000))
    assert not parts.fits(LONG)


@pytest.mark.parametrize(("chars", "parts_max"), [(510_000, 35), (512_000, 64), (20_000, 1)])
def test_split_refuses_what_no_reader_takes(chars: int, parts_max: int) -> None:
    with pytest.raises(RemoteError) as caught:
        parts.split(message("x" * chars), 5, parts_max=parts_max)
    assert caught.value.code == "message-too-large"


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(RemoteError):
        parts.split(replace(LONG, content="\ud800"), 5)
    with pytest.raises(RemoteError):
        parts.fits(replace(LONG, content="\ud800"))


@given(st.permutations([*PARTS, *PARTS[:3]]))
def test_any_order_with_duplicates_gives_the_message(order: list[Rumor]) -> None:
    assemblies, found = Assemblies(), []
    for part in order:
        whole = assemblies.add(part, 0.0)
        if whole is not None:
            found.append(whole)
            break
    assert found == [LONG]
    assert (assemblies.open, assemblies.size_bytes) == (0, 0)


@given(TEXT, st.integers(1, 3))
def test_any_text_comes_back(text: str, times: int) -> None:
    whole = message(text * times * 100)
    assemblies = Assemblies()
    results = [assemblies.add(part, 0.0) for part in drafts_as_rumors(whole)]
    assert results[-1] == whole
    assert results[:-1] == [None] * (len(results) - 1)


def test_a_message_sent_again_comes_again() -> None:
    """Idempotency is by the order id, further up; here a repeated message is whole again."""
    assemblies = Assemblies()
    for _ in range(2):
        assert [whole for part in PARTS if (whole := assemblies.add(part, 0.0))] == [LONG]


def test_longest_message() -> None:
    whole = message("x" * 511_000)
    assemblies = Assemblies()
    assert [assemblies.add(part, 0.0) for part in drafts_as_rumors(whole)][-1] == whole


def test_parts_of_different_senders_do_not_mix() -> None:
    assemblies = Assemblies()
    for part in PARTS[:-1]:
        assert assemblies.add(part, 0.0) is None
    last = PARTS[-1]
    assert assemblies.add(rumor(Draft(last.kind, last.content, 5, last.tags), BOB), 0.0) is None
    assert assemblies.open == 2
    assert assemblies.add(last, 0.0) == LONG


def test_anothers_message_is_refused() -> None:
    """Bob cannot send in parts what Alice wrote: the author of all parts must be its author."""
    assemblies = Assemblies()
    *early, last = drafts_as_rumors(LONG, BOB)
    for part in early:
        assert assemblies.add(part, 0.0) is None
    with pytest.raises(RemoteError):
        assemblies.add(last, 0.0)
    assert assemblies.open == 0


@pytest.mark.parametrize("kind", [kinds.DM, kinds.PART])
def test_only_messages_come_in_parts(kind: int) -> None:
    with pytest.raises(RemoteError):
        Assemblies().add(drafts_as_rumors(message("hello", kind=kind))[0], 0.0)


def test_contradicting_parts_end_the_message() -> None:
    first, second = PARTS[:2]
    other = rumor(Draft(first.kind, second.content, 5, first.tags), ALICE)
    longer = replace(second, tags=(second.tags[0], ("part", "1", "60"), second.tags[2]))
    foreign = replace(second, tags=(*second.tags[:2], ("sha256", "0" * 64)))
    for bad in (other, longer, foreign):
        assemblies = Assemblies()
        assert assemblies.add(first, 0.0) is None
        with pytest.raises(RemoteError):
            assemblies.add(bad, 0.0)
        assert (assemblies.open, assemblies.size_bytes) == (0, 0)


@pytest.mark.parametrize(
    "tags",
    [
        (),
        (("order", LONG.id),),
        (("order", "x"), ("part", "0", "1"), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "0", "1")),
        (("order", LONG.id), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part",), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "0"), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "-1", "1"), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "٣", "9"), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "0", "1" * 400), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "0", "65"), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "1", "1"), ("sha256", "0" * 64)),
        (("order", LONG.id), ("part", "0", "0"), ("sha256", "0" * 64)),
    ],
)
def test_wrong_tags_are_refused(tags: Tags) -> None:
    assemblies = Assemblies()
    with pytest.raises(RemoteError):
        assemblies.add(replace(PARTS[0], tags=tags), 0.0)
    assert assemblies.open == 0


@pytest.mark.parametrize("content", ["", "=", "é", "AA", "A" * 2_000_000])
def test_wrong_content_is_refused(content: str) -> None:
    with pytest.raises(RemoteError):
        Assemblies().add(replace(PARTS[0], content=content), 0.0)


def test_only_parts_are_taken() -> None:
    with pytest.raises(RemoteError):
        Assemblies().add(LONG, 0.0)


@pytest.mark.parametrize("raw", [b"hello", b"[]", b"\xff", b"{}", b'{"kind":25421}', b"[" * 2_000])
def test_what_is_no_rumor_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteError):
        Assemblies().add(part_of(raw, LONG.id), 0.0)


def test_wrong_hash_and_wrong_order_id_are_refused() -> None:
    short = message("hello")
    raw = parts._serialise(short)
    assert Assemblies().add(part_of(raw, short.id), 0.0) == short
    for bad in (part_of(raw, LONG.id), part_of(raw, short.id, digest="0" * 64)):
        with pytest.raises(RemoteError):
            Assemblies().add(bad, 0.0)


def test_too_many_bytes_are_refused() -> None:
    assemblies = Assemblies(Limits(bytes_max=1_000))
    first = part_of(b"x" * 600, LONG.id, place=(0, 2), digest="0" * 64)
    second = part_of(b"x" * 600, LONG.id, place=(1, 2), digest="0" * 64)
    assert assemblies.add(first, 0.0) is None
    with pytest.raises(RemoteError) as caught:
        assemblies.add(second, 0.0)
    assert caught.value.code == "message-too-large"
    assert (assemblies.open, assemblies.size_bytes) == (0, 0)


def test_old_parts_are_dropped() -> None:
    assemblies = Assemblies()
    for part in PARTS[:-1]:
        assemblies.add(part, 10.0)
    assert assemblies.add(PARTS[-1], 130.0) is None
    assert assemblies.open == 1
    assert assemblies.size_bytes == len(base64.b64decode(PARTS[-1].content))


def one_of_two(number: int, author: str = ALICE, size: int = 100) -> Rumor:
    part = part_of(b"x" * size, f"{number:064x}", place=(0, 2), digest="0" * 64)
    return replace(part, pubkey=author)


def test_an_author_pushes_out_only_his_own() -> None:
    assemblies = Assemblies()
    assert assemblies.add(PARTS[0], 0.0) is None
    for number in range(50):
        assemblies.add(one_of_two(number, BOB), 0.0)
    assert assemblies.open == 1 + Limits().open_per_author_max
    assert [whole for part in PARTS[1:] if (whole := assemblies.add(part, 0.0))] == [LONG]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 400)), max_size=60))
def test_memory_is_bounded(opened: list[tuple[int, int]]) -> None:
    limits = Limits(open_max=8, total_bytes_max=1_500, bytes_max=500)
    assemblies = Assemblies(limits)
    for number, size in opened:
        try:
            assemblies.add(one_of_two(number, f"{number:064x}", size), 0.0)
        except RemoteError:
            continue
        finally:
            assert assemblies.open <= limits.open_max
            assert assemblies.size_bytes <= limits.total_bytes_max
            kept = sum(assembly.size_bytes for assembly in assemblies._open.values())
            assert assemblies.size_bytes == kept


RUMORS = st.builds(
    Rumor,
    id=st.just("0" * 64),
    pubkey=st.sampled_from([ALICE, BOB]),
    created_at=st.just(5),
    kind=st.sampled_from([kinds.PART, kinds.PART, kinds.PART, kinds.MESSAGE]),
    tags=st.lists(
        st.sampled_from([("order", LONG.id), ("sha256", "0" * 64), ("part", "0", "2"), ("part",)])
        | st.lists(st.text(max_size=4), min_size=1, max_size=4).map(tuple),
        max_size=5,
    ).map(tuple),
    content=st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode())
    | st.text(max_size=40),
)


@given(st.lists(RUMORS | st.sampled_from(PARTS), max_size=12))
def test_adding_is_total(rumors: list[Rumor]) -> None:
    assemblies = Assemblies()
    for part in rumors:
        try:
            assert assemblies.add(part, 0.0) in (None, LONG)
        except RemoteError:
            continue
