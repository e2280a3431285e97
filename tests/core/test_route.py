"""The order in which routes are tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.route import HISTORY_MAX, HISTORY_S, SUCCESS_MIN, Choice, Record, Route, in_order
from nostrllm.wire.announcement import Price

CHEAP, DEAR = Price(input=10, output=10_000), Price(input=10, output=90_000_000)


def ordered(*choices: Choice, draw: float = 0.0) -> list[str]:
    found = in_order(choices, prompt=500, answer=200, draw=draw, now_s=100.0)
    return [route.backend for route in found]


def test_the_cheaper_one_then_the_idle_one_then_the_faster_one() -> None:
    assert ordered(Choice(Route("a", "m", DEAR)), Choice(Route("b", "m", CHEAP))) == ["b", "a"]
    assert ordered(Choice(Route("a", "m"), wait_s=3.0), Choice(Route("b", "m"))) == ["b", "a"]
    slow = Record().began(9.0, 99.0)
    fast = Record().began(0.1, 99.0).ended(99.0, tokens=100, took_s=1.0)
    assert ordered(Choice(Route("a", "m"), slow), Choice(Route("b", "m"), fast)) == ["b", "a"]


def test_one_that_fails_costs_every_try() -> None:
    failing = Record()
    for _ in range(50):
        failing = failing.failed(99.0)
    assert failing.success(99.0) == pytest.approx(0.98 * 5 / 55)
    assert ordered(Choice(Route("a", "m"), failing), Choice(Route("b", "m"))) == ["b", "a"]
    for _ in range(1_000):
        failing = failing.failed(99.0)
    assert failing.success(99.0) == SUCCESS_MIN
    # What is over is forgotten.
    assert failing.success(1e6) == pytest.approx(0.98)


def test_who_is_ill_is_not_asked_and_a_spare_comes_last() -> None:
    ill = Choice(Route("a", "m"), well=False)
    spare = Choice(Route("b", "m", weight=0))
    dear = Choice(Route("c", "m", DEAR))
    assert ordered(ill, spare, dear) == ["c", "b"]
    assert ordered(ill, spare) == ["b"]
    assert ordered(ill) == []


def test_a_version_is_drawn_by_weight_and_the_other_is_what_is_left() -> None:
    old = Choice(Route("a", "m1", version="1", weight=3))
    new = Choice(Route("b", "m2", DEAR, version="2", weight=1))
    firsts = [ordered(old, new, draw=n / 100)[0] for n in range(100)]
    assert firsts == ["a"] * 75 + ["b"] * 25
    assert ordered(old, new, draw=0.9) == ["b", "a"]


def test_an_answer_of_one_token_says_nothing_of_speed() -> None:
    assert Record().ended(1.0, tokens=1, took_s=1.0).tokens_s.weight == 0
    assert Record().ended(1.0, tokens=9, took_s=0.0).tokens_s.weight == 0
    assert Record().ended(1.0, tokens=11, took_s=2.0).tokens_s.mean(0, 1.0) == pytest.approx(5.0)


def test_quality_has_a_point_per_hour_that_was_rated() -> None:
    record = Record().rated(1.0, 10.0).rated(0.0, 20.0).rated(2.0, HISTORY_S + 1.0)
    assert [hour for hour, _ in record.history] == [0, HISTORY_S]
    assert record.history[0][1] == pytest.approx(0.5, abs=0.01)
    for hour in range(3 * HISTORY_MAX):
        record = record.rated(0.5, hour * HISTORY_S)
    assert len(record.history) == HISTORY_MAX


CHOICES = st.lists(
    st.builds(
        lambda n, version, weight, well, wait_s: Choice(
            Route(f"b{n}", "m", version=version, weight=weight), Record(), well, wait_s
        ),
        st.integers(0, 9),
        st.sampled_from(["", "1", "2"]),
        st.integers(0, 5),
        st.booleans(),
        st.floats(0, 100),
    ),
    max_size=6,
)


@given(CHOICES, st.floats(0, 1, exclude_max=True))
def test_all_who_are_well_are_tried_once(choices: list[Choice], draw: float) -> None:
    found = in_order(choices, prompt=1, answer=1, draw=draw, now_s=0.0)
    well = [choice.route for choice in choices if choice.well]
    key = repr
    assert sorted(found, key=key) == sorted(well, key=key)
    weights = [bool(route.weight) for route in found]
    assert weights == sorted(weights, reverse=True)
