"""Whom money goes to: an invoice as it is, one made by a Lightning address, a payment request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.terminal import plain_line
from nostrllm.cli.where import Said, Where

if TYPE_CHECKING:
    from nostrllm.client.requests import RequestPrice
    from nostrllm.service.client import Client


async def address_or_invoice(client: Client, where: Where, payee: str, amount: int | None) -> str:
    """The invoice to pay; an address is asked for one of `amount` sat, and who it is is told.

    Raises ConfigError for an amount that is missing, or one too many.
    """
    from nostrllm.client.lnurl import is_address
    from nostrllm.errors import ConfigError

    if not is_address(payee):
        if amount is not None:
            raise ConfigError("an invoice has its own amount")
        return payee.strip().removeprefix("lightning:")
    if amount is None:
        raise ConfigError("say how much: the address does not")
    found = await client.resolve(payee, amount * 1_000)
    if not where.json:
        click.echo(f"to {plain_line(found.host)}: {plain_line(found.description)}", err=True)
    return found.invoice


def is_request(payee: str) -> bool:
    """Is this a payment request?"""
    return payee.strip().lower().startswith(("creqa", "creqb1"))


async def pay_request(
    client: Client, where: Where, wanted: tuple[str, int | None], max_fee: int | None
) -> Said:
    """Pay a payment request (NUT-18); its price is told before."""
    from nostrllm.adapters.keys_sdk import to_npub
    from nostrllm.errors import LocalError

    def agree(price: RequestPrice) -> None:
        fee = price.fee + price.his_fee
        if not where.json:
            locked = ", locked to him for good" if price.locked else ""
            about = f" ({plain_line(price.description)})" if price.description else ""
            payee = to_npub(price.payee) if len(price.payee) == 64 else plain_line(price.payee)
            said = f"pays {price.amount} {price.unit} at {price.mint} to {payee}"
            click.echo(f"{said}{about}{locked}; mint's fees {fee} on top", err=True)
        if max_fee is not None and fee > max_fee:
            raise LocalError(
                f"paying it costs {fee} {price.unit} on top", code="payment-amount-high"
            )

    paid = await client.requests.pay(*wanted, agree=agree)
    price = paid.price
    if not where.json:
        click.echo(f"paid {price.amount} {price.unit}, {price.fee + price.his_fee} on top")
        for line in filter(None, paid.reply.splitlines()):
            click.echo(f"he says: {plain_line(line)}", err=True)
        if paid.back is not None:
            click.echo(f"came back: {paid.back.amount} {paid.back.unit}", err=True)
    return {
        "mint": price.mint,
        "unit": price.unit,
        "amount": price.amount,
        "fee": price.fee + price.his_fee,
        "payee": price.payee,
        "locked": price.locked,
        "reply": paid.reply,
        "back": 0 if paid.back is None else paid.back.amount,
        "id": paid.name,
    }
