"""`nostrllm price MODEL`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.models import offer_json
from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, public
from nostrllm.wire.amount import per_1000, sats

if TYPE_CHECKING:
    from nostrllm.client.discover import Offer
    from nostrllm.service.market import Market


@click.command()
@click.argument("model")
@public
def price(where: Where, model: str) -> None:
    """What MODEL costs now, at each provider, cheapest first."""
    where.look(lambda market: _price(market, where, model))


async def _price(market: Market, where: Where, model: str) -> Said:
    from nostrllm.errors import LocalError

    offers = [
        offer for one in await market.listings() for offer in one.offers if offer.model.id == model
    ]
    if not offers:
        raise LocalError("nobody offers that model now", code="model-unknown")
    offers.sort(key=lambda offer: (offer.model.price.output, offer.name))
    if not where.json:
        heads = ("provider", "1k tokens in", "1k cached", "1k out", "1k reasoning", "per request")
        print_table(heads, [_row(offer) for offer in offers])
    return {"model": model, "offers": [offer_json(offer) for offer in offers]}


def _row(offer: Offer) -> tuple[str, ...]:
    price = offer.model.price
    cached = price.input if price.cached is None else price.cached
    reasoning = price.output if price.reasoning is None else price.reasoning
    per_million = (price.input, cached, price.output, reasoning)
    return (offer.name, *map(per_1000, per_million), sats(price.request))
