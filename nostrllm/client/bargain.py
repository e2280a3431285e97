"""What a client remembers of a purchase, and whether the provider keeps to it.

Pure: whatever the provider says is held against what was asked, pinned and paid. A breach is a
word, not an exception: the money that came back is taken first, then the user is told.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field, TypeAdapter

from nostrllm.core.coins import most
from nostrllm.core.money import UNIT_MSAT, cost_msat, unit_msat
from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.announcement import ModelOffer
from nostrllm.wire.event import Event
from nostrllm.wire.message import Hex32, ModelId, RelayUrl, Wire, digest, parse
from nostrllm.wire.order import (
    AcceptedTerms,
    Msat,
    Result,
    Statement,
    embedded_event,
    parse_statement,
    parse_terms,
)
from nostrllm.wire.receipt import (
    Receipt,
    commitment,
    parse_details,
    parse_receipt,
    round_up,
)
from nostrllm.wire.token import normal_url

#: More tokens than this beside the bytes are not believed.
FRAME_TOKENS_PER_MESSAGE: Final = 64
FRAME_TOKENS_OF_ANSWER: Final = 16

Breach = Literal[
    "text-altered",
    "stream-altered",
    "over-ceiling",
    "price-altered",
    "usage-implausible",
    "model-altered",
    "change-short",
    "change-altered",
    "change-refused",
    "change-pending",
    "change-withheld",
    "change-unsigned",
    "signatures-invalid",
    "release-invalid",
    "mint-unknown",
    "fee-altered",
    "receipt-invalid",
    "statement-invalid",
    "balance-short",
]


#: What a message that moves money wants.
What = Literal["order", "topup", "refund", "subscribe", "unsubscribe"]


class Bargain(Wire):
    """One order as the client placed it: enough to judge any reply, after a restart too.

    `paid_msat` is the token's worth, 0 when an account pays; `c` opens with `reviewer` and `salt`.
    Coins come back at `mint`, whose they were, or where a refund is concerned at one of `mints`.
    One coin of `unit` counts for `unit_msat`, where that is a rate: the one of the pinned list.
    `fee_msat` is what the mint takes for the token, `credit_msat_max` what may be credited instead
    of sent back, `payment` the name of its coins; None and "" where that is not known or without
    limit. Locked coins are the provider's alone until `locktime`; `rungs` are the amounts of the
    outputs for their change. `seq`, `balance_msat` and `known_at` (unix seconds) are of the
    account's last statement when the message was sent. `invoice` is what a refund or an order's
    change is to pay by Lightning. `of` is the account that pays, where it is not our own.
    `ceiling_msat` is all that may be taken off the account where no coins pay.
    """

    what: What = "order"
    provider: Hex32
    d: str = Field(default="", max_length=64)
    relays: tuple[RelayUrl, ...] = ()
    reply_relays: tuple[RelayUrl, ...]
    buyer: Hex32
    offer: ModelOffer | None = None
    price: str = ""
    model: ModelId = "-"
    pay: Literal["token", "locked", "account", "none"] = "none"
    mint: str = ""
    mints: tuple[str, ...] = ()
    unit: str = "sat"
    unit_msat: Msat | None = None
    paid_msat: Msat = 0
    fee_msat: Msat | None = None
    credit_msat_max: Msat | None = None
    payment: str = ""
    locktime: int = 0
    rungs: tuple[int, ...] = ()
    seq: int = -1
    balance_msat: Msat = 0
    known_at: int = 0
    ceiling_msat: Msat = 0
    size_bytes: int = 0
    messages: int = 0
    deadline: int
    invoice: str = ""
    of: str = ""
    reviewer: str = ""
    salt: str = ""

    @property
    def c(self) -> str:
        """The commitment that the receipt must carry."""
        return commitment(self.reviewer, self.salt)

    @property
    def coin_msat(self) -> int:
        """One coin of its unit in msat."""
        return unit_msat(self.unit) if self.unit_msat is None else self.unit_msat

    def takes(self, mint: str, unit: str) -> bool:
        """May coins of this mint and unit come back?"""
        try:
            url = normal_url(mint)
        except RemoteError:
            return False
        if self.mint:
            return (url, unit) == (self.mint, self.unit)
        return url in self.mints and unit in UNIT_MSAT


_BARGAIN: Final = TypeAdapter(Bargain)


def parse_bargain(text: str) -> Bargain:
    """A stored bargain. Raises RemoteError."""
    return parse(_BARGAIN, text)


@dataclass(frozen=True, slots=True)
class ProvedReceipt:
    """A receipt whose content and opened details agree with the order; its signature is not
    checked here."""

    event: Event
    receipt: Receipt
    details: dict[str, Any]


def accepted_terms(
    bargain: Bargain, order_id: str, raw: dict[str, Any] | None
) -> tuple[AcceptedTerms, Event]:
    """What the provider bound himself to, if it is what we asked for.

    Raises RemoteError. The signature of the event is for the caller to verify.
    """
    event = embedded_event(raw, kinds.ACCEPTED, bargain.provider)
    terms = parse_terms(event)
    stated = (terms.order, terms.client, terms.price, terms.model)
    if stated != (order_id, bargain.buyer, bargain.price, bargain.model):
        raise RemoteError("the acceptance is of another order")
    if terms.ceiling_msat > bargain.ceiling_msat:
        raise RemoteError("the acceptance is of a higher ceiling", code="price-changed")
    paid_with = order_id if bargain.pay == "account" else bargain.payment
    if paid_with not in ("", terms.payment):
        raise RemoteError("the acceptance is of other coins")
    return terms, event


def intact(result: Result) -> bool:
    """Is the text the one whose hash the result states?"""
    return hashlib.sha256(result.text.encode(errors="replace")).hexdigest() == result.sha256


def breaches(bargain: Bargain, result: Result) -> list[Breach]:
    """How the result departs from the bargain; [] is an honest one."""
    found: list[Breach] = []
    if not intact(result):
        found.append("text-altered")
    if result.model != bargain.model:
        found.append("model-altered")
    found += _price_breaches(bargain, result)
    if not _plausible(bargain, result):
        found.append("usage-implausible")
    found += _change_breaches(bargain, result)
    return found


def _price_breaches(bargain: Bargain, result: Result) -> list[Breach]:
    if bargain.offer is None:
        return []
    found: list[Breach] = []
    if result.cost_msat + result.fee_msat > bargain.ceiling_msat:
        found.append("over-ceiling")
    just = 0 if result.problem is not None else cost_msat(bargain.offer.price, result.usage)
    if result.cost_msat > just:
        found.append("price-altered")
    if bargain.fee_msat is not None and result.fee_msat > bargain.fee_msat:
        found.append("fee-altered")
    return found


def _plausible(bargain: Bargain, result: Result) -> bool:
    """Tokens are no more than bytes, for a token holds at least one.

    Reasoning that was not returned is believed only where the price list has a price for it.
    """
    usage = result.usage
    answer = len(result.text.encode(errors="replace"))
    answer += len((result.reasoning or "").encode(errors="replace"))
    answer += len(str(result.tool_calls or "").encode(errors="replace"))
    prompt = bargain.size_bytes + FRAME_TOKENS_PER_MESSAGE * bargain.messages
    announced = bargain.offer is not None and bargain.offer.price.reasoning is not None
    silent = usage.reasoning if announced and result.reasoning is None else 0
    return usage.prompt <= prompt and usage.completion - silent <= answer + FRAME_TOKENS_OF_ANSWER


def _change_breaches(bargain: Bargain, result: Result) -> list[Breach]:
    """Every msat paid in is cost, fee, change or credit; or nothing was taken."""
    back = result.credit_msat
    for given in (result.change, result.signed):
        if given is None:
            continue
        if not bargain.takes(given.mint, given.unit):
            return ["change-altered"]
        own = given.unit == bargain.unit
        back += given.amount * (bargain.coin_msat if own else unit_msat(given.unit))
    if bargain.pay not in ("token", "locked"):
        return []
    spent = result.cost_msat + result.fee_msat
    if bargain.pay == "locked" and (result.release is not None or not back + spent):
        return [] if result.release is not None and not back + spent else ["release-invalid"]
    found: list[Breach] = []
    signed = 0 if result.signed is None else result.signed.amount
    if signed and (bargain.pay != "locked" or most(bargain.rungs, signed) != signed):
        found.append("change-altered")
    if bargain.credit_msat_max is not None and result.credit_msat > bargain.credit_msat_max:
        found.append("change-withheld")
    if back + spent < bargain.paid_msat:
        found.append("change-short")
    return found


def proved_receipt(bargain: Bargain, order_id: str, result: Result) -> ProvedReceipt | None:
    """The result's receipt with its details, None when there is none.

    Raises RemoteError when it is not a receipt of this order; its signature is for the caller.
    """
    if result.receipt is None:
        return None
    event = embedded_event(result.receipt, kinds.RECEIPT, bargain.provider)
    receipt = parse_receipt(event)
    details = parse_details(result.details)
    content = receipt.content
    honest = (
        content.c == bargain.c
        and content.model == bargain.model
        and content.details == digest(result.details)
        and content.amount_msat == round_up(result.cost_msat)
        and (details.order, details.price) == (order_id, bargain.price)
        and (details.cost_msat, details.usage) == (result.cost_msat, result.usage)
    )
    if not honest:
        raise RemoteError("the receipt is not of this order", code="receipt-invalid")
    return ProvedReceipt(event, receipt, details.model_dump())


def account_statement(
    provider: str, account: str, raw: dict[str, Any] | None
) -> tuple[Event, Statement]:
    """A statement of our account by the provider; its signature is for the caller.

    Raises RemoteError.
    """
    event = embedded_event(raw, kinds.STATEMENT, provider)
    statement = parse_statement(event)
    if statement.account != account:
        raise RemoteError("the statement is of another account")
    return event, statement
