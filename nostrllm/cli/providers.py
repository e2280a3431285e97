"""`nostrllm providers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import print_json, print_table
from nostrllm.cli.where import Where, placed

if TYPE_CHECKING:
    from nostrllm.client.discover import Listing
    from nostrllm.service.client import Market


@click.command()
@placed
def providers(where: Where) -> None:
    """List who sells now."""
    where.look(lambda market: _providers(market, where))


async def _providers(market: Market, where: Where) -> None:
    found = await market.listings()
    if where.json:
        print_json({"providers": [_json(one) for one in found]})
        return
    rows = [
        (
            one.announcement.profile.name,
            str(len(one.offers)),
            " ".join(one.announcement.mints),
            one.announcement.profile.about,
            _npub(one.announcement.pubkey),
        )
        for one in found
    ]
    print_table(("provider", "models", "mints", "about", "key"), rows)


def _json(one: Listing) -> dict[str, Any]:
    announcement = one.announcement
    return {
        "name": announcement.profile.name,
        "about": announcement.profile.about,
        "pubkey": announcement.pubkey,
        "npub": _npub(announcement.pubkey),
        "address": announcement.address,
        "mints": list(announcement.mints),
        "relays": list(announcement.relays),
        "expiration": announcement.expiration,
        "terms": announcement.profile.terms.model_dump(),
        "models": [offer.model.id for offer in one.offers],
    }


def _npub(pubkey: str) -> str:
    from nostrllm.service.client import npub

    return npub(pubkey)
