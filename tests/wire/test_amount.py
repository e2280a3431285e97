"""Amounts as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.wire.amount import coins, per_1000, sats


@pytest.mark.parametrize(
    ("msat", "text"),
    [(0, "0 sat"), (1, "0.001 sat"), (1_234, "1.234 sat"), (20_000, "20 sat"), (500, "0.5 sat")],
)
def test_sats(msat: int, text: str) -> None:
    assert sats(msat) == text


@pytest.mark.parametrize(
    ("price", "text"),
    [(0, "0 sat"), (1, "0.001 sat"), (999, "0.001 sat"), (1_001, "0.002 sat"), (10**6, "1 sat")],
)
def test_a_price_is_rounded_up(price: int, text: str) -> None:
    assert per_1000(price) == text


@given(st.integers(0, 10**12))
def test_a_price_is_never_told_too_low(price: int) -> None:
    told = round(float(per_1000(price).removesuffix(" sat")) * 1e6)
    assert price <= told < price + 1_000


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [(5, "sat", "5 sat"), (123, "usd", "1.23 USD"), (7, "usd", "0.07 USD"), (9, "msat", "9 msat")],
)
def test_coins(amount: int, unit: str, text: str) -> None:
    assert coins(amount, unit) == text
