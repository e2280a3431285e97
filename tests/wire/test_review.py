"""Reviews: five stars at most, one provider, and a receipt that may be missing or unreadable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Event
from nostrllm.wire.review import Review, parse_review, review_draft

AUTHOR, PROVIDER, SALT = "ab" * 32, "cd" * 32, "ef" * 32
ASPECTS = (("quality", 0.9), ("latency", 1.0), ("honest-price", 0.0))
RECEIPT = Event(SALT, PROVIDER, 1, kinds.RECEIPT, (), "{}", "ab" * 64)


def review(**fields: Any) -> Review:
    base = Review(AUTHOR, PROVIDER, "nostrllm", 4, "fast", 1_800_000_000)
    return replace(base, **fields)


def event_of(review: Review) -> Event:
    draft = review_draft(review, "wss://relay.example")
    return Event(SALT, AUTHOR, draft.created_at, draft.kind, draft.tags, draft.content, "ab" * 64)


@pytest.mark.parametrize(
    "wrote",
    [
        review(),
        review(model="smollm2"),
        review(receipt=RECEIPT, salt=SALT),
        review(text=""),
        review(aspects=ASPECTS),
    ],
)
def test_a_review_reads_as_it_was_written(wrote: Review) -> None:
    event = event_of(wrote)
    assert parse_review(event) == wrote
    assert event.content.startswith("[4/5]")
    assert event.value("a") == f"38421:{PROVIDER}:nostrllm"


def test_a_receipt_without_its_salt_is_left_out() -> None:
    assert parse_review(event_of(review(receipt=RECEIPT))).receipt is None


def with_tag(*tag: str) -> Event:
    event = event_of(review())
    return replace(event, tags=(*(t for t in event.tags if t[0] != tag[0]), tag))


@pytest.mark.parametrize(
    "event",
    [
        replace(event_of(review()), kind=1),
        with_tag("k", "38172"),
        with_tag("d", "nobody:x"),
        with_tag("d", f"{PROVIDER}:" + "x" * 65),
        with_tag("rating", "6"),
        with_tag("rating", "0.9", "quality"),
    ],
)
def test_what_is_no_review_of_a_provider(event: Event) -> None:
    with pytest.raises(RemoteError):
        parse_review(event)


@pytest.mark.parametrize(
    "tag",
    [
        ("receipt", "not json", SALT),
        ("receipt", "[" * 100_000, SALT),
        ("receipt", "{}", SALT),
        ("receipt", "{}", "no salt"),
        ("receipt", "{}"),
    ],
)
def test_a_receipt_that_cannot_be_read_counts_as_none(tag: tuple[str, ...]) -> None:
    read = parse_review(with_tag(*tag))
    assert (read.receipt, read.salt) == (None, None)
    assert read.rating == 4


@given(
    st.lists(
        st.lists(st.text(max_size=70), min_size=1, max_size=3).map(tuple)
        | st.sampled_from([("k", "38421"), ("d", f"{PROVIDER}:x"), ("rating", "3")]),
        max_size=8,
    ),
    st.text(),
)
def test_total(tags: list[tuple[str, ...]], content: str) -> None:
    try:
        parse_review(Event(SALT, AUTHOR, 1, kinds.REVIEW, tuple(tags), content, "ab" * 64))
    except RemoteError:
        return


@pytest.mark.parametrize(
    ("mark", "name"), [("1.5", "quality"), ("-0", "quality"), ("0.9", "beauty"), ("x", "latency")]
)
def test_other_aspects_are_passed_over(mark: str, name: str) -> None:
    event = event_of(review())
    assert parse_review(replace(event, tags=(*event.tags, ("rating", mark, name)))) == review()


def test_of_an_aspect_the_first_mark_counts() -> None:
    event = event_of(review(aspects=(("latency", 0.5),)))
    twice = replace(event, tags=(*event.tags, ("rating", "0.1", "latency")))
    assert parse_review(twice).aspects == (("latency", 0.5),)
