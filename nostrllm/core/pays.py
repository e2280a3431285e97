"""What coins are worth to a provider: by mint and unit, as his price list promises it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nostrllm.core.money import RATED, UNIT_MSAT, scaled
from nostrllm.core.rates import MSAT_MAX, MSAT_MIN
from nostrllm.errors import RemoteError
from nostrllm.wire.announcement import ModelOffer, Pay
from nostrllm.wire.token import normal_url


@dataclass(frozen=True, slots=True)
class Coin:
    """One coin of a mint and unit: its worth in msat, and the percent of the prices it pays at.

    `at` is when the rate was looked up that makes its worth, None where the unit says it.
    """

    mint: str
    unit: str
    msat: int
    percent: int = 100
    at: int | None = None

    def offer(self, offer: ModelOffer) -> ModelOffer:
        """The model at the price that is asked of who pays with this."""
        if self.percent == 100:
            return offer
        return offer.model_copy(update={"price": scaled(offer.price, self.percent)})


def coins_taken(pays: Sequence[Pay] | None, mints: Iterable[str]) -> dict[tuple[str, str], Coin]:
    """What pays by a price list, by (mint, unit): of the announced `mints`, the first of its kind.

    An entry that this version cannot make sense of pays nothing: a unit it does not know, one with
    a rate that is not there, or that no bitcoin ever had.
    """
    announced = tuple(mints)
    if pays is None:
        return {
            (mint, unit): Coin(mint, unit, msat)
            for mint in announced
            for unit, msat in UNIT_MSAT.items()
        }
    found: dict[tuple[str, str], Coin] = {}
    for pay in pays:
        coin = _coin(pay)
        if coin is not None and coin.mint in announced:
            found.setdefault((coin.mint, coin.unit), coin)
    return found


def _coin(pay: Pay) -> Coin | None:
    try:
        mint = normal_url(pay.mint)
    except RemoteError:
        return None
    if pay.unit in UNIT_MSAT:
        return Coin(mint, pay.unit, UNIT_MSAT[pay.unit], pay.percent)
    if pay.unit not in RATED or pay.msat is None or pay.at is None:
        return None
    if not MSAT_MIN <= pay.msat <= MSAT_MAX:
        return None
    return Coin(mint, pay.unit, pay.msat, pay.percent, pay.at)
