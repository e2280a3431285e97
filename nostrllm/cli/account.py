"""`nostrllm account`: balance, top-up and refund, and who else may spend from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from nostrllm.cli.payees import address_or_invoice
from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, placed
from nostrllm.wire.amount import sats

if TYPE_CHECKING:
    from nostrllm.client.account import Filling, Payout
    from nostrllm.client.exchange import Balance
    from nostrllm.service.client import Client
    from nostrllm.wire.order import AllowanceState

PERIODS: Final = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}


@click.group()
def account() -> None:
    """Your account with a provider: small change, and what you put there."""


@account.command()
@click.argument("provider")
@placed
def balance(where: Where, provider: str) -> None:
    """What PROVIDER owes you, as he signs it; and invoices of his that you have not paid."""

    async def work(client: Client) -> Said:
        found = await client.accounts.balance(provider)
        unpaid = [one for one in await client.accounts.fillings() if one.provider == found.provider]
        said = _said(where, found)
        if not where.json:
            for one in unpaid:
                click.echo(f"unpaid, {sats(one.amount_msat)}: {one.invoice}", err=True)
        return {**said, "unpaid": [filling_json(one) for one in unpaid]}

    where.run(work)


@account.command()
@click.argument("provider")
@placed
def key(where: Where, provider: str) -> None:
    """Your key with PROVIDER, which he alone sees: it is what others `allow`, and pay from."""

    async def work(client: Client) -> Said:
        from nostrllm.adapters.keys_sdk import to_npub

        found = await client.accounts.key(provider)
        if not where.json:
            click.echo(to_npub(found))
        return {"pubkey": found, "npub": to_npub(found)}

    where.run(work)


@account.command()
@click.argument("provider")
@click.argument("amount", type=click.IntRange(1))
@click.option("--lightning", is_flag=True, help="By an invoice of the provider's, not by ecash.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    metavar="S",
    help="For the payment of the invoice.",
)
@placed
def topup(where: Where, provider: str, amount: int, lightning: bool, wait: float) -> None:
    """Put AMOUNT sat into your account with PROVIDER.

    A program calls it with --lightning --json --wait 0, pays the invoice, and calls `wallet
    resume`.
    """
    if lightning:
        where.run(lambda client: _fill(client, where, (provider, amount), wait))
        return

    async def work(client: Client) -> Said:
        return _said(where, await client.accounts.topup(provider, amount))

    where.run(work)


async def _fill(client: Client, where: Where, wanted: tuple[str, int], wait: float) -> Said:
    from nostrllm.errors import WorldError

    shown: list[Filling] = []

    def show(filling: Filling) -> None:
        shown.append(filling)
        if not where.json:
            said = f"pay this invoice; {sats(filling.amount_msat)} are added, and nothing comes off"
            click.echo(f"{said}:", err=True)
            click.echo(filling.invoice)

    found = await client.accounts.fill(*wanted, show, wait)
    if found is None and not where.json:
        raise WorldError(
            "the invoice is not paid yet; `nostrllm wallet resume` sees to it once it is",
            code="payment-pending",
        )
    [filling] = shown
    paid = {"paid": found is not None, **filling_json(filling)}
    return {**paid, **(_said(where, found) if found is not None else {})}


def filling_json(filling: Filling) -> dict[str, Any]:
    """An invoice that fills an account, for a program."""
    return {
        "provider": filling.provider,
        "amount_msat": filling.amount_msat,
        "invoice": filling.invoice,
        "until": filling.until,
    }


@account.command()
@click.argument("provider")
@click.option("--ecash", is_flag=True, help="Into the wallet, which is the default.")
@click.option(
    "--lightning",
    metavar="INVOICE|ADDRESS",
    help="Have an invoice paid from the balance, or AMOUNT to a Lightning address.",
)
@click.option("--amount", type=click.IntRange(1), metavar="SAT", help="For an address.")
@placed
def refund(
    where: Where, provider: str, ecash: bool, lightning: str | None, amount: int | None
) -> None:
    """Take your balance back: into the wallet, or out by Lightning."""
    if ecash and lightning:
        raise click.UsageError("either --ecash or --lightning")
    if lightning:
        where.run(lambda client: _pay_out(client, where, provider, (lightning, amount)))
        return

    async def work(client: Client) -> Said:
        return _said(where, await client.accounts.refund(provider))

    where.run(work)


async def _pay_out(
    client: Client, where: Where, provider: str, wanted: tuple[str, int | None]
) -> Said:
    def agree(payout: Payout) -> None:
        if not where.json:
            click.echo(
                f"pays {sats(payout.amount_msat)} from your balance; what his mint takes for that "
                f"comes on top, {sats(payout.fee_max_msat)} at most",
                err=True,
            )

    invoice = await address_or_invoice(client, where, *wanted)
    paid = await client.accounts.pay_out(provider, invoice, agree)
    if not where.json:
        click.echo(f"paid {sats(paid.paid_msat - paid.fee_msat)}, {sats(paid.fee_msat)} on top")
    said = _said(where, paid.balance)
    return {**said, "paid_msat": paid.paid_msat, "fee_msat": paid.fee_msat, "invoice": invoice}


@account.command()
@click.argument("provider")
@click.argument("key")
@click.option("--limit", type=click.IntRange(1), required=True, metavar="SAT", help="No more.")
@click.option("--per", type=click.Choice(tuple(PERIODS)), help="The limit is for each of these.")
@placed
def allow(where: Where, provider: str, key: str, limit: int, per: str | None) -> None:
    """Let KEY spend from your account with PROVIDER, in place of what it was allowed before.

    KEY is what `nostrllm account key PROVIDER` prints at the other one.
    """

    async def work(client: Client) -> Said:
        period_s = None if per is None else PERIODS[per]
        found = await client.accounts.allow(provider, key, limit * 1_000, period_s=period_s)
        return _allowed(where, found)

    where.run(work)


@account.command()
@click.argument("provider")
@placed
def allowances(where: Where, provider: str) -> None:
    """Who may spend from your account with PROVIDER, and from whose you may."""

    async def work(client: Client) -> Said:
        return _allowed(where, await client.accounts.allowances(provider))

    where.run(work)


@account.command()
@click.argument("provider")
@click.argument("key")
@placed
def disallow(where: Where, provider: str, key: str) -> None:
    """Let KEY spend no more from your account; orders that run go on."""

    async def work(client: Client) -> Said:
        return _allowed(where, await client.accounts.disallow(provider, key))

    where.run(work)


def _allowed(where: Where, found: list[AllowanceState]) -> Said:
    from nostrllm.adapters.keys_sdk import to_npub

    spans = {seconds: name for name, seconds in PERIODS.items()}
    if not where.json:
        print_table(
            ("key", "of", "limit", "used", "per"),
            [
                (
                    to_npub(one.key),
                    to_npub(one.owner),
                    sats(one.limit_msat),
                    sats(one.used_msat),
                    spans.get(one.period_s, f"{one.period_s} s") if one.period_s else "-",
                )
                for one in found
            ],
        )
        if not found:
            click.echo("nobody", err=True)
    return {"allowances": [one.model_dump() for one in found]}


def _said(where: Where, found: Balance) -> dict[str, Any]:
    if not where.json:
        click.echo(sats(found.balance_msat))
        warn(found)
    return {
        "provider": found.provider,
        "balance_msat": found.balance_msat,
        "breaches": list(found.breaches),
    }


def warn(found: Balance) -> None:
    """Say what of it is not as agreed."""
    if found.breaches:
        broken = ", ".join(found.breaches)
        click.echo(f"warning: the provider broke the bargain: {broken}", err=True)
