"""The end of an order: cost, change, credit, receipt and reply, all in one commit.

After it nothing can be lost: the change is a liability in the ledger made of stored coins, and the
reply waits in the outbox.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.order import Failed, Generated, Settlement
from nostrllm.errors import CODES
from nostrllm.ports import Conflict, Write
from nostrllm.provider import draw
from nostrllm.provider.balances import Balance, Balances, committed, expected
from nostrllm.provider.locked import Locks, proofs_of
from nostrllm.provider.reply import Letterbox
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import Ticket, Written, post
from nostrllm.wire import kinds
from nostrllm.wire.amount import coins, sats
from nostrllm.wire.chat import split_answer
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Change, Problem, Result, SignedChange, Statement, Usage
from nostrllm.wire.receipt import Details, receipt_draft
from nostrllm.wire.token import Proof, Token, encode_token

#: Each try that fails is another change of the same account that succeeded and that `Balances` did
#: not foretell, such as a top-up, so this many in a row do not happen.
TRIES_MAX: Final = 64

PROBLEMS: Final = {
    "generation-failed": "the model gave no answer",
    "deadline": "no answer came in time",
    "model-unavailable": "the model is not there at the moment",
    "context-too-long": "the prompt is too long for this model",
    "busy": "the model is overloaded",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an order ends, before it is put into words."""

    ticket: Ticket
    split: Settlement
    code: str | None
    written: Written
    change: tuple[Proof, ...]
    kept: tuple[Proof, ...]
    release: tuple[str, ...]
    receipt: Event | None
    details: Details | None
    statement: Event | None
    balance: Balance


class Settler:
    """Books the end of orders and puts their replies into the outbox."""

    def __init__(self, world: World, letterbox: Letterbox, locks: Locks) -> None:
        self._world = world
        self._letterbox = letterbox
        self.locks = locks
        self.balances = Balances(world.store)
        self.on_answer: Callable[[Ticket, str], None] = lambda _ticket, _text: None
        self.on_due: Callable[[], None] = lambda: None

    async def settle(self, ticket: Ticket, event: Generated | Failed, written: Written) -> None:
        """Commit the order's end and wake the outbox; a second call for an order does nothing."""
        ticket = replace(ticket, order=ticket.order.handle(event))
        await self._book(ticket, written)
        self.on_answer(ticket, written.text)
        if ticket.order.funding == "locked":
            self.on_due()

    async def stated(self, pubkey: str) -> Event:
        """The account as it stands now, signed."""
        return await self.statement(pubkey, *await committed(self._world.store, pubkey))

    async def _book(self, ticket: Ticket, written: Written) -> None:
        for _ in range(TRIES_MAX):
            ending, guard = await self._ending(ticket, written)
            reply = await self._letterbox.seal(ticket.address, _reply(ending))
            writes = self._writes(ending) + self._letterbox.store(ticket.id, reply)
            try:
                with self.balances.moving(ticket.account, ending.balance):
                    await self._world.store.commit(guard, *writes)
            except Conflict as conflict:
                if conflict.name == "order_settled":
                    return
                await asyncio.sleep(0)  # the balance moved between reading and writing: read again
            else:
                self._letterbox.post(ticket.id, reply)
                return
        log.error("settlement_contended", order=ticket.id[:16])

    async def _ending(self, ticket: Ticket, written: Written) -> tuple[_Ending, Write]:
        """The end, and the write that holds the account to what it was taken for."""
        split = ticket.order.settlement
        assert split is not None
        by_token = ticket.order.funding == "token"
        held = await self._world.purse.held(ticket.id) if by_token else []
        change, kept = self._world.purse.choose(held, split.change_units if by_token else 0)
        release: list[str] = []
        if split.released:
            release = self.locks.release(proofs_of(await self.locks.stored(ticket.id)))
        receipt, details = await self._receipt(ticket, split, written)
        before = await self.balances.of(ticket.account)
        balance = before.moved(split.credit_msat)
        statement = None
        own = ticket.account == ticket.author  # another's balance is not for his child to read
        if own and (split.credit_msat or ticket.order.funding == "account"):
            statement = await self.statement(ticket.author, *balance)
        ending = _Ending(
            ticket,
            split,
            ticket.order.code,
            written,
            tuple(change),
            tuple(kept),
            tuple(release),
            receipt,
            details,
            statement,
            balance,
        )
        return ending, expected(ticket.account, before)

    async def statement(self, pubkey: str, seq: int, balance_msat: int) -> Event:
        """The account as it stands, signed: kind 25428."""
        content = Statement(account=pubkey, seq=seq, balance_msat=balance_msat)
        draft = Draft(kinds.STATEMENT, content.as_json(), self._world.now_s())
        return await self._world.identity.sign(draft)

    async def _receipt(
        self, ticket: Ticket, split: Settlement, written: Written
    ) -> tuple[Event | None, Details | None]:
        if not split.cost_msat:
            return None, None
        details = Details(
            order=ticket.id,
            price=ticket.price_id,
            mint=ticket.mint,
            cost_msat=split.cost_msat,
            usage=written.usage or Usage(),
            nonce=secrets.token_hex(32),
        )
        draft = receipt_draft(ticket.commitment, ticket.model, details, self._world.now_s())
        return await self._world.identity.sign(draft), details

    def _writes(self, ending: _Ending) -> list[Write]:
        ticket, split, now = ending.ticket, ending.split, self._world.now_s()
        purse = self._world.purse
        settled = {
            "id": ticket.id,
            "cost_msat": split.cost_msat,
            "change_units": split.change_units,
            "credit_msat": split.credit_msat,
            "receipt": json.dumps(ending.receipt.as_dict()) if ending.receipt else "",
            "code": ending.code or "",
            "at": now,
        }
        writes = [Write("order_settled", settled, rows=1)]
        if ending.change or ending.kept:
            writes += purse.mark(ending.change, "held", "sent", ticket.id)
            writes += purse.mark(ending.kept, "held", "free", "")
        if split.credit_msat:
            writes.append(
                Write("account_add", {"pubkey": ticket.account, "msat": split.credit_msat})
            )
        writes += draw.returned(ticket, split)
        return writes + self._booked(ticket, split)

    def _booked(self, ticket: Ticket, split: Settlement) -> list[Write]:
        """The postings of an order's end, and what becomes of a token that is locked to us."""
        order, writes = ticket.order, []
        fee = order.fee_msat if order.funding == "locked" else 0
        if split.released:
            writes.append(Write("locked_release", {"id": ticket.id}, rows=1))
            place = ledger.locked(ticket.mint, ticket.unit)
            lines = ledger.lock_released(ticket.id, place, order.net_msat + fee)
        else:
            ends = (ticket.id, ticket.account, split, order.unit_msat, fee)
            lines = ledger.settled(*ends, unit=ticket.unit)
        if order.funding == "locked" and not split.released:
            due = {"id": ticket.id, "change_units": split.change_units}
            writes.append(Write("locked_due", due, rows=1))
        return writes + post(f"settled:{ticket.id}", lines, self._world.now_s())


