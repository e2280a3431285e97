"""`nostrllm wallet fund | balance | send | receive | history | resume`."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import plain, print_json, print_table
from nostrllm.cli.where import Where, placed

if TYPE_CHECKING:
    from nostrllm.service.client import Client

AMOUNT = click.argument("amount", type=click.IntRange(1))
UNIT = click.option("--unit", default="sat", show_default=True, help="sat or msat.")


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


async def _fund(client: Client, where: Where, wanted: tuple[int, str], wait: float) -> None:
    from nostrllm.errors import WorldError

    mint = await client.preferred_mint()
    quote = await client.wallet.fund(mint, *wanted)
    if not where.json:
        click.echo(f"pay this invoice, {wanted[0]} {wanted[1]} to {mint}:", err=True)
        click.echo(quote.request)
    outcome = await client.wallet.claim_quote(quote.quote, wait_s=wait)
    paid = outcome.state == "DONE"
    if where.json and (paid or outcome.state == "PREPARED"):
        said = {"mint": mint, "unit": wanted[1], "amount": wanted[0], "paid": paid}
        print_json({**said, "invoice": quote.request, "quote": quote.quote})
        return
    if not paid:
        raise WorldError(
            "the invoice is not paid yet; `nostrllm wallet resume` takes the coins once it is",
            code=outcome.code or "payment-pending",
        )
    click.echo(f"received {outcome.net} {outcome.unit}", err=True)


@wallet.command()
@placed
def balance(where: Where) -> None:
    """What can be spent, per mint."""
    where.run(lambda client: _balance(client, where))


async def _balance(client: Client, where: Where) -> None:
    held = await client.wallet.balance()
    if where.json:
        rows = [
            {"mint": mint, "unit": unit, "amount": amount} for (mint, unit), amount in held.items()
        ]
        print_json({"balances": rows})
        return
    print_table(
        ("amount", "unit", "mint"),
        [(str(amount), unit, mint) for (mint, unit), amount in held.items()],
    )
    if not held:
        click.echo("the wallet is empty: `nostrllm wallet fund 1000`", err=True)


@wallet.command()
@AMOUNT
@UNIT
@placed
def send(where: Where, amount: int, unit: str) -> None:
    """Make a token of AMOUNT; whoever has it has the money."""
    where.run(lambda client: _send(client, where, amount, unit))


async def _send(client: Client, where: Where, amount: int, unit: str) -> None:
    from nostrllm.wire.token import encode_token

    name = f"wallet:{secrets.token_hex(8)}"
    token = await client.wallet.send(name, await client.preferred_mint(), unit, amount)
    text = encode_token(token)
    if where.json:
        said = {"mint": token.mint, "unit": token.unit, "amount": token.amount}
        print_json({**said, "token": text, "id": name})
        return
    click.echo(text)
    click.echo(f"if nobody takes it: nostrllm wallet reclaim {name}", err=True)


@wallet.command()
@click.argument("token", required=False)
@placed
def receive(where: Where, token: str | None) -> None:
    """Take a token in; without TOKEN it is read from standard input."""
    text = (token or sys.stdin.read()).strip()
    where.run(lambda client: _receive(client, where, text))


async def _receive(client: Client, where: Where, text: str) -> None:
    import hashlib

    from nostrllm.errors import RemoteError
    from nostrllm.wire.token import parse_token

    token = parse_token(text)
    name = f"receive:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    if any(row["id"] == name and row["state"] == "DONE" for row in await client.wallet.history()):
        raise RemoteError("this token was received before", code="payment-token-spent")
    _tell(where, await client.wallet.receive(name, token))


@wallet.command()
@click.argument("name")
@placed
def reclaim(where: Where, name: str) -> None:
    """Take back a token that `send` made and nobody took."""
    where.run(lambda client: _reclaim(client, where, name))


async def _reclaim(client: Client, where: Where, name: str) -> None:
    _tell(where, await client.wallet.reclaim(name))


def _tell(where: Where, outcome: Any) -> None:
    """What a token brought. Raises WorldError when it is not ours, or not yet."""
    from nostrllm.errors import WorldError

    if outcome.state != "DONE":
        pending = outcome.state == "PREPARED"
        what = "the mint has not said yet; try again" if pending else "the mint refused it"
        raise WorldError(what, code=outcome.code or "payment-pending")
    if where.json:
        said = {"mint": outcome.mint, "unit": outcome.unit, "amount": outcome.net}
        print_json({**said, "fee": outcome.fee})
        return
    click.echo(f"received {outcome.net} {outcome.unit} (mint's fee {outcome.fee})")


@wallet.command()
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@placed
def history(where: Where, limit: int) -> None:
    """What the wallet did, newest first."""
    where.run(lambda client: _history(client, where, limit))


async def _history(client: Client, where: Where, limit: int) -> None:
    rows = (await client.wallet.history())[:limit]
    if where.json:
        print_json({"operations": [dict(row) for row in rows]})
        return
    print_table(
        ("time", "what", "amount", "fee", "state", "mint"),
        [
            (
                datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
                row["kind"],
                f"{row['amount']} {row['unit']}",
                str(row["fee"]),
                str(row["state"]).lower(),
                row["mint"],
            )
            for row in rows
        ],
    )


@wallet.command()
@placed
def resume(where: Where) -> None:
    """Finish what is open: late answers, unpaid quotes, coins that nobody took."""
    where.run(lambda client: _resume(client, where))


async def _resume(client: Client, where: Where) -> None:
    from nostrllm.cli.ask import answer_json, ending

    late = await client.resume()
    if where.json:
        print_json({"late": [answer_json(outcome) for outcome in late]})
        return
    for outcome in late:
        click.echo(f"late answer to order {outcome.order_id}:", err=True)
        click.echo(plain(outcome.text))
        for line in ending(outcome):
            click.echo(line, err=True)
