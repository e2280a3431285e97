"""Prices in dollars and msat, what they are compared by, and what others' prices say."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.listings import Listing, Offer
from nostrllm.core.rates import Rate
from nostrllm.core.tariff import Sum, cost_share, rival_share, usual_cost
from nostrllm.wire.announcement import Announcement, ModelOffer, Price, Profile
from nostrllm.wire.message import MSAT_MAX

CENT = Rate(14_000, 1_800_000_000)  # a bitcoin of some 71,000 dollars
ME, OTHER, THIRD = "aa" * 32, "bb" * 32, "cc" * 32
OWN = {"m": Price(input=100, output=200), "free": Price(input=0, output=0)}


def test_dollars_are_turned_into_msat_at_the_rate() -> None:
    asked = Sum("usd", Decimal("0.15"), Decimal("0.6"), Decimal("0.0001"), cached=Decimal("0.075"))
    price = asked.price(CENT)
    assert price == Price(input=210_000, output=840_000, request=140, cached=105_000)
    assert asked.price(CENT, 0.5) == Price(input=105_000, output=420_000, request=70, cached=52_500)
    assert asked.price(None) is None


def test_msat_need_no_rate() -> None:
    asked = Sum("msat", Decimal(1_000), Decimal(3_000), reasoning=Decimal(5_000))
    assert asked.price(None) == Price(input=1_000, output=3_000, reasoning=5_000)
    assert asked.price(None, 0.525) == Price(input=525, output=1_575, reasoning=2_625)
    assert asked.price(None, 1e300) == Price(input=MSAT_MAX, output=MSAT_MAX, reasoning=MSAT_MAX)


def test_a_price_is_its_own_sum() -> None:
    for price in (Price(input=1, output=2, request=3), Price(input=1, output=2, cached=4)):
        assert Sum.of(price).price(None) == price
    reasoning = Price(input=1, output=2, reasoning=5)
    assert Sum.of(reasoning).price(CENT, 2.0) == Price(input=2, output=4, reasoning=10)


@given(st.integers(0, 10**12), st.floats(1e-6, 1e6))
def test_what_costs_anything_is_never_free_and_rounded_up_by_less_than_one(
    msat: int, multiplier: float
) -> None:
    price = Sum("msat", Decimal(msat), Decimal(0)).price(None, multiplier)
    assert price is not None
    assert price.output == 0
    assert (price.input > 0) == (msat > 0)
    assert price.input - Fraction(str(multiplier)) * msat < 1 or price.input == MSAT_MAX


def test_cost_is_compared_where_it_weighs_most() -> None:
    price = Price(input=100, output=200, request=0)
    assert cost_share(Price(input=50, output=60, request=9), price) == 0.5
    assert cost_share(Price(input=1, output=1), Price(input=0, output=0)) == 0.0


def listing(pubkey: str, *, closing: bool = False, **outputs: int) -> Listing:
    """A provider with these models, at twice as much for output as for input."""
    announcement = Announcement(
        pubkey=pubkey,
        d="main",
        created_at=1,
        expiration=2,
        mints=("https://mint.example",),
        relays=("wss://relay.example",),
        payment_key="02" + "0" * 64,
        instance="i",
        closing=closing,
        price_seq=1,
        price_root="0" * 64,
        profile=Profile(name="x"),
    )
    models = [
        ModelOffer(id=id, context=1, max_tokens=1, price=Price(input=n // 2, output=n))
        for id, n in outputs.items()
    ]
    return Listing(announcement, tuple(Offer(announcement, one, "0" * 64, 2) for one in models))


def test_others_prices_are_multiples_of_ours() -> None:
    assert usual_cost(OWN["m"]) == 100_000
    assert rival_share([], OWN, ME) is None
    assert rival_share([listing(ME, m=100)], OWN, ME) is None
    assert rival_share([listing(OTHER, m=100, closing=True)], OWN, ME) is None
    assert rival_share([listing(OTHER, other=100, free=100)], OWN, ME) is None
    assert rival_share([listing(OTHER, m=0)], OWN, ME) is None
    assert rival_share([listing(OTHER, m=300, free=7)], OWN, ME) == pytest.approx(1.5)


def test_one_who_dumps_does_not_make_the_price() -> None:
    market = [listing(OTHER, m=220), listing(THIRD, m=260), listing("dd" * 32, m=2)]
    assert rival_share(market, OWN, ME) == pytest.approx(1.1)
