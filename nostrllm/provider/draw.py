"""Money that an order sets aside in an account, and what becomes of it.

Its author's balance pays, or that of an owner who allowed it; a plan's quota pays before either.
All is taken in the commit that makes the order, so no limit is passed, however many come at once;
and what was not used is given back in the commit that ends it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from nostrllm.core import ledger
from nostrllm.core.order import Settlement
from nostrllm.errors import RemoteError
from nostrllm.ports import Store, Write
from nostrllm.provider.ticket import Ticket, draw_of, post, ticket_of

#: Why a take did not hold, by the name of its statement.
REFUSALS: Final = {
    "account_take": "the balance changed meanwhile",
    "allowance_take": "your allowance does not reach so far",
    "subscription_take": "your plan changed meanwhile",
}


def taken(ticket: Ticket, now_s: int) -> list[Write]:
    """The writes that set an order's money aside; each must hold."""
    hold, draw = ticket.order.net_msat, ticket.draw
    writes: list[Write] = []
    if hold:
        writes.append(Write("account_take", {"pubkey": ticket.account, "msat": hold}, rows=1))
    if draw is not None:
        if draw.grant_id:
            use = {"grant_id": draw.grant_id, "msat": hold, "at": draw.taken_at}
            writes.append(Write("allowance_take", use, rows=1))
        if draw.quota_msat:
            use = {"id": draw.subscription, "msat": draw.quota_msat, "at": draw.taken_at}
            writes.append(Write("subscription_take", use, rows=1))
        writes.append(Write("drawn_insert", {"order_id": ticket.id, **asdict(draw)}))
    lines = ledger.account_held(ticket.id, ticket.account, hold)
    return [*writes, *post(f"held:{ticket.id}", lines, now_s)]


def returned(ticket: Ticket, split: Settlement) -> list[Write]:
    """The writes that give an allowance and a quota back what an order did not use."""
    draw, writes = ticket.draw, list[Write]()
    if draw is None:
        return writes
    if draw.grant_id and split.credit_msat:
        back = {"grant_id": draw.grant_id, "msat": split.credit_msat, "taken_at": draw.taken_at}
        writes.append(Write("allowance_give", back))
    if draw.quota_msat > split.quota_msat:
        unused = draw.quota_msat - split.quota_msat
        writes.append(Write("subscription_give", {"id": draw.subscription, "msat": unused}))
    return writes


def refused(name: str) -> RemoteError | None:
    """The refusal that belongs to a take that did not hold."""
    why = REFUSALS.get(name)
    return None if why is None else RemoteError(why, code="account-insufficient")


async def stored_ticket(store: Store, order_id: str) -> Ticket:
    """The ticket of an order in the store, with what it has drawn."""
    row = (await store.read("order_get", id=order_id))[0]
    drawn = await store.read("drawn_get", order_id=order_id)
    return ticket_of(row, draw_of(drawn[0]) if drawn else None)
