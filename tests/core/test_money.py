"""Price × usage is rounded once, up, and never exceeds what was said to be affordable."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import money
from nostrllm.errors import RemoteError
from nostrllm.wire.announcement import Price
from nostrllm.wire.order import Usage

amounts = st.integers(0, 10**10)
counts = st.integers(0, 10**6)
prices = st.builds(
    Price,
    input=amounts,
    output=amounts,
    request=amounts,
    cached=st.none() | amounts,
    reasoning=st.none() | amounts,
)
usages = st.builds(Usage, prompt=counts, completion=counts, cached=counts, reasoning=counts)


@given(prices, usages)
def test_the_cost_is_the_exact_sum_rounded_up_once(price: Price, usage: Usage) -> None:
    cached, reasoning = min(usage.cached, usage.prompt), min(usage.reasoning, usage.completion)
    exact = (
        Fraction(price.request)
        + Fraction((usage.prompt - cached) * price.input, 10**6)
        + Fraction(cached * (price.input if price.cached is None else price.cached), 10**6)
        + Fraction((usage.completion - reasoning) * price.output, 10**6)
        + Fraction(
            reasoning * (price.output if price.reasoning is None else price.reasoning), 10**6
        )
    )
    assert 0 <= money.cost_msat(price, usage) - exact < 1


def test_nineteen_msat_of_work_cost_nineteen() -> None:
    price = Price(input=1_000_000, output=1_000_000)
    assert money.cost_msat(price, Usage(prompt=12, completion=7)) == 19


@given(prices, st.integers(0, 10**5), st.integers(0, 10**12))
def test_what_is_affordable_is(price: Price, prompt: int, budget: int) -> None:
    tokens = money.affordable_tokens(price, prompt, budget)
    usage = Usage(prompt=prompt, completion=max(0, min(tokens, 1 << 40)))
    if tokens >= 0:
        assert money.cost_msat(price, usage) <= budget
    else:
        dearest = Usage(prompt=prompt, cached=prompt)
        assert max(money.cost_msat(price, usage), money.cost_msat(price, dearest)) > budget


def test_free_tokens_are_affordable_if_the_rest_is() -> None:
    free = Price(input=0, output=0, request=5)
    assert money.affordable_tokens(free, 10, 5) == 1 << 40
    assert money.affordable_tokens(free, 10, 4) == -1


def test_estimates_grow_with_bytes_and_messages() -> None:
    assert money.prompt_estimate(0, 1) == 8
    assert money.prompt_estimate(31, 1) == 19


def test_units_whose_worth_is_known() -> None:
    assert money.unit_msat("sat") == 1_000
    assert money.unit_msat("msat") == 1
    with pytest.raises(RemoteError) as caught:
        money.unit_msat("usd")
    assert caught.value.code == "payment-mint-unaccepted"


@given(prices, st.integers(0, 100))
def test_a_part_of_a_price_is_rounded_up_and_never_more_than_it(price: Price, percent: int) -> None:
    part = money.scaled(price, percent)
    for name in ("input", "output", "request", "cached", "reasoning"):
        whole, share = getattr(price, name), getattr(part, name)
        if whole is None:
            assert share is None
        else:
            assert 0 <= share - Fraction(whole * percent, 100) < 1
    assert money.scaled(price, 100) == price


def test_coins_with_a_rate_count_as_they_are() -> None:
    assert (money.booked("usd"), money.booked("sat"), money.booked("msat")) == (1, 1_000, 1)
    with pytest.raises(RemoteError, match="eur"):
        money.booked("eur")
