"""`nostrllm price MODEL`, and how it changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from nostrllm.cli.models import offer_json
from nostrllm.cli.terminal import plain_line, print_json, print_table
from nostrllm.cli.where import Said, Where, public
from nostrllm.wire.amount import per_1000, sats

if TYPE_CHECKING:
    from nostrllm.client.discover import Offer
    from nostrllm.client.watch import Seen
    from nostrllm.service.market import Market


@click.command()
@click.argument("model")
@click.option("--follow", is_flag=True, help="Go on: a line for each price that is new.")
@click.option("--provider", metavar="NPUB|NAME", help="With --follow: this one's alone.")
@click.option("--lines", type=click.IntRange(1), help="With --follow: end after so many.")
@public
def price(where: Where, model: str, follow: bool, provider: str | None, lines: int | None) -> None:
    """What MODEL costs now, at each provider, cheapest first.

    With --follow the list of each provider, and what he says in between of his price and of how
    long one waits; an order pays what the list says. With --json a line is an object.
    """
    if follow:
        where.look(lambda market: _follow(market, where, model, provider, lines))
        return
    if provider is not None or lines is not None:
        raise click.UsageError("--provider and --lines go with --follow")
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


async def _follow(
    market: Market, where: Where, model: str, provider: str | None, lines: int | None
) -> None:
    from dataclasses import asdict

    key = None if provider is None else await market.pubkey(provider)
    told = 0
    async for seen in market.prices(model, key):
        if where.json:
            price = seen.price.model_dump(exclude_none=True)
            print_json({**asdict(seen), "price": price, "model": model})
        else:
            click.echo("\t".join(map(plain_line, _line(seen))))
        told += 1
        if told == lines:
            return


def _line(seen: Seen) -> tuple[str, ...]:
    return (
        f"{datetime.fromtimestamp(seen.at, UTC):%H:%M:%S}",
        seen.name,
        "list" if seen.price_event else "now",
        per_1000(seen.price.input),
        per_1000(seen.price.output),
        sats(seen.price.request),
        "" if seen.wait_s is None else f"wait {seen.wait_s} s",
        ", ".join(seen.reasons),
    )
