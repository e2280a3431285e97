"""`nostrllm wallet`: fund, balance, send, pay, receive, reclaim, history, scan, resume, recover."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.account import filling_json
from nostrllm.cli.answers import tell_late
from nostrllm.cli.payees import address_or_invoice
from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, placed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nostrllm.client.keepsakes import Bought
    from nostrllm.client.wallet import Coins, LockedCoins, Price
    from nostrllm.service.client import Client

AMOUNT = click.argument("amount", type=click.IntRange(1))
UNIT = click.option("--unit", default="sat", show_default=True, help="sat, msat or usd (cents).")


@click.group()
def wallet() -> None:
    """Your ecash: it lives in the state folder, and the seed there is all it hangs on."""


@wallet.command()
@AMOUNT
@UNIT
@click.option("--wait", type=click.FloatRange(0), default=600.0, show_default=True, metavar="S")
@placed
def fund(where: Where, amount: int, unit: str, wait: float) -> None:
    """Buy AMOUNT from a mint by Lightning: shows the invoice, waits for its payment.

    A program calls it with --json --wait 0, pays the invoice, and calls `wallet resume`.
    """
    where.run(lambda client: _fund(client, where, (amount, unit), wait))


async def _fund(client: Client, where: Where, wanted: tuple[int, str], wait: float) -> Said:
    from nostrllm.errors import WorldError

    mint = await client.wallet.preferred_mint()
    quote = await client.wallet.fund(*wanted, mint=mint)
    if not where.json:
        click.echo(f"pay this invoice, {wanted[0]} {wanted[1]} to {mint}:", err=True)
        click.echo(quote.request)
    coins = await client.wallet.claim(quote.quote, wait_s=wait)
    if not where.json:
        if coins is None:
            raise WorldError(
                "the invoice is not paid yet; `nostrllm wallet resume` takes the coins once it is",
                code="payment-pending",
            )
        click.echo(f"received {coins.amount} {coins.unit}", err=True)
    said = {"mint": mint, "unit": wanted[1], "amount": wanted[0], "paid": coins is not None}
    return {**said, "invoice": quote.request, "quote": quote.quote}


@wallet.command()
@placed
def balance(where: Where) -> None:
    """What can be spent, per mint."""
    where.run(lambda client: _balance(client, where))


async def _balance(client: Client, where: Where) -> Said:
    held = await client.wallet.balance()
    locked = await client.wallet.locked()
    if not where.json:
        rows = [(str(amount), unit, mint) for (mint, unit), amount in held.items()]
        print_table(("amount", "unit", "mint"), rows)
        _tell_locked(locked)
        if not held and not locked:
            click.echo("the wallet is empty: `nostrllm wallet fund 1000`", err=True)
    return {
        "balances": [
            {"mint": mint, "unit": unit, "amount": amount} for (mint, unit), amount in held.items()
        ],
        "locked": _locked_json(locked),
    }


def _tell_locked(locked: Sequence[LockedCoins]) -> None:
    """What only a provider can take now, and when it comes back if he does not."""
    for coins in locked:
        click.echo(
            f"locked: {coins.amount} {coins.unit} at {coins.mint} until {_at(coins.until)} UTC "
            f"({coins.name})",
            err=True,
        )


def _locked_json(locked: Sequence[LockedCoins]) -> list[dict[str, Any]]:
    names = ("name", "mint", "unit", "amount", "until")
    return [{name: getattr(coins, name) for name in names} for coins in locked]


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


@wallet.command()
@AMOUNT
@UNIT
@placed
def send(where: Where, amount: int, unit: str) -> None:
    """Make a token of AMOUNT; whoever has it has the money."""
    where.run(lambda client: _send(client, where, amount, unit))


async def _send(client: Client, where: Where, amount: int, unit: str) -> Said:
    name = client.wallet.new_name()
    if not where.json:  # before the mint is asked: it may take the coins and never answer
        click.echo(f"if nobody takes it: nostrllm wallet reclaim {name}", err=True)
    sent = await client.wallet.send(amount, unit, name=name)
    if not where.json:
        click.echo(sent.token)
    said = {"mint": sent.mint, "unit": sent.unit, "amount": sent.amount}
    return {**said, "token": sent.token, "id": sent.name}


@wallet.command()
@click.argument("payee", metavar="INVOICE|ADDRESS|REQUEST")
@click.argument("amount", type=click.IntRange(1), required=False)
@click.option("--max-fee", type=click.IntRange(0), metavar="SAT", help="Pay no more on top.")
@placed
def pay(where: Where, payee: str, amount: int | None, max_fee: int | None) -> None:
    """Pay a Lightning INVOICE, AMOUNT sat to a Lightning ADDRESS, or a payment REQUEST (creqA…).

    A mint pays what goes by Lightning; a request is paid in ecash, and AMOUNT is for one that names
    none. What it costs is told before.
    """
    from nostrllm.cli.payees import is_request, pay_request

    if is_request(payee):
        where.run(lambda client: pay_request(client, where, (payee, amount), max_fee))
        return
    where.run(lambda client: _pay(client, where, (payee, amount), max_fee))


async def _pay(
    client: Client, where: Where, wanted: tuple[str, int | None], max_fee: int | None
) -> Said:
    from nostrllm.errors import LocalError

    invoice = await address_or_invoice(client, where, *wanted)

    def agree(price: Price) -> None:
        if not where.json:
            said = f"pays {price.amount} {price.unit} at {price.mint}"
            click.echo(f"{said}, and at most {price.fee_max} on top", err=True)
        if max_fee is not None and price.fee_max > max_fee:
            raise LocalError(
                f"paying it may cost {price.fee_max} {price.unit} on top",
                code="payment-amount-high",
            )

    paid = await client.wallet.pay(invoice, agree=agree)
    if not where.json:
        click.echo(f"paid {paid.amount} {paid.unit}, {paid.fee} on top")
        click.echo(f"proof {paid.preimage or 'none'}", err=True)
    said = {"mint": paid.mint, "unit": paid.unit, "amount": paid.amount, "fee": paid.fee}
    return {**said, "preimage": paid.preimage, "id": paid.name}


@wallet.command()
@click.argument("token", required=False)
@placed
def receive(where: Where, token: str | None) -> None:
    """Take a token in; without TOKEN it is read from standard input."""
    text = (token or sys.stdin.read()).strip()

    async def work(client: Client) -> Said:
        return _said(where, await client.wallet.receive(text))

    where.run(work)


@wallet.command()
@click.argument("name")
@placed
def reclaim(where: Where, name: str) -> None:
    """Take back a token that `send` made and nobody took."""

    async def work(client: Client) -> Said:
        return _said(where, await client.wallet.reclaim(name))

    where.run(work)


def _said(where: Where, coins: Coins) -> Said:
    if not where.json:
        click.echo(f"received {coins.amount} {coins.unit} (mint's fee {coins.fee})")
    return {"mint": coins.mint, "unit": coins.unit, "amount": coins.amount, "fee": coins.fee}


@wallet.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@placed
def history(where: Where, limit: int) -> None:
    """What the wallet did, newest first."""
    where.run(lambda client: _history(client, where, limit))


async def _history(client: Client, where: Where, limit: int) -> Said:
    rows = await client.wallet.history(limit)
    held = {coins.name: coins.until for coins in await client.wallet.locked()}
    if not where.json:
        locked = {name: f"locked until {_at(until)}" for name, until in held.items()}
        print_table(
            ("time", "what", "amount", "fee", "state", "mint", "name"),
            [
                (
                    _at(row["created_at"]),
                    row["kind"],
                    f"{row['amount']} {row['unit']}",
                    str(row["fee"]),
                    locked.get(row["id"]) or str(row["state"]).lower(),
                    row["mint"],
                    row["id"],
                )
                for row in rows
            ],
        )
    return {"operations": [{**row, "locked_until": held.get(row["id"])} for row in rows]}


@wallet.command()
@placed
def scan(where: Where) -> None:
    """Find coins that the seed made at a mint, after a loss of the database."""
    where.run(lambda client: _scan(client, where))


async def _scan(client: Client, where: Where) -> Said:
    mint = await client.wallet.preferred_mint()
    found = await client.wallet.scan(mint=mint)
    if not where.json:
        click.echo(f"found {found} sat at {mint}")
    return {"mint": mint, "unit": "sat", "amount": found}


@wallet.command()
@placed
def resume(where: Where) -> None:
    """Finish what is open: late answers, unpaid quotes, coins that nobody took."""
    where.run(lambda client: _resume(client, where))


async def _resume(client: Client, where: Where) -> Said:
    late = await client.resume()
    if not where.json:
        for outcome in late:
            tell_late(outcome, asked_for=True)
        await client.seen(late)
    unpaid = await client.accounts.fillings()
    if not where.json:
        for one in unpaid:
            said = f"unpaid, {one.amount_msat // 1_000} sat into an account: {one.invoice}"
            click.echo(said, err=True)
    return {"unpaid": [filling_json(one) for one in unpaid]}


@wallet.command()
@placed
def recover(where: Where) -> None:
    """Take back whatever can be taken back now, and say what is locked until when.

    Change that a provider did not hand over is found at the mint; coins locked to one who never
    took them come back once their time is over.
    """
    where.run(lambda client: _recover(client, where))


async def _recover(client: Client, where: Where) -> Said:
    before = await client.wallet.balance()
    late = await client.resume()
    held, locked = await client.wallet.balance(), await client.wallet.locked()
    due = await client.due()
    back = {pot: amount - before.get(pot, 0) for pot, amount in held.items()}
    back = {pot: amount for pot, amount in back.items() if amount > 0}
    if not where.json:
        for outcome in late:
            tell_late(outcome, asked_for=True)
        await client.seen(late)
        for (mint, unit), amount in back.items():
            click.echo(f"came back: {amount} {unit} at {mint}")
        if not back:
            click.echo("nothing came back", err=True)
        _tell_locked(locked)
        _tell_due(due)
    return {
        "back": [{"mint": pot[0], "unit": pot[1], "amount": back[pot]} for pot in back],
        "locked": _locked_json(locked),
        "due": [{"order": one.order_id, "msat": one.cost_msat} for one in due],
    }


def _tell_due(due: Sequence[Bought]) -> None:
    """What we had and did not pay for, because nobody took our coins."""
    from nostrllm.wire.amount import sats

    for one in due:
        click.echo(
            f"due: {sats(one.cost_msat)} for order {one.order_id}, whose coins came back; they go "
            "into your account with the provider when he is found",
            err=True,
        )
