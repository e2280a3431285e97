"""`nostrllm review PROVIDER STARS TEXT`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import click

from nostrllm.cli.terminal import print_json
from nostrllm.cli.where import Where, placed

if TYPE_CHECKING:
    from nostrllm.client.keepsakes import Kept
    from nostrllm.service.client import Client

HOUR_S = 3_600


@click.command()
@click.argument("provider")
@click.argument("stars", type=click.IntRange(1, 5))
@click.argument("text", nargs=-1)
@click.option("--no-receipt", is_flag=True, help="Do not prove that you bought.")
@click.option("--delay", is_flag=True, help="Wait a random 1 to 48 hours first, in this process.")
@placed
def review(
    where: Where,
    provider: str,
    stars: int,
    text: tuple[str, ...],
    no_receipt: bool,
    delay: bool,
) -> None:
    """Rate a provider with 1 to 5 stars, signed by your identity.

    Your latest receipt goes with it and proves that you bought. With it the provider, and nobody
    else, can find out which order was yours; --delay makes the time of the review tell less.
    """
    words = " ".join(text)
    where.run(lambda client: _review(client, where, (provider, stars, words), no_receipt, delay))


async def _review(
    client: Client, where: Where, said: tuple[str, int, str], no_receipt: bool, delay: bool
) -> None:
    import asyncio

    from nostrllm.client.review import publish
    from nostrllm.wire.review import Review

    name, stars, text = said
    provider = await client.market.pubkey(name)
    kept = None if no_receipt else await client.keepsakes.receipt(provider)
    d = kept.d if kept is not None else (await client.market.listing(provider)).announcement.d
    if delay:
        wait_s = random.uniform(HOUR_S, 48 * HOUR_S)
        click.echo(f"waiting {wait_s / HOUR_S:.1f} hours; Ctrl-C ends it unpublished", err=True)
        await asyncio.sleep(wait_s)
    event = await publish(
        client.world.square,
        client.world.identity,
        Review(
            author=client.pubkey,
            provider=provider,
            d=d,
            rating=stars,
            text=text,
            created_at=client.world.square.now_s(),
            model=None if kept is None else kept.model,
            receipt=None if kept is None else kept.event,
            salt=None if kept is None else kept.salt,
        ),
    )
    if kept is not None:
        await client.keepsakes.reviewed(kept.event.id)
    _tell(where, event.id, (provider, stars), kept, delay)


def _tell(
    where: Where, event_id: str, said: tuple[str, int], kept: Kept | None, delay: bool
) -> None:
    """What was published, and what it gives away."""
    provider, stars = said
    if where.json:
        receipt = None if kept is None else kept.event.id
        print_json({"id": event_id, "provider": provider, "rating": stars, "receipt": receipt})
        return
    click.echo(f"published {event_id}")
    if kept is None:
        click.echo("without a receipt: readers see that you prove no purchase", err=True)
    elif not delay:
        click.echo("published at once: the provider can tell which order was yours", err=True)
