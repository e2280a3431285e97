"""Scores are sums of reasons; friends' praise lifts, blame lowers, strangers are not heard."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.opinion import STRENGTH, Opinion
from nostrllm.core.trust import (
    BLAME,
    DAY_S,
    KEPT,
    OWN,
    RAW,
    Eyes,
    Own,
    age_factor,
    evidence_of,
    experience,
    low_bound,
    standing,
    turn,
)

NOW = 2_000 * DAY_S
OLD = NOW - 400 * DAY_S
ME = "me"
weight = st.floats(0, 1)
weights = st.dictionaries(st.sampled_from("abcdefgh"), weight)
people = st.builds(
    Opinion,
    id=st.uuids().map(str),
    author=st.sampled_from([*"abcdefgh", ME]),
    value=st.floats(-1, 1),
    at_s=st.integers(0, NOW + DAY_S),
    basis=st.sampled_from(sorted(STRENGTH)),
    aspects=st.sampled_from([(), (("latency", 0.5),), (("latency", 0.25), ("quality", 1.0))]),
)
said = st.lists(people, max_size=8, unique_by=lambda opinion: opinion.author)
orders = st.lists(st.tuples(st.integers(0, NOW), st.booleans()), max_size=5).map(tuple)


def eyes(viewer: dict[str, float], seeds: dict[str, float] | None = None) -> Eyes:
    return Eyes(lambda a: viewer.get(a, 0), lambda a: (seeds or {}).get(a, 0), frozenset([ME]))


def opinion(author: str = "a", value: float = 1.0, at_s: int = OLD) -> Opinion:
    return Opinion(f"of {author}", author, value, at_s, "receipt")


@given(said, weights, weights, orders)
def test_a_score_is_the_sum_of_its_reasons(
    opinions: list[Opinion], viewer: dict[str, float], seeds: dict[str, float], own: tuple[()]
) -> None:
    found = standing(opinions, eyes(viewer, seeds), NOW, Own(orders=own))
    assert -1 < found.score < 1
    assert 0 <= found.rank <= 100
    assert -1 < found.low <= 1
    shares = [reason.share for reason in found.reasons]
    assert math.fsum([found.own_share, *shares]) == pytest.approx(found.score, abs=1e-12)
    assert [abs(share) for share in shares] == sorted(map(abs, shares), reverse=True)
    head, rest = found.top(2)
    assert math.fsum([rest, *(reason.share for reason in head)]) == pytest.approx(found.score)
    ids = {each.id for each in opinions}
    assert {reason.id for reason in found.reasons} <= ids


@given(said, weights, weights, people.filter(lambda each: each.author != ME), weight)
def test_praise_by_the_trusted_never_lowers_and_blame_never_lifts(
    opinions: list[Opinion],
    viewer: dict[str, float],
    seeds: dict[str, float],
    more: Opinion,
    trusted: float,
) -> None:
    seen = eyes(viewer | {"new": trusted}, seeds | {"new": trusted / 2})
    before = standing(opinions, seen, NOW)
    after = standing([*opinions, replace(more, author="new")], seen, NOW)
    sign = math.copysign(1, more.value)
    assert sign * after.score >= sign * before.score - 1e-12
    assert sign * after.low >= sign * before.low - 1e-12


def test_trust_so_small_that_a_word_of_it_is_none() -> None:
    word = Opinion("i", "a", 0.5, NOW, "list", (("latency", 0.5),))
    assert standing([word], eyes({"a": 5e-324}, {}), NOW).aspects == ()


@given(said, weights, weights, st.lists(people, max_size=20))
def test_whom_nobody_trusts_changes_no_bit(
    opinions: list[Opinion],
    viewer: dict[str, float],
    seeds: dict[str, float],
    strangers: list[Opinion],
) -> None:
    seen = eyes(viewer, seeds)
    sybils = [replace(each, author=f"sybil {n}") for n, each in enumerate(strangers)]
    assert standing([*sybils, *opinions], seen, NOW) == standing(opinions, seen, NOW)


@given(said.flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))), weights)
def test_the_order_of_opinions_does_not_matter(
    both: tuple[list[Opinion], list[Opinion]], viewer: dict[str, float]
) -> None:
    one, two = (standing(each, eyes(viewer), NOW) for each in both)
    assert one.score == two.score
    assert one.reasons == two.reasons


def test_the_unknown_stand_between_the_good_and_the_bad() -> None:
    unknown = standing([], eyes({}), NOW)
    assert (unknown.score, unknown.rank, unknown.evidence) == (0, 50, 0)
    assert (unknown.reasons, unknown.newest_s, unknown.as_of_s) == ((), 0, NOW)
    good = standing([opinion()], eyes({"a": 1}), NOW)
    bad = standing([opinion(value=-0.5)], eyes({"a": 1}), NOW)
    assert bad.score < unknown.score < good.score
    assert bad.low < unknown.low < good.low
    assert good.newest_s == OLD


def test_more_friends_make_it_surer() -> None:
    friends = dict.fromkeys("abcdef", 1.0)
    steps = [
        standing([opinion(name) for name in "abcdef"[:count]], eyes(friends), NOW)
        for count in range(7)
    ]
    assert [step.low for step in steps] == sorted(step.low for step in steps)
    assert [step.score for step in steps] == sorted(step.score for step in steps)


def test_who_follows_nobody_sees_through_the_seeds() -> None:
    praise = [opinion("a"), opinion("b")]
    stranger = standing(praise, eyes({}, {"a": 1, "b": 1}), NOW)
    assert 0 < stranger.score < standing(praise, eyes({"a": 1}, {"a": 1, "b": 1}), NOW).score
    assert [reason.weight for reason in stranger.reasons] == [0, 0]


def test_fresh_praise_has_to_ripen_and_blame_does_not() -> None:
    assert age_factor(0, good=True) == pytest.approx(RAW)
    assert age_factor(-5, good=True) == pytest.approx(RAW)
    assert age_factor(0, good=False) == 1
    assert age_factor(10_000 * DAY_S, good=False) == pytest.approx(KEPT)
    assert age_factor(60 * DAY_S, good=True) > age_factor(5 * DAY_S, good=True)
    assert age_factor(60 * DAY_S, good=True) > age_factor(900 * DAY_S, good=True)


def test_blame_counts_whole_and_praise_by_its_height() -> None:
    high, low = evidence_of(opinion(value=1), NOW), evidence_of(opinion(value=0.5), NOW)
    assert high == pytest.approx(2 * low)
    mild, harsh = evidence_of(opinion(value=-0.1), NOW), evidence_of(opinion(value=-1), NOW)
    assert mild == harsh < 0
    assert evidence_of(opinion(value=0), NOW) == 0
    assert evidence_of(opinion(value=7), NOW) == high
    word = replace(opinion(), basis="review")
    assert evidence_of(word, NOW) == pytest.approx(high * STRENGTH["review"])


def test_own_word_and_own_orders_outweigh_friends() -> None:
    friends = eyes(dict.fromkeys("abcdefgh", 1.0))
    praise = [opinion(name) for name in "abcdefgh"]
    own = standing([*praise, opinion(ME, -1)], friends, NOW)
    assert own.score < 0
    assert own.reasons[0].author == ME
    assert own.reasons[0].weight == OWN
    failed = Own(orders=[(NOW, False)] * 40)
    assert standing(praise, friends, NOW, failed).score < 0
    assert standing(praise, friends, NOW, failed).own_share < 0
    good, bad = experience([(NOW, True), (NOW, False), (NOW - 7 * DAY_S, True)], NOW)
    assert bad == pytest.approx(BLAME * good / 1.5)


def test_aspects_are_means_by_weight() -> None:
    quick = replace(opinion("a"), aspects=(("latency", 1.0),))
    slow = replace(opinion("b"), aspects=(("latency", 0.5), ("quality", 0.75)), basis="review")
    found = standing([quick, slow, opinion("c")], eyes({"a": 0.5, "b": 1.0}), NOW)
    assert [each.name for each in found.aspects] == ["latency", "quality"]
    assert [each.mean for each in found.aspects] == pytest.approx([0.75, 0.75])
    assert [each.weight for each in found.aspects] == pytest.approx([1.0, 0.5])


@given(st.floats(0, 50), st.floats(0, 50))
def test_the_bound_lies_below_the_mean(good: float, bad: float) -> None:
    mean = (good - bad) / (good + bad + 2)
    assert -1 < low_bound(good, bad) < mean
    assert low_bound(good + 1, bad) > low_bound(good, bad) > low_bound(good, bad + 1)


def test_whose_turn_it_is() -> None:
    seen = eyes({"a": 1.0})
    good, bad = standing([opinion()], seen, NOW), standing([opinion(value=-1)], seen, NOW)
    listed = standing([opinion(value=-1)], seen, NOW, Own(listed=True))
    muted = standing([opinion()], seen, NOW, Own(listed=True, muted=True))
    places = [
        turn(listed, alive=True),
        turn(good, alive=True),
        turn(bad, alive=True),
        turn(listed, alive=False),
        turn(muted, alive=True),
    ]
    assert places == sorted(places)
    assert (listed.override, muted.override, good.override) == ("listed", "muted", None)
