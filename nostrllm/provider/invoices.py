"""Invoices that clients want paid: which are taken at all, and the row that each becomes.

A refusal here leaves no row, so that the same invoice may come again; once there is a row its
payment hash is taken for ever.
"""

from __future__ import annotations

import json
from typing import Any, Final

from nostrllm.errors import RemoteError
from nostrllm.ports import Write
from nostrllm.provider.reply import Address
from nostrllm.wire.invoice import Invoice, parse_invoice

#: An invoice is taken while it is good for so long.
LEFT_S_MIN: Final = 600

#: One that waited for the end of its order is still paid then.
LEFT_S_AT_END: Final = 30


def taken(text: str, now_s: int) -> Invoice:
    """The invoice in a text, if it can be paid from an account.

    Raises RemoteError `payment-invoice-invalid`.
    """
    invoice = parse_invoice(text)
    if invoice.amount_msat is None:
        raise RemoteError(
            "the invoice has no amount; make one of an exact amount", code="payment-invoice-invalid"
        )
    check_left(invoice.expires_at, now_s, LEFT_S_MIN)
    return invoice


def check_left(expires_at: int, now_s: int, least_s: int) -> None:
    """Raises RemoteError `payment-invoice-invalid` for one that ends too soon."""
    if expires_at - now_s < least_s:
        raise RemoteError(
            f"the invoice must be good for {least_s // 60 or 1} more minutes",
            code="payment-invoice-invalid",
        )


def change_id(order_id: str) -> str:
    """The name under which an order's change is paid out."""
    return f"{order_id}:change"


def melt_insert(
    message_id: str, address: Address, invoice: Invoice, now_s: int, **of: Any
) -> Write:
    """The write that takes an invoice; a Conflict if it was taken before.

    It waits for the end of the order `message_id`, unless `of` says what else the row is.
    """
    values = {
        "id": change_id(message_id),
        "message": message_id,
        "kind": "change",
        "author": address.author,
        "dialect": address.dialect,
        "reply_key": address.key,
        "reply_relays": json.dumps(address.relays),
        "state": "waiting",
        "mint": "",
        "unit": "sat",
        "invoice": invoice.text,
        "payment_hash": invoice.payment_hash,
        "msat": invoice.amount_msat or 0,
        "held_msat": 0,
        "expires_at": invoice.expires_at,
        "at": now_s,
    }
    return Write("melt_insert", values | of)


def used_before() -> RemoteError:
    """What is said of an invoice whose payment hash is taken."""
    return RemoteError("this invoice was given here before", code="payment-invoice-invalid")
