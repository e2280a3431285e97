"""Plans: what a client gets back, and when a standing order is carried out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.plan import Plan, Subscription, begun

NOW = 1_800_000_000
GOLD = Plan("gold", 10_000, 86_400, quota_msat=20_000)
msat = st.integers(0, 10**12)


@given(msat, st.integers(1, 10**8), msat, st.integers(0, 2 * 10**8), st.data())
def test_a_refund_is_the_smaller_of_both_shares(
    price: int, period_s: int, quota: int, passed_s: int, data: st.DataObject
) -> None:
    bought = begun("s", "a", Plan("p", price, period_s, quota_msat=quota), NOW)
    left = data.draw(st.integers(0, quota))
    refund = replace(bought, quota_left_msat=left).refund_msat(NOW + passed_s)
    assert 0 <= refund <= price
    assert refund * period_s <= price * max(0, period_s - passed_s)
    if quota:
        assert refund * quota <= price * left
    if not passed_s and left == quota:
        assert refund == price
    if passed_s >= period_s:
        assert refund == 0


@given(msat, st.integers(1, 10**8), st.integers(0, 10**8), st.integers(0, 10**8))
def test_waiting_never_brings_more_back(price: int, period_s: int, a: int, b: int) -> None:
    bought = begun("s", "a", Plan("p", price, period_s), NOW)
    early, late = sorted((a, b))
    assert bought.refund_msat(NOW + early) >= bought.refund_msat(NOW + late)
    assert bought.refund_msat(NOW - early) == price


@given(msat, st.integers(1, 100), msat, st.integers(0, 10**8))
def test_who_cancels_has_paid_for_what_lower_prices_saved_him(
    price: int, percent: int, spent: int, passed_s: int
) -> None:
    bought = begun("s", "a", Plan("p", price, 86_400, percent=percent), NOW)
    refund = bought.refund_msat(NOW + passed_s, spent)
    assert 0 <= refund <= bought.refund_msat(NOW + passed_s)
    kept, listed = price - refund, spent * 100 // percent
    assert kept + spent >= min(listed, price + spent)
    if percent == 100 or not spent:
        assert refund == bought.refund_msat(NOW + passed_s)


def test_a_plan_of_no_time_brings_nothing_back() -> None:
    assert Subscription("s", "a", GOLD, NOW, NOW, 0).refund_msat(NOW) == 0


def test_a_standing_order_is_carried_out_at_its_time() -> None:
    bought = replace(begun("s", "a", GOLD, NOW), renew=True, quota_left_msat=5)
    assert bought.is_active(NOW + 86_399)
    assert bought.renewed("t", GOLD, NOW + 86_399) is None
    assert not bought.is_active(NOW + 86_400)
    later = NOW + 200_000
    assert bought.renewed("t", GOLD, later) == Subscription(
        "t", "a", GOLD, later, later + 86_400, 20_000, renew=True
    )
    assert replace(bought, renew=False).renewed("t", GOLD, later) is None
    assert bought.renewed("t", None, later) is None


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"price_msat": 9_000}, True),
        ({"price_msat": 10_001}, False),
        ({"period_s": 86_399}, False),
        ({"quota_msat": 19_999}, False),
        ({"percent": 101}, False),
        ({"priority": -1}, False),
        ({"quota_msat": 30_000, "percent": 50, "priority": 3, "period_s": 100_000}, True),
    ],
)
def test_nobody_is_renewed_into_worse_terms(change: dict[str, Any], taken: bool) -> None:
    bought = replace(begun("s", "a", GOLD, NOW), renew=True)
    offer = replace(GOLD, **change)
    assert (bought.renewed("t", offer, bought.ends_at) is not None) is taken