# in words


def _reply(ending: _Ending) -> Wire | Sequence[str]:
    if ending.ticket.address.dialect == "client":
        return _result(ending)
    return _texts(ending)


def _token(ending: _Ending) -> str:
    ticket = ending.ticket
    return encode_token(Token(ticket.mint, ticket.unit, ending.change))


def _problem(code: str | None) -> Problem | None:
    if code is None or code == "cancelled":
        return None
    known = code if code in CODES else "internal"
    return Problem(code=known, message=PROBLEMS.get(known, "the order failed"))


def _result(ending: _Ending) -> Result:
    ticket, written, split = ending.ticket, ending.written, ending.split
    change = signed = None
    if ending.change:
        change = Change(
            mint=ticket.mint, unit=ticket.unit, amount=split.change_units, token=_token(ending)
        )
    elif split.change_units:
        signed = SignedChange(mint=ticket.mint, unit=ticket.unit, amount=split.change_units)
    return Result(
        order=ticket.id,
        text=written.text,
        reasoning=written.reasoning or None,
        tool_calls=list(written.tool_calls) or None,
        sha256=hashlib.sha256(written.text.encode(errors="replace")).hexdigest(),
        finish_reason=written.finish_reason,
        model=ticket.model,
        usage=written.usage or Usage(),
        cost_msat=split.cost_msat,
        fee_msat=0 if split.released else ticket.order.fee_msat,
        change=change,
        signed=signed,
        release=list(ending.release) or None,
        credit_msat=split.credit_msat,
        quota_msat=split.quota_msat or None,
        statement=_as_dict(ending.statement),
        accepted=json.loads(ticket.accepted) if ticket.accepted else None,
        receipt=_as_dict(ending.receipt),
        details=ending.details.model_dump(mode="json", exclude_none=True)
        if ending.details
        else None,
        problem=_problem(ending.code),
    )


def _as_dict(event: Event | None) -> dict[str, Any] | None:
    return event.as_dict() if event else None


def _texts(ending: _Ending) -> list[str]:
    """A person's messages: the answer, what it cost, and the change alone at the end."""
    problem = _problem(ending.code)
    texts = []
    if problem is not None:
        texts.append(f"Sorry, {problem.message}. You pay nothing. [{problem.code}]")
    elif ending.written.text.strip():
        texts += split_answer(ending.written.text)
    texts.append(_account_of(ending))
    if ending.change:
        texts.append(_token(ending))
    return texts


def _account_of(ending: _Ending) -> str:
    ticket, split, usage = ending.ticket, ending.split, ending.written.usage
    parts = [f"Cost {sats(split.cost_msat)}"]
    if split.quota_msat:
        parts = [f"Cost {sats(split.cost_msat + split.quota_msat)}"]
    if split.cost_msat + split.quota_msat and usage is not None:
        parts[0] += f" ({usage.prompt} tokens in, {usage.completion} out)"
    if split.quota_msat:
        parts.append(f"{sats(split.quota_msat)} of it by your plan")
    if ticket.order.fee_msat:
        parts.append(f"mint fee {sats(ticket.order.fee_msat)}")
    if split.change_units:
        parts.append(f"change {coins(split.change_units, ticket.unit)}, in the next message")
    if split.credit_msat:
        what = "returned to" if ticket.order.funding == "account" else "credited to"
        whose = "your account" if ticket.account == ticket.author else "the account that paid"
        parts.append(f"{sats(split.credit_msat)} {what} {whose}")
    if ending.statement is not None:
        parts.append(f"balance {sats(ending.balance.msat)}")
    return "; ".join(parts) + "."
