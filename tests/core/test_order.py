"""Whatever happens to an order, every msat ends as cost, change or credit, and once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrllm.core.order import (
    Event,
    Failed,
    Generated,
    Order,
    OrderError,
    Paid,
    PaymentRefused,
    Settlement,
    Started,
)

msat = st.integers(0, 10**8)
events = st.one_of(
    st.builds(Paid, msat),
    st.builds(PaymentRefused, st.just("payment-token-spent")),
    st.builds(Started),
    st.builds(Generated, msat, st.booleans(), st.none() | st.just("cancelled")),
    st.builds(Failed, st.just("deadline")),
)
orders = st.builds(
    Order,
    funding=st.sampled_from(["token", "account"]),
    ceiling_msat=msat,
    fee_msat=st.integers(0, 5_000),
    unit_msat=st.sampled_from([1, 1_000]),
    change_fee_units=st.integers(0, 3),
    wants_ecash=st.booleans(),
)


@settings(max_examples=2_000)
@given(orders, st.lists(events, max_size=10))
def test_every_msat_is_accounted_for(order: Order, history: list[Event]) -> None:
    for event in history:
        before = order
        try:
            order = order.handle(event)
        except OrderError:
            assert order is before
        else:
            assert before.settlement is None, "nothing follows a settlement"
    assert (order.settlement is not None) == (order.state == "settled")
    if order.settlement is not None:
        split = order.settlement
        change_msat = split.change_units * order.unit_msat
        assert split.cost_msat + change_msat + split.credit_msat == order.net_msat
        assert split.cost_msat <= max(0, order.ceiling_msat - order.fee_msat)
        assert min(split.cost_msat, split.change_units, split.credit_msat) >= 0


def paid(net: int = 63_000, **fields: Any) -> Order:
    order = replace(Order("token", ceiling_msat=64_000, fee_msat=1_000), **fields)
    after = order.handle(Paid(net))
    assert after.budget_msat == min(net, 63_000)
    return after


def test_the_happy_way() -> None:
    settled = paid().handle(Started()).handle(Generated(3_300, useful=True))
    assert settled.settlement == Settlement(3_300, 59, 700)
    assert settled.code is None


def test_a_refused_payment_takes_nothing() -> None:
    refused = Order("token", 64_000).handle(PaymentRefused("payment-token-spent"))
    assert (refused.state, refused.code) == ("refused", "payment-token-spent")
    assert refused.settlement is None


@pytest.mark.parametrize("event", [Failed("deadline"), Generated(5_000, useful=False)])
def test_a_failure_costs_nothing(event: Event) -> None:
    assert paid().handle(Started()).handle(event).settlement == Settlement(0, 63, 0)


def test_a_crash_before_the_start_pays_back_too() -> None:
    after = paid().handle(Failed("generation-failed"))
    assert after.settlement == Settlement(0, 63, 0)
    assert after.code == "generation-failed"


def test_the_cost_stops_at_the_ceiling() -> None:
    running = replace(paid(), state="running", ceiling_msat=10_000)
    settlement = running.handle(Generated(50_000, useful=True)).settlement
    assert settlement is not None
    assert settlement.cost_msat == 9_000


@pytest.mark.parametrize(
    "order",
    [paid(wants_ecash=False), paid(funding="account"), paid(change_fee_units=63)],
)
def test_change_that_is_unwanted_or_too_small_is_credited(order: Order) -> None:
    split = order.split(0)
    assert (split.change_units, split.credit_msat) == (0, 63_000)


def test_what_cannot_happen_is_our_bug() -> None:
    with pytest.raises(OrderError):
        Order("token", 1).handle(Started())


LOCKED = Order("locked", 64_000, fee_msat=1_000, rungs=(1, 2, 4, 8), state="paid", net_msat=63_000)


def test_a_locked_token_goes_back_whole_when_nothing_was_taken_of_it() -> None:
    for event in (Failed("generation-failed"), Failed("deadline")):
        assert LOCKED.handle(event).settlement == Settlement(0, 0, 0, released=True)
    empty = LOCKED.handle(Started()).handle(Generated(5_000, useful=False))
    assert empty.settlement == Settlement(0, 0, 0, released=True)


def test_change_of_a_locked_token_is_what_the_clients_outputs_can_make() -> None:
    done = LOCKED.handle(Started()).handle(Generated(50_500, useful=True))
    assert done.settlement == Settlement(50_500, 12, 500)
    done = LOCKED.handle(Started()).handle(Generated(20_000, useful=True))
    assert done.settlement == Settlement(20_000, 15, 28_000)
    none = replace(LOCKED, rungs=()).handle(Started()).handle(Generated(20_000, useful=True))
    assert none.settlement == Settlement(20_000, 0, 43_000)


@given(st.lists(st.sampled_from([1, 2, 4, 8, 16])), msat.filter(bool))
def test_every_msat_of_a_locked_token(rungs: list[int], cost: int) -> None:
    order = replace(LOCKED, rungs=tuple(rungs)).handle(Started()).handle(Generated(cost, True))
    split = order.settlement
    assert split is not None
    assert split.cost_msat + split.change_units * 1_000 + split.credit_msat == order.net_msat
    assert not split.released


@given(msat, msat, msat, msat)
def test_a_quota_pays_before_the_balance(ceiling: int, net: int, quota: int, cost: int) -> None:
    net = min(net, max(0, ceiling - quota))
    order = Order("account", ceiling, wants_ecash=False, state="paid", net_msat=net)
    order = replace(order, quota_msat=quota).handle(Started())
    split = order.handle(Generated(cost, useful=True)).settlement
    assert split is not None
    assert split.quota_msat == min(cost, quota, ceiling)
    assert split.cost_msat + split.quota_msat == min(cost, ceiling, net + quota)
    assert split.cost_msat + split.credit_msat == net
