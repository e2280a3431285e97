"""Prices find what earns most, make room when it is full, and never leave the bounds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrllm.core.pricing import (
    MARGIN,
    Adaptive,
    Bounds,
    Fixed,
    Policy,
    Reason,
    make_policy,
    of_operator,
)
from nostrllm.core.pricing_state import ServerState
from tests.core.pricing_market import Market, learned

REASONS = frozenset(get_args(Reason))


@dataclass
class Anything:
    """A state of which nothing is certain, not even the types."""

    t: float
    dt: float
    price: float
    batch_price: float
    slots: int
    queue_work: float
    batch_queue_work: float
    req_n: int
    req_work: float
    batch_req_n: int
    batch_req_work: float
    capacity: float
    marginal_cost: float
    comp_price: float | None
    pmin: float
    pmax: float
    changes_left: int | None


numbers = st.one_of(
    st.floats(0, 1_000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-5, 100_000),
    st.sampled_from([0, None]),
)
anything = st.builds(Anything, **dict.fromkeys(Anything.__dataclass_fields__, numbers))
policies = st.sampled_from([Fixed, Adaptive])


@settings(max_examples=60)
@given(policies, st.lists(anything, min_size=1, max_size=12))
def test_whatever_comes_prices_are_finite_and_cover_the_cost(
    make: type[Fixed] | type[Adaptive], states: list[Anything]
) -> None:
    policy = make()
    for state in states:
        decision = policy.decide(state)
        assert decision.reasons
        assert set(decision.reasons) <= REASONS
        cost = state.marginal_cost
        known = isinstance(cost, (int, float)) and math.isfinite(cost)
        for price in (decision.interactive, decision.batch):
            assert 0 < price <= 1e6
            if known and cost <= 1e5:
                assert price >= MARGIN * cost
        json.dumps(policy.snapshot(), allow_nan=False)


@given(
    policies,
    st.floats(0.01, 2),
    st.floats(0, 3),
    st.lists(st.integers(0, 100), min_size=1, max_size=30),
)
def test_the_operators_bounds_hold(
    make: type[Fixed] | type[Adaptive], lowest: float, span: float, counts: list[int]
) -> None:
    policy = make(bounds=Bounds(lowest, lowest + span))
    for tick, orders in enumerate(counts):
        state = ServerState(15.0 * tick, 15.0, req_n=orders, req_work=300.0 * orders)
        decision = policy.decide(state)
        assert lowest <= decision.interactive <= lowest + span
        assert lowest <= decision.batch <= lowest + span


def test_the_cost_is_above_the_bounds() -> None:
    state = ServerState(0.0, 15.0, marginal_cost=3.0, pmin=0.5, pmax=2.0)
    for policy in (Fixed(), make_policy()):
        decision = policy.decide(state)
        assert (decision.interactive, decision.batch) == pytest.approx((3.15, 3.15))
        assert decision.reasons[-1] == "cost-floor"
    assert "bound" in Fixed(5.0, 1.0).decide(replace(state, marginal_cost=0.0)).reasons


def test_fixed_prices_are_pairs_too() -> None:
    assert Fixed(1.1, 0.7)(ServerState(0.0, 15.0)) == (1.1, 0.7)
    assert Fixed().decide(ServerState(0.0, 15.0)).reasons == ("list",)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_an_operators_program_is_bounded_too(price: float) -> None:
    state = ServerState(0.0, 15.0, marginal_cost=0.4)
    decision = of_operator((9.0, 0.1), state, Bounds(0.3, 2.0))
    assert (decision.interactive, decision.batch) == pytest.approx((2.0, 0.42))
    assert decision.reasons == ("operator", "bound", "cost-floor")
    with pytest.raises(ValueError, match="price"):
        of_operator((1.0, price), state)


@pytest.mark.parametrize("worth", [0.7, 1.2, 2.0])
def test_the_price_that_earns_most_is_learned(worth: float) -> None:
    """Competitors ask the same each time; only the experiments tell."""
    market = Market(worth=worth, spread=0.25, looks_per_s=3.0, capacity=10_000.0, dt_s=30.0)
    market.run(make_policy(), 24)
    assert market.mean_price(8) == pytest.approx(market.best_price(), rel=0.12)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_list_price_that_is_wrong_costs_nothing(factor: float) -> None:
    """All prices twice as high are the same market, priced twice as high."""
    one, other = make_policy(), make_policy()
    state = ServerState(0.0, 15.0, slots=4, capacity=100.0, marginal_cost=0.2, comp_price=1.3)
    price = batch = 0.9
    for tick in range(600):
        orders = (tick * 7) % 5
        state = replace(
            state,
            t=15.0 * tick,
            price=price,
            batch_price=batch,
            req_n=orders,
            req_work=350.0 * orders,
            batch_req_n=tick % 2,
            batch_req_work=500.0 * (tick % 2),
        )
        price, batch = one(state)
        scaled = other(
            replace(
                state,
                price=factor * state.price,
                batch_price=factor * state.batch_price,
                marginal_cost=factor * state.marginal_cost,
                comp_price=factor * 1.3,
            )
        )
        assert scaled == pytest.approx((factor * price, factor * batch))


def test_a_full_server_is_dearer_until_the_work_fits() -> None:
    market = Market(looks_per_s=20.0, spread=0.3)
    policy = learned(market, 6)
    decision = policy.decide(market.state)
    assert "congestion" in decision.reasons
    asked = 20.0 * market.bought(market.mean_price(1)) * 300
    assert asked == pytest.approx(market.capacity, rel=0.25)
    assert decision.interactive > market.best_price()


def test_batch_work_is_dearer_when_much_of_it_waits() -> None:
    state = ServerState(0.0, 15.0, capacity=100.0, slots=16, comp_price=1.3)
    short, long = (
        make_policy().decide(state),
        make_policy().decide(replace(state, batch_queue_work=3e5)),
    )
    assert "backlog" in long.reasons
    assert "backlog" not in short.reasons
    assert long.batch > short.batch
    assert long.interactive == short.interactive


def test_a_price_that_nobody_pays_comes_down() -> None:
    """Competitors mislead: buyers are worth a tenth of what those ask."""
    market = Market(worth=0.3, worth_waiting=0.2, spread=0.1, cost=0.02, rival=5.0)
    policy = make_policy()
    market.run(policy, 1)
    assert "decay" in policy.decide(market.state).reasons
    market.run(policy, 6)
    assert market.mean_price(1) < 0.8


def test_it_moves_with_competitors_and_not_with_followers() -> None:
    policy = make_policy()
    state = ServerState(0.0, 15.0, capacity=1e6, req_n=5, req_work=1_500.0, comp_price=1.3)
    before = policy.decide(state)
    cheaper = policy.decide(replace(state, t=15.0, comp_price=1.0))
    gone = policy.decide(replace(state, t=30.0, comp_price=None))
    assert "competitor" not in before.reasons
    assert "competitor" in cheaper.reasons
    assert cheaper.interactive < before.interactive < gone.interactive
    chased = Market(undercut=0.05, looks_per_s=3.0, capacity=10_000.0, dt_s=30.0)
    chased.run(make_policy(), 12)
    assert chased.mean_price(6) > 0.75


def test_a_competitor_who_comes_later_is_the_anchor_if_nothing_is_learned() -> None:
    alone = ServerState(0.0, 15.0, capacity=1e6, marginal_cost=0.2)
    policy = make_policy()
    first = policy(alone)[0]
    second = policy(replace(alone, t=15.0, comp_price=2.6))[0]
    assert first == pytest.approx(math.sqrt(0.9), rel=0.1)
    assert second == pytest.approx(0.7 * 2.6, rel=0.1)


@pytest.mark.parametrize("dt_s", [10.0, 30.0, 60.0])
def test_the_length_of_a_tick_does_not_matter(dt_s: float) -> None:
    def after(dt_s: float) -> float:
        market = Market(looks_per_s=8.0, dt_s=dt_s, spread=0.3)
        market.run(make_policy(), 8)
        return market.mean_price(4)

    assert after(dt_s) == pytest.approx(after(20.0), rel=0.04)


def test_few_public_changes_hold_the_price() -> None:
    policy = make_policy()
    state = ServerState(0.0, 15.0, comp_price=1.3, capacity=1e6, req_n=5, req_work=1_500.0)
    first = policy.decide(replace(state, price=1.0, batch_price=1.0, changes_left=6))
    assert "held" not in first.reasons
    published = replace(state, t=15.0, price=first.interactive, batch_price=first.batch)
    second = policy.decide(replace(published, changes_left=5))
    assert "held" in second.reasons
    assert abs(math.log(second.interactive / first.interactive)) < 0.05
    spent = policy.decide(replace(state, t=30.0, price=5.0, batch_price=5.0, changes_left=0))
    assert spent.interactive == pytest.approx(5.0, rel=0.05)


def test_what_was_learned_survives_a_restart() -> None:
    market = Market(looks_per_s=5.0)
    policy = learned(market, 8)
    kept = json.loads(json.dumps(policy.snapshot()))
    restarted = make_policy()
    restarted.restore(kept)
    assert restarted.snapshot() == policy.snapshot()
    for tick in range(400):
        state = replace(market.state, t=market.state.t + 15.0 * tick, req_n=tick % 9)
        assert restarted.decide(state) == policy.decide(state)


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        {"policy": "fixed"},
        {"version": 0},
        {"load": None},
        {"load": {}},
        {"sweep": {"middle": None}},
        {"sweep": "middle"},
        {"elasticity": {"orders": ["x"]}},
        {"elasticity": {"orders": [0.0]}},
        {"elasticity": {"orders": 1.0}},
        {"elasticity": {"value": math.nan}},
        {"elasticity": {"value": True}},
        {"elasticity": {"begun": 1}},
    ],
)
def test_a_snapshot_that_is_none_changes_nothing(spoilt: dict[str, object]) -> None:
    policy = learned(Market(), 1)
    before = policy.snapshot()
    kept = dict(before) if spoilt else {}
    for name, value in spoilt.items():
        part = kept[name]
        if isinstance(part, dict) and isinstance(value, dict) and value:
            kept[name] = part | value
        else:
            kept[name] = value
    with pytest.raises(ValueError, match=r"learned|fields"):
        policy.restore(kept)
    assert policy.snapshot() == before


def test_a_fixed_price_learns_nothing() -> None:
    policy: Policy = Fixed()
    policy.restore(policy.snapshot())
    with pytest.raises(ValueError, match="learned"):
        policy.restore(make_policy().snapshot())
