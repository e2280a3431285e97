"""Whom money goes to by Lightning: an invoice as it is, or one made by a Lightning address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nostrllm.cli.terminal import plain_line
from nostrllm.cli.where import Where

if TYPE_CHECKING:
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
