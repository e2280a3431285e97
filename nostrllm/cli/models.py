"""`nostrllm models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, public
from nostrllm.wire.amount import per_1000, sats

if TYPE_CHECKING:
    from nostrllm.client.discover import Offer
    from nostrllm.service.market import Market


@click.command()
@click.option("--provider", metavar="NPUB|NAME", help="Only this one's.")
@public
def models(where: Where, provider: str | None) -> None:
    """List what is for sale now, cheapest first."""
    where.look(lambda market: _models(market, where, provider))


async def _models(market: Market, where: Where, provider: str | None) -> Said:
    if provider is None:
        offers = [offer for one in await market.listings() for offer in one.offers]
    else:
        offers = list((await market.listing(provider)).offers)
    offers.sort(key=lambda offer: (offer.model.price.output, offer.model.id, offer.name))
    if not where.json:
        heads = ("model", "provider", "context", "1k tokens in", "1k out", "per request")
        print_table(heads, [_row(offer) for offer in offers])
    return {"models": [offer_json(offer) for offer in offers]}


def _row(offer: Offer) -> tuple[str, ...]:
    price = offer.model.price
    return (
        offer.model.id,
        offer.name,
        str(offer.model.context),
        per_1000(price.input),
        per_1000(price.output),
        sats(price.request),
    )


def offer_json(offer: Offer) -> dict[str, Any]:
    """An offer for a program; prices in msat, per million tokens and per request."""
    return {
        "id": offer.model.id,
        "name": offer.model.name,
        "tier": offer.model.tier,
        "context": offer.model.context,
        "max_tokens": offer.model.max_tokens,
        "parameters": offer.model.parameters,
        "provider": offer.provider,
        "provider_name": offer.name,
        "price": offer.model.price.model_dump(exclude_none=True),
        "price_event": offer.price_event_id,
        "valid_until": offer.valid_until,
    }
