"""No more public changes in any hour than allowed, and the last ones only for large differences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.pricing_limit import HOUR_S, SCARCE, THRESHOLD, ChangeLimiter


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.floats(0, 900), st.floats(0.1, 10), st.floats(0.1, 10)), max_size=120),
)
def test_never_more_than_allowed_in_any_hour(
    per_hour: int, ticks: list[tuple[float, float, float]]
) -> None:
    limiter, now_s, published = ChangeLimiter(per_hour), 0.0, (1.0, 1.0)
    changed: list[float] = []
    for pause_s, *live in ticks:
        now_s += pause_s
        if limiter.change(now_s, published, (live[0], live[1])):
            published = (live[0], live[1])
            changed.append(now_s)
    for first, last in zip(changed, changed[per_hour:], strict=False):
        assert last - first >= HOUR_S


def test_the_fewer_are_left_the_larger_a_change_has_to_be() -> None:
    limiter = ChangeLimiter(per_hour=2)
    assert not limiter.change(0.0, (1.0, 1.0), (math.exp(0.9 * THRESHOLD), 1.0))
    assert limiter.change(0.0, (1.0, 1.0), (math.exp(1.1 * THRESHOLD), 1.0))
    assert not limiter.change(1.0, (1.0, 1.0), (math.exp(1.1 * THRESHOLD), 1.0))
    assert limiter.change(1.0, (1.0, 1.0), (1.0, math.exp(-3 * (THRESHOLD + SCARCE))))
    assert limiter.left(2.0) == 0
    assert not limiter.change(2.0, (1.0, 1.0), (5.0, 5.0))
    assert limiter.left(HOUR_S) == 1


def test_changes_before_a_restart_count() -> None:
    limiter = ChangeLimiter(per_hour=3)
    for at_s in (0.0, 10.0, 20.0):
        assert limiter.change(at_s, (1.0, 1.0), (2.0, 2.0))
    restarted = ChangeLimiter(3, changed_at_s=limiter.snapshot())
    assert restarted.left(30.0) == 0
    assert restarted.left(HOUR_S + 10.0) == 2


def test_a_limit_of_none_at_all_is_none() -> None:
    with pytest.raises(ValueError, match="limit"):
        ChangeLimiter(per_hour=0)


def test_changes_for_other_reasons_come_out_of_the_same_hour() -> None:
    limiter = ChangeLimiter(per_hour=2)
    assert limiter.use(0.0)
    assert limiter.change(1.0, (1.0, 1.0), (9.0, 9.0))
    assert not limiter.use(2.0)
    assert limiter.next_s(2.0) == HOUR_S
    assert limiter.next_s(HOUR_S) == HOUR_S
    assert limiter.use(HOUR_S)
