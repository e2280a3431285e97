"""One author, one word; nobody speaks for himself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.opinion import Opinion, Seen, opinion_of, opinions, value
from nostrllm.wire.review import Review

PROVIDER, ALICE, BOB = "aa" * 32, "01" * 32, "02" * 32


def seen(author: str, stars: int = 5, at_s: int = 0, name: str = "e0", d: str = "a") -> Seen:
    return Seen(name, Review(author, PROVIDER, d, stars, "", at_s))


def mark(author: str, provider: str = PROVIDER) -> tuple[str, Opinion]:
    return provider, Opinion("m0", author, 1.0, 0, "list")


def test_stars_are_symmetric() -> None:
    assert [value(stars) for stars in (1, 2, 3, 4, 5)] == [-1, -0.5, 0, 0.5, 1]


def test_a_review_carries_over() -> None:
    one = seen(ALICE, stars=4, at_s=7)
    one = replace(one, review=replace(one.review, aspects=(("latency", 0.5),)))
    said = Opinion("e0", ALICE, 0.5, 7, "review", (("latency", 0.5),))
    assert opinion_of(one) == said
    assert opinion_of(replace(one, verified=True)) == replace(said, basis="receipt")


def test_a_provider_and_its_operator_are_not_heard_on_themselves() -> None:
    reviews = [seen(PROVIDER), seen(ALICE), seen(BOB)]
    marks = [mark(PROVIDER), mark(ALICE)]
    found = opinions(reviews, marks, operators={ALICE})
    assert [said.author for said in found[PROVIDER]] == [BOB]


@given(st.permutations(["new", "old", "twin"]))
def test_the_newest_review_counts_and_of_equals_the_lowest_id(order: list[str]) -> None:
    reviews = {
        "new": seen(ALICE, at_s=9, name="e1", d="b"),
        "old": seen(ALICE, at_s=8, name="e0"),
        "twin": seen(ALICE, at_s=9, name="e2"),
    }
    found = opinions(reviews[name] for name in order)
    assert [said.id for said in found[PROVIDER]] == ["e1"]


def test_a_list_speaks_where_its_author_wrote_nothing() -> None:
    found = opinions([seen(ALICE, stars=1)], [mark(ALICE), mark(BOB), mark(BOB, "bb" * 32)])
    assert [(said.author, said.value) for said in found[PROVIDER]] == [(ALICE, -1), (BOB, 1)]
    assert [said.author for said in found["bb" * 32]] == [BOB]


@pytest.mark.parametrize("reviews", [[], [seen(PROVIDER)]])
def test_of_whom_nothing_is_said_there_is_no_entry(reviews: list[Seen]) -> None:
    assert opinions(reviews) == {}
