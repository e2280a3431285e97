"""`nostrllm follow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.terminal import print_json
from nostrllm.cli.where import Where, placed

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


async def _follow(client: Client, where: Where, provider: str | None, remove: bool) -> None:
    from nostrllm.client.follow import follow as put
    from nostrllm.client.follow import followed, unfollow
    from nostrllm.service.client import npub

    square, identity = client.world.square, client.world.identity
    if provider is None:
        keys = await followed(square, identity.pubkey)
    else:
        change = unfollow if remove else put
        keys = await change(square, identity, await client.market.pubkey(provider))
    if where.json:
        print_json({"providers": [{"pubkey": key, "npub": npub(key)} for key in keys]})
        return
    for key in keys:
        click.echo(npub(key))
