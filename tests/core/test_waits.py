"""How long an order will wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.waits import ServiceTime, expected_s, retry_s


def test_nothing_is_known_before_the_first() -> None:
    assert ServiceTime().likely_s([]) == 5.0
    assert ServiceTime().likely_s([3.0, 1.0]) == 5.0
    assert ServiceTime().likely_s([3.0, 9.0]) == 9.0


def test_it_follows_what_orders_take() -> None:
    time = ServiceTime()
    for _ in range(100):
        time = time.after(4.0)
    assert time.likely_s([9.0]) == pytest.approx(4.0, abs=0.01)
    assert ServiceTime().after(4.0).likely_s([]) == 6.0


def test_behind_those_that_run() -> None:
    assert expected_s(0, 2, [], 5.0) == 0
    assert expected_s(0, 2, [1.0], 5.0) == 0
    assert expected_s(0, 2, [1.0, 4.0], 5.0) == 1.0
    assert expected_s(1, 2, [1.0, 4.0], 5.0) == 4.0
    assert expected_s(2, 2, [1.0, 4.0], 5.0) == 6.0
    assert expected_s(5, 1, [], 5.0) == 25.0
    assert expected_s(0, 1, [1.0, 2.0, 3.0], 5.0) == 4.0  # the limit has shrunk below what runs


@given(
    st.integers(0, 40), st.integers(1, 5), st.lists(st.floats(0, 9), max_size=5), st.floats(0.1, 9)
)
def test_it_is_what_serving_them_one_by_one_takes(
    ahead: int, slots: int, ages: list[float], service: float
) -> None:
    ages = ages[:slots]
    free = sorted([max(0.0, service - age) for age in ages] + [0.0] * (slots - len(ages)))
    for _ in range(ahead):
        free = sorted([free[0] + service, *free[1:]])
    assert expected_s(ahead, slots, ages, service) == pytest.approx(free[0])


def test_when_to_come_back() -> None:
    assert [retry_s(s) for s in (0.0, 1.2, 1e9)] == [1, 2, 3_600]
