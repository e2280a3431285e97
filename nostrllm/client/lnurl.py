"""From a Lightning address to an invoice: the payee is asked twice, and held to his first word.

Resolved here, by whoever pays: a provider is only ever handed an invoice.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from nostrllm.errors import LocalError
from nostrllm.ports import Web
from nostrllm.wire import lnurl
from nostrllm.wire.amount import sats
from nostrllm.wire.lnurl import is_address

__all__ = ["Resolved", "is_address", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """An invoice (BOLT 11) of `amount_msat`, made by the payee at `host`, for what he calls
    `description`; anybody may call anything anything."""

    invoice: str
    amount_msat: int
    host: str
    description: str


async def resolve(web: Web, address: str, amount_msat: int) -> Resolved:
    """An invoice of exactly this amount from a Lightning address or LNURL.

    Raises RemoteError `payment-invoice-invalid` for a payee who does not keep to the form, or makes
    another invoice; LocalError `payment-amount-low` or `-high` for what he does not take;
    WorldError `payee-unreachable`.
    """
    url = lnurl.pay_url(address)
    request = lnurl.parse_pay_request(await web.get(url))
    if amount_msat < request.min_msat:
        raise LocalError(f"he takes {sats(request.min_msat)} or more", code="payment-amount-low")
    if amount_msat > request.max_msat:
        raise LocalError(f"he takes {sats(request.max_msat)} at most", code="payment-amount-high")
    text = await web.get(request.invoice_url(amount_msat))
    invoice = lnurl.invoice_of(text, request, amount_msat)
    return Resolved(invoice.text, amount_msat, urlsplit(url).netloc, request.description)
