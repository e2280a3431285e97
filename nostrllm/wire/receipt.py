"""A receipt (kind 25423): the provider's signature that somebody paid for an answer.

It names nobody: `c` = sha256(reviewer key ‖ salt) is opened by the reviewer who publishes it, and
`details` is a hash whose text only the two of them know, for a dispute. Amount and time are rough
on purpose, so that a published receipt does not point at one order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field, TypeAdapter

from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.message import Hex32, ModelId, Wire, digest, parse
from nostrllm.wire.order import Msat, Usage

DAY_S: Final = 86_400


class Details(Wire):
    """What the hash in a receipt covers; `nonce` keeps it from being guessed."""

    order: Hex32
    price: Hex32
    mint: str = Field(max_length=256)
    cost_msat: Msat
    usage: Usage
    nonce: Hex32

    @property
    def digest(self) -> str:
        """The hash of them as they are sent; of received ones, take it of what was received."""
        return digest(self.model_dump(mode="json", exclude_none=True))


class ReceiptContent(Wire):
    """The content of kind 25423. `amount_msat` is the cost rounded up to a power of two."""

    v: Literal[1] = 1
    c: Hex32
    model: ModelId
    day: int = Field(ge=0, le=1 << 24)
    amount_msat: int = Field(ge=0, le=1 << 62)
    details: Hex32


_CONTENT: Final = TypeAdapter(ReceiptContent)
_DETAILS: Final = TypeAdapter(Details)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt read from its event; the signature is verified by whoever fetched the event."""

    id: str
    provider: str
    content: ReceiptContent


def commitment(reviewer: str, salt: str) -> str:
    """`c` for a reviewer's public key and a salt, both 32 bytes of hex."""
    return hashlib.sha256(bytes.fromhex(reviewer) + bytes.fromhex(salt)).hexdigest()


def round_up(amount_msat: int) -> int:
    """The next power of two; 0 stays 0."""
    return 1 << (amount_msat - 1).bit_length() if amount_msat > 0 else 0


def receipt_draft(c: str, model: str, details: Details, now_s: int) -> Draft:
    """The event to sign; its time is the day's first second."""
    day = now_s // DAY_S
    content = ReceiptContent(
        c=c,
        model=model,
        day=day,
        amount_msat=round_up(details.cost_msat),
        details=details.digest,
    )
    return Draft(kinds.RECEIPT, content.as_json(), day * DAY_S)


def parse_receipt(event: Event) -> Receipt:
    """An event of kind 25423. Raises RemoteError `receipt-invalid`."""
    if event.kind != kinds.RECEIPT:
        raise RemoteError("not a receipt", code="receipt-invalid")
    return Receipt(event.id, event.pubkey, parse(_CONTENT, event.content))


def parse_details(raw: object) -> Details:
    """The opened details of a receipt. Raises RemoteError."""
    try:
        return _DETAILS.validate_python(raw)
    except ValueError:
        raise RemoteError("the receipt's details are not readable") from None


def binds(receipt: Receipt, reviewer: str, salt: str) -> bool:
    """Was the receipt made for this reviewer?"""
    try:
        return commitment(reviewer, salt) == receipt.content.c
    except ValueError:
        return False
