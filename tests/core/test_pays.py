"""What coins are worth by a price list, and at what price they pay."""

from __future__ import annotations

import pytest

from nostrllm.core.pays import Coin, coins_taken
from nostrllm.core.rates import MSAT_MAX, MSAT_MIN
from nostrllm.wire.announcement import ModelOffer, Pay, Price
from nostrllm.wire.message import MSAT_MAX as AMOUNT_MAX

MINT, OTHER = "https://mint.example", "https://other.example"
OFFER = ModelOffer(id="m", context=10, max_tokens=10, price=Price(input=3, output=5, cached=1))


def test_without_a_word_every_announced_mint_takes_sats_at_the_listed_price() -> None:
    assert coins_taken(None, [MINT]) == {
        (MINT, "sat"): Coin(MINT, "sat", 1_000),
        (MINT, "msat"): Coin(MINT, "msat", 1),
    }
    assert Coin(MINT, "sat", 1_000).offer(OFFER) is OFFER


def test_what_a_list_says_is_taken_and_nothing_else() -> None:
    pays = [
        Pay(mint=f"{MINT}/", unit="sat", percent=110, msat=7),
        Pay(mint=MINT, unit="sat", percent=50),
        Pay(mint=MINT, unit="usd", msat=9_000, at=5),
        Pay(mint=OTHER, unit="usd", msat=9_000, at=5),
        Pay(mint=MINT, unit="eur", msat=9_000, at=5),
        Pay(mint="https://a@b", unit="sat"),
    ]
    assert coins_taken(pays, [MINT]) == {
        (MINT, "sat"): Coin(MINT, "sat", 1_000, 110),
        (MINT, "usd"): Coin(MINT, "usd", 9_000, 100, 5),
    }


def test_a_coin_with_a_rate_that_is_not_there_pays_nothing() -> None:
    for pay in (Pay(mint=MINT, unit="usd", at=5), Pay(mint=MINT, unit="usd", msat=5)):
        assert coins_taken([pay], [MINT]) == {}


@pytest.mark.parametrize("msat", [1, MSAT_MIN - 1, MSAT_MAX + 1, AMOUNT_MAX])
def test_a_rate_that_no_bitcoin_ever_had_pays_nothing(msat: int) -> None:
    assert coins_taken([Pay(mint=MINT, unit="usd", msat=msat, at=5)], [MINT]) == {}


def test_a_price_at_a_percent_that_passes_all_amounts_is_the_largest() -> None:
    dear = OFFER.model_copy(update={"price": Price(input=AMOUNT_MAX, output=AMOUNT_MAX - 1)})
    price = Coin(MINT, "sat", 1_000, 10_000).offer(dear).price
    assert (price.input, price.output) == (AMOUNT_MAX, AMOUNT_MAX)


def test_a_mint_at_its_own_price_scales_every_part() -> None:
    price = Coin(MINT, "sat", 1_000, 150).offer(OFFER).price
    assert price == Price(input=5, output=8, request=0, cached=2, reasoning=None)
