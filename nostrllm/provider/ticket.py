"""An order as the store keeps it: everything that is needed to finish it after a restart.

The prompt is not in it. An order whose answer a crash interrupted is paid back, never run again, so
no prompt has to be kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from nostrllm.core import ledger
from nostrllm.core.order import Funding, Order
from nostrllm.ports import Row, Write
from nostrllm.provider.reply import Address
from nostrllm.provider.tokens import LockedToken
from nostrllm.purse import Plan
from nostrllm.wire.announcement import ModelOffer
from nostrllm.wire.order import AnyRequest


@dataclass(frozen=True, slots=True)
class Draw:
    """What an order spends besides its author's own balance.

    `payer` owns the balance; `grant_id` names the allowance by which it is spent since `taken_at`,
    "" where the author is the payer; `quota_msat` is set aside of the quota of a `subscription`.
    """

    payer: str
    taken_at: int
    grant_id: str = ""
    subscription: str = ""
    quota_msat: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """The stored part of an order; `order` is its state machine.

    `mint` and `unit` name the coins that paid; both are "" when an account did. `draw` is None
    where nothing but its author's balance or token pays.
    """

    id: str
    wrap: str
    address: Address
    model: str
    price_id: str
    order: Order
    mint: str
    unit: str
    commitment: str
    deadline: int
    accepted: str = ""
    draw: Draw | None = None

    @property
    def author(self) -> str:
        """Who wrote it: it is his order, and mostly his money."""
        return self.address.author

    @property
    def account(self) -> str:
        """Whose balance pays, where one does, and gets the rest."""
        return self.draw.payer if self.draw else self.author

    def insert(self, now_s: int) -> Write:
        """The write that makes the order exist; a second one of this id is a Conflict."""
        order = self.order
        return Write(
            "order_insert",
            {
                "id": self.id,
                "wrap": self.wrap,
                "author": self.author,
                "dialect": self.address.dialect,
                "reply_key": self.address.key,
                "reply_relays": json.dumps(self.address.relays),
                "funding": order.funding,
                "state": order.state,
                "model": self.model,
                "price": self.price_id,
                "mint": self.mint,
                "unit": self.unit,
                "unit_msat": order.unit_msat,
                "ceiling_msat": order.ceiling_msat,
                "fee_msat": order.fee_msat,
                "change_fee_units": order.change_fee_units,
                "wants_ecash": int(order.wants_ecash),
                "net_msat": order.net_msat,
                "commitment": self.commitment,
                "accepted": self.accepted,
                "deadline": self.deadline,
                "at": now_s,
            },
        )


def draw_of(row: Row) -> Draw:
    """A row of what an order has drawn."""
    names = ("payer", "taken_at", "grant_id", "subscription", "quota_msat")
    return Draw(**{name: row[name] for name in names})


def ticket_of(row: Row, draw: Draw | None = None) -> Ticket:
    """The ticket of a stored order, and of what it has drawn."""
    funding: Funding = row["funding"]
    return Ticket(
        id=row["id"],
        wrap=row["wrap"],
        address=address_of(row),
        model=row["model"],
        price_id=row["price"],
        order=Order(
            funding=funding,
            ceiling_msat=row["ceiling_msat"],
            fee_msat=row["fee_msat"],
            unit_msat=row["unit_msat"],
            change_fee_units=row["change_fee_units"],
            wants_ecash=bool(row["wants_ecash"]),
            state=row["state"],
            net_msat=row["net_msat"],
            quota_msat=draw.quota_msat if draw else 0,
        ),
        mint=row["mint"],
        unit=row["unit"],
        commitment=row["commitment"],
        deadline=row["deadline"],
        accepted=row["accepted"],
        draw=draw,
    )


def address_of(row: Row) -> Address:
    """Where the answer to a stored order or transfer goes."""
    relays = tuple(json.loads(row["reply_relays"]))
    return Address(row["dialect"], row["author"], row["reply_key"], relays)


@dataclass(frozen=True, slots=True)
class Job:
    """An admitted order with what only this process knows of it: the prompt.

    `plan` is the swap to run first, `lock` a token that is swapped afterwards; neither when an
    account pays. `payment` names what pays in the signed acceptance. `body` is what the engine is
    asked, `said_at` when the client wrote. `beside` is committed with the order. `priority` is its
    plan's; its client is `known` if he has paid for an answer before, or an account pays.
    `carry_on`: he takes an answer that two routes wrote.
    """

    ticket: Ticket
    offer: ModelOffer
    request: AnyRequest
    body: dict[str, Any]
    plan: Plan | None
    lock: LockedToken | None
    payment: str
    prompt_tokens: int
    end_by: int | None = None
    chunk_s: float | None = None
    said_at: int = 0
    priority: int = 0
    known: bool = False
    beside: tuple[Write, ...] = ()
    carry_on: bool = False

    @property
    def id(self) -> str:
        """The order's id."""
        return self.ticket.id

    def with_order(self, order: Order) -> Job:
        """The job with its order moved on."""
        return replace(self, ticket=replace(self.ticket, order=order))


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote, all of it."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None
    usage: Any = field(default=None)


def post(set_id: str, postings: ledger.Postings, now_s: int) -> list[Write]:
    """A set of postings as writes, each of which moves msat from one account to another."""
    return [
        Write(
            "entry_insert",
            {
                "set_id": set_id,
                "n": n,
                "debit": entry.debit,
                "credit": entry.credit,
                "msat": entry.amount,
                "at": now_s,
            },
        )
        for n, entry in enumerate(ledger.entries(postings))
    ]
