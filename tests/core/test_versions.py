"""The difference of two versions and its interval, against textbook numbers."""

from __future__ import annotations

import random

import pytest

from nostrllm.core.versions import Tally, difference, rate_difference


def tally(*values: float) -> Tally:
    found = Tally()
    for value in values:
        found = found.after(value)
    return found


def test_welch_by_hand() -> None:
    one, other = tally(27.5, 21.0, 19.0, 23.6, 17.0, 17.9), tally(27.1, 22.0, 20.8, 23.4, 23.4)
    found = difference(one, other)
    assert found is not None
    assert found.by == pytest.approx(2.34)
    # t(8.29 degrees of freedom) = 2.2925; standard error 1.9340
    assert (found.low, found.high) == pytest.approx((-2.094, 6.774), abs=0.01)
    assert not found.is_clear


def test_no_spread_is_certain_and_one_value_says_nothing() -> None:
    assert difference(tally(1.0), tally(1.0, 2.0)) is None
    found = difference(tally(1.0, 1.0), tally(2.0, 2.0))
    assert found is not None
    assert (found.by, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.is_clear
    worse = difference(tally(2.0, 2.0), tally(1.0, 1.0))
    assert worse is not None
    assert worse.is_clear


def test_agresti_and_caffo_by_hand() -> None:
    assert rate_difference(Tally(), tally(1.0)) is None
    found = rate_difference(tally(*[1.0] * 7, *[0.0] * 3), tally(*[1.0] * 9, 0.0))
    assert found is not None
    assert found.by == pytest.approx(0.2)
    # (8/12, n 12) and (10/12, n 12)
    assert (found.low, found.high) == pytest.approx((-0.1740, 0.5073), abs=1e-3)


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """At least 93 % of 2,000 drawn pairs: 95 % less what chance may take."""
    drawn = random.Random(4)
    means = rates = 0
    for _ in range(2_000):
        one = tally(*(drawn.gauss(1.0, 2.0) for _ in range(8)))
        other = tally(*(drawn.gauss(1.5, 0.5) for _ in range(12)))
        found = difference(one, other)
        assert found is not None
        means += found.low <= 0.5 <= found.high
        one = tally(*(float(drawn.random() < 0.9) for _ in range(20)))
        other = tally(*(float(drawn.random() < 0.8) for _ in range(30)))
        found = rate_difference(one, other)
        assert found is not None
        rates += found.low <= -0.1 <= found.high
    assert means >= 1_860
    assert rates >= 1_860
