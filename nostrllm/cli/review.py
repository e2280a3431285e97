"""`nostrllm review PROVIDER STARS TEXT`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from nostrllm.cli.where import Said, Where, placed

if TYPE_CHECKING:
    from nostrllm.service.client import Client

HOUR_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is to be said, of whom, and how."""

    provider: str
    stars: int
    text: str
    with_receipt: bool
    delay: bool


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
    opinion = Opinion(provider, stars, " ".join(text), not no_receipt, delay)
    where.run(lambda client: _review(client, where, opinion))


async def _review(client: Client, where: Where, said: Opinion) -> Said:
    import asyncio

    provider = await client.market.pubkey(said.provider)
    if said.delay:
        wait_s = random.uniform(HOUR_S, 48 * HOUR_S)
        click.echo(f"waiting {wait_s / HOUR_S:.1f} hours; Ctrl-C ends it unpublished", err=True)
        await asyncio.sleep(wait_s)
    done = await client.review(provider, said.stars, said.text, with_receipt=said.with_receipt)
    receipt = done.review.receipt
    if not where.json:
        click.echo(f"published {done.id}")
        if receipt is None:
            click.echo("without a receipt: readers see that you prove no purchase", err=True)
        elif not said.delay:
            click.echo("published at once: the provider can tell which order was yours", err=True)
    return {
        "id": done.id,
        "provider": provider,
        "rating": said.stars,
        "receipt": None if receipt is None else receipt.id,
    }
