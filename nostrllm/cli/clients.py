"""`nostrllm provider clients | block | unblock`: who buys, what they did, and who may not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nostrllm.cli.configured import CONFIG
from nostrllm.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from nostrllm.provider.clients import Client


@click.command()
@CONFIG
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clients(config_path: Path, limit: int, as_json: bool) -> None:
    """Every client's key: orders, what it paid, what it did wrong, its balance and its standing.

    Works beside a running provider. Those with most attacks come first.
    """
    import asyncio

    from nostrllm.adapters.keys_sdk import to_npub
    from nostrllm.cli.report import failing
    from nostrllm.service.clients import clients as read
    from nostrllm.service.config import read_provider_config

    with failing(as_json):
        found = asyncio.run(read(read_provider_config(config_path)))[:limit]
    if as_json:
        rows = [{"npub": to_npub(one.pubkey), **asdict(one)} for one in found]
        print_json({"clients": rows})
        return
    heads = ("key", "orders", "paid", "msat", "free", "attacks", "balance", "state")
    print_table(heads, [_cells(one, to_npub(one.pubkey)) for one in found])


def _cells(one: Client, npub: str) -> tuple[str, ...]:
    attacks = ", ".join(f"{kind} {count}" for kind, count in sorted(one.attacks.items()))
    numbers = (one.orders, one.paid, one.paid_msat, one.free_failures)
    return (npub, *map(str, numbers), attacks or "-", str(one.balance_msat), one.standing)


@click.command()
@CONFIG
@click.argument("key")
def block(config_path: Path, key: str) -> None:
    """Serve KEY (npub or hex) no more; a running provider heeds it within seconds.

    Its balance stays its own: it may still ask for it and take it back.
    """
    _change(config_path, key, blocked=True)


@click.command()
@CONFIG
@click.argument("key")
def unblock(config_path: Path, key: str) -> None:
    """Serve KEY again, unless the configuration names it."""
    _change(config_path, key, blocked=False)


def _change(config_path: Path, key: str, *, blocked: bool) -> None:
    from nostrllm.adapters.keys_sdk import parse_pubkey, to_npub
    from nostrllm.cli.report import failing
    from nostrllm.errors import ConfigError
    from nostrllm.service.blocks import change_blocks
    from nostrllm.service.config import read_provider_config

    with failing():
        config = read_provider_config(config_path)
        pubkey = parse_pubkey(key)
        if not blocked and pubkey in config.block.pubkeys():
            raise ConfigError(f"{config_path} names this key in [block]: take it out there")
        changed = change_blocks(config.provider.state, pubkey, blocked=blocked)
    said = "blocked" if blocked else "not blocked"
    click.echo(f"{to_npub(pubkey)} is {said}" + ("" if changed else ", as before"))
