"""`nostrllm account balance | topup | refund`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.where import Said, Where, placed
from nostrllm.wire.amount import sats

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

    async def work(client: Client) -> Said:
        return _said(where, await client.balance(provider))

    where.run(work)


@account.command()
@click.argument("provider")
@click.argument("amount", type=click.IntRange(1))
@placed
def topup(where: Where, provider: str, amount: int) -> None:
    """Put AMOUNT sat into your account with PROVIDER."""

    async def work(client: Client) -> Said:
        return _said(where, await client.topup(provider, amount))

    where.run(work)


@account.command()
@click.argument("provider")
@placed
def refund(where: Where, provider: str) -> None:
    """Take your balance back into the wallet."""

    async def work(client: Client) -> Said:
        return _said(where, await client.refund(provider))

    where.run(work)


def _said(where: Where, found: Balance) -> Said:
    if not where.json:
        click.echo(sats(found.balance_msat))
        if found.breaches:
            broken = ", ".join(found.breaches)
            click.echo(f"warning: the provider broke the bargain: {broken}", err=True)
    return {
        "provider": found.provider,
        "balance_msat": found.balance_msat,
        "breaches": list(found.breaches),
    }
