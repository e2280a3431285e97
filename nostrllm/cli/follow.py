"""`nostrllm follow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.where import Said, Where, placed

if TYPE_CHECKING:
    from nostrllm.service.client import Client


@click.command()
@click.argument("provider", required=False)
@click.option("--remove", is_flag=True, help="Take the provider off the list.")
@click.option("--list", "show", is_flag=True, help="Show the list; the default without PROVIDER.")
@placed
def follow(where: Where, provider: str | None, remove: bool, show: bool) -> None:
    """Keep your own list of providers, public under your identity."""
    if provider is None and remove:
        raise click.UsageError("--remove needs a provider")
    where.run(lambda client: _follow(client, where, None if show else provider, remove))


async def _follow(client: Client, where: Where, provider: str | None, remove: bool) -> Said:
    from nostrllm.adapters.keys_sdk import to_npub

    if provider is None:
        keys = await client.followed()
    elif remove:
        keys = await client.unfollow(provider)
    else:
        keys = await client.follow(provider)
    if not where.json:
        for key in keys:
            click.echo(to_npub(key))
    return {"providers": [{"pubkey": key, "npub": to_npub(key)} for key in keys]}
