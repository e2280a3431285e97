"""What a model costs, as an operator says it: in msat or in dollars, times what the market bears.

Every price is rounded up to whole msat, once: what costs anything is never free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from statistics import median_low
from typing import Final, Literal

from nostrllm.core.listings import Listing
from nostrllm.core.rates import CENTS, Rate
from nostrllm.wire.announcement import Price
from nostrllm.wire.message import MSAT_MAX

#: A usual answer, by which prices are compared: millions of tokens in and out, and requests.
USUAL: Final = (500, 250, 1_000_000)


@dataclass(frozen=True, slots=True)
class Sum:
    """What is asked, or what work costs, per million tokens and per request; in `unit`."""

    unit: Literal["msat", "usd"]
    input: Decimal
    output: Decimal
    request: Decimal = Decimal(0)
    cached: Decimal | None = None
    reasoning: Decimal | None = None

    @staticmethod
    def of(price: Price) -> Sum:
        """A price in msat."""
        return Sum(
            "msat",
            Decimal(price.input),
            Decimal(price.output),
            Decimal(price.request),
            None if price.cached is None else Decimal(price.cached),
            None if price.reasoning is None else Decimal(price.reasoning),
        )

    def price(self, cent: Rate | None, multiplier: float = 1.0) -> Price | None:
        """In msat, `cent` being what a cent is worth; None where that is needed and not known."""
        if self.unit == "msat":
            factor = Fraction(str(multiplier))  # what it reads as: 0.525, not the binary above it
        elif cent is None:
            return None
        else:
            factor = Fraction(str(multiplier)) * CENTS * cent.msat

        def part(amount: Decimal) -> int:
            return min(math.ceil(Fraction(amount) * factor), MSAT_MAX)

        return Price(
            input=part(self.input),
            output=part(self.output),
            request=part(self.request),
            cached=None if self.cached is None else part(self.cached),
            reasoning=None if self.reasoning is None else part(self.reasoning),
        )


def cost_share(cost: Price, price: Price) -> float:
    """Cost as part of the price, of that sort of token for which it is most; 0 for free models."""
    pairs = (
        (cost.input, price.input),
        (cost.output, price.output),
        (cost.request, price.request),
    )
    return max((part / whole for part, whole in pairs if whole), default=0.0)


def usual_cost(price: Price) -> int:
    """What usual answers cost, to compare prices by."""
    prompt, completion, requests = USUAL
    return prompt * price.input + completion * price.output + requests * price.request


def rival_share(listings: Iterable[Listing], own: dict[str, Price], me: str) -> float | None:
    """What others ask for the models of `own` (id → list price), as a multiple of it.

    Of each provider but `me` (public key) the cheapest; of those the lower median, so that one who
    announces what he never sells moves it little. None where nobody else sells them.
    """
    found: list[float] = []
    for listing in listings:
        if listing.announcement.closing or listing.announcement.pubkey == me:
            continue
        shares = [
            usual_cost(offer.model.price) / usual_cost(own[offer.model.id])
            for offer in listing.offers
            if offer.model.id in own and usual_cost(own[offer.model.id])
        ]
        found += [min(share for share in shares if share)] if any(shares) else []
    return median_low(found) if found else None
