"""`nostrllm providers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, public

if TYPE_CHECKING:
    from nostrllm.client.discover import Listing
    from nostrllm.service.market import Market


@click.command()
@public
def providers(where: Where) -> None:
    """List who sells now."""
    where.look(lambda market: _providers(market, where))


async def _providers(market: Market, where: Where) -> Said:
    from nostrllm.adapters.keys_sdk import to_npub

    found = await market.listings()
    if not where.json:
        rows = [
            (
                one.announcement.profile.name,
                str(len(one.offers)),
                " ".join(one.announcement.mints),
                one.announcement.profile.about,
                to_npub(one.announcement.pubkey),
            )
            for one in found
        ]
        print_table(("provider", "models", "mints", "about", "key"), rows)
    return {"providers": [_json(one, to_npub(one.announcement.pubkey)) for one in found]}


def _json(one: Listing, npub: str) -> dict[str, Any]:
    announcement = one.announcement
    return {
        "name": announcement.profile.name,
        "about": announcement.profile.about,
        "pubkey": announcement.pubkey,
        "npub": npub,
        "address": announcement.address,
        "mints": list(announcement.mints),
        "relays": list(announcement.relays),
        "expiration": announcement.expiration,
        "terms": announcement.profile.terms.model_dump(),
        "models": [offer.model.id for offer in one.offers],
    }
