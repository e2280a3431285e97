"""`nostrllm account balance | topup | refund`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.terminal import print_json, sats
from nostrllm.cli.where import Where, placed

if TYPE_CHECKING:
    from nostrllm.client.account import Balance
    from nostrllm.service.client import Client


@click.group()
def account() -> None:
    """Your account with a provider: small change, and what you put there."""


@account.command()
@click.argument("provider")
@placed
def balance(where: Where, provider: str) -> None:
    """What PROVIDER owes you, as he signs it."""
    where.run(lambda client: _balance(client, where, provider))


async def _balance(client: Client, where: Where, provider: str) -> None:
    _tell(where, await client.balance(provider))


@account.command()
@click.argument("provider")
@click.argument("amount", type=click.IntRange(1))
@placed
def topup(where: Where, provider: str, amount: int) -> None:
    """Put AMOUNT sat into your account with PROVIDER."""
    where.run(lambda client: _topup(client, where, provider, amount))


async def _topup(client: Client, where: Where, provider: str, amount: int) -> None:
    _tell(where, await client.topup(provider, amount))


@account.command()
@click.argument("provider")
@placed
def refund(where: Where, provider: str) -> None:
    """Take your balance back into the wallet."""
    where.run(lambda client: _refund(client, where, provider))


async def _refund(client: Client, where: Where, provider: str) -> None:
    _tell(where, await client.refund(provider))


def _tell(where: Where, found: Balance) -> None:
    if where.json:
        print_json({"provider": found.provider, "balance_msat": found.balance_msat})
        return
    click.echo(sats(found.balance_msat))
