"""The purchases a client has begun, as rows: each is taken to its end once, whenever that is.

A row goes reserved → sent → accepted → settling → done; or it fails, and then nothing was paid.
What a crash leaves behind in any of the first four is finished by `client.resume`. An answer that
came when nobody read it any more waits, all paid and taken, in `late` until somebody has seen it.
Where coins were locked the answer does not wait for the mint: `locked` says what is still to come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from pydantic import TypeAdapter

from nostrllm.client.bargain import Bargain, Breach, ProvedReceipt, What, parse_bargain
from nostrllm.client.world import World
from nostrllm.errors import RemoteError
from nostrllm.ports import Row, Write
from nostrllm.wire.event import Event, parse_event
from nostrllm.wire.order import Answer, Result, Statement, parse_from_provider

State = Literal["reserved", "sent", "accepted", "settling", "late", "done", "failed"]
#: Of an order that is over: its locked coins, or their change, are still to come ("owed"); they
#: came back, but not what the answer cost ("due").
Locked = Literal["", "owed", "due"]

REDACTED: Final = ""

#: With one of these the change is not ours: its token stays, to be tried again or shown.
NOT_TAKEN: Final = frozenset[Breach](("change-altered", "change-refused", "mint-unknown"))

_BREACHES: Final = TypeAdapter(tuple[Breach, ...])


@dataclass(frozen=True, slots=True)
class Purchase:
    """One row. `bargain` and `id` are None while only the reply key is reserved.

    `breaches`: what was found so far. `to_pay`: the provider's invoice that fills the account, if
    it is paid by `to_pay_by` (unix seconds).
    """

    n: int
    what: What
    provider: str
    state: State
    created_at: int
    id: str | None = None
    bargain: Bargain | None = None
    accepted: Event | None = None
    reply: Result | Answer | None = None
    breaches: tuple[Breach, ...] = ()
    locked: Locked = ""
    to_pay: str = ""
    to_pay_by: int = 0

    @property
    def token_op(self) -> str:
        """The wallet operation that made the token which pays for this."""
        return f"buy:{self.n}"

    def ladder_op(self, number: int = 0) -> str:
        """The wallet operation of the outputs for its change; of the first, or of later ones."""
        return f"ladder:{self.n}:{number}" if number else f"ladder:{self.n}"

    @property
    def change_op(self) -> str:
        """The wallet operation that takes what comes back."""
        return f"change:{self.n}"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a purchase ended, to be written down at once with all it brought.

    `seen`: the user has the answer. `locked`: what of its coins is not at its end. `writes` are
    committed with it.
    """

    reply: Result | Answer
    breaches: Sequence[Breach] = ()
    receipt: ProvedReceipt | None = None
    statement: tuple[Event, Statement] | None = None
    code: str = ""
    seen: bool = True
    locked: Locked = ""
    writes: Sequence[Write] = ()

    @property
    def state(self) -> State:
        """Where this takes the purchase."""
        return "late" if isinstance(self.reply, Result) and not self.seen else "done"


@dataclass(frozen=True, slots=True)
class Settled:
    """An order at its end, with what was found when it was settled."""

    purchase: Purchase
    reply: Result
    breaches: tuple[Breach, ...]
    receipt: Event | None


class Purchases:
    """The rows and what may happen to them; each change is on disk when it returns."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reserve(self, what: What, provider: str, pays: str = "") -> Purchase:
        """A purchase with a reply key that was never used.

        `pays`: the order that a top-up pays for.
        """
        at = self._world.square.now_s()
        values = {"what": what, "provider": provider, "pays": pays, "at": at}
        rows = await self._world.store.commit(Write("purchase_reserve", values))
        return Purchase(int(rows[0][0]["n"]), what, provider, "reserved", at)

    async def sent(
        self, purchase: Purchase, message_id: str, bargain: Bargain, writes: Sequence[Write] = ()
    ) -> Purchase:
        """From now on the message may have reached the provider. Raises Conflict."""
        values = {"id": message_id, "bargain": bargain.as_json()}
        await self._commit("purchase_send", purchase, values, writes)
        return replace(purchase, state="sent", id=message_id, bargain=bargain)

    async def accepted(self, purchase: Purchase, event: Event) -> Purchase:
        """The provider bound himself; only the first acceptance counts."""
        if purchase.state != "sent":
            return purchase
        await self._commit("purchase_accept", purchase, {"accepted": _json(event)})
        return replace(purchase, state="accepted", accepted=event)

    async def invoiced(self, purchase: Purchase, invoice: str, until: int) -> Purchase:
        """The provider told the invoice that fills the account."""
        values = {"to_pay": invoice, "to_pay_by": until}
        await self._commit("purchase_invoice", purchase, values)
        return replace(purchase, to_pay=invoice, to_pay_by=until)

    async def settling(self, purchase: Purchase, reply: Result | Answer) -> Purchase:
        """The reply is here and stored, coins and all; only the first one counts."""
        await self._commit("purchase_settle", purchase, {"reply": reply.as_json()})
        return replace(purchase, state="settling", reply=reply)

    async def done(self, purchase: Purchase, ending: Ending) -> Purchase:
        """Everything is ours: the row, the receipt and the statement are written together."""
        reply = ending.reply
        cost = reply.cost_msat if isinstance(reply, Result) else 0
        fee = reply.fee_msat if isinstance(reply, Result) else 0
        values = {
            "n": purchase.n,
            "state": ending.state,
            "reply": _stripped(reply, ending.breaches, keep_text=not ending.seen).as_json(),
            "breaches": ",".join(ending.breaches),
            "cost_msat": cost,
            "fee_msat": fee,
            "code": ending.code,
            "locked": ending.locked,
            "at": self._world.square.now_s(),
        }
        writes = [Write("purchase_done", values, rows=1), *ending.writes]
        writes += self._receipt(purchase, ending.receipt)
        writes += self.statement(purchase.provider, ending.statement)
        await self._world.store.commit(*writes)
        found = tuple(ending.breaches)
        return replace(
            purchase, state=ending.state, reply=reply, breaches=found, locked=ending.locked
        )

    async def late(self) -> list[Settled]:
        """Answers that came late and were not seen yet, oldest first."""
        return [_late(row) for row in await self._world.store.read("purchase_late")]

    async def seen(self, late: Settled) -> None:
        """The user has this answer: its text goes."""
        values = {
            "n": late.purchase.n,
            "reply": _stripped(late.reply, late.breaches, keep_text=False).as_json(),
            "at": self._world.square.now_s(),
        }
        await self._world.store.commit(Write("purchase_seen", values))

    async def untaken(self, since: int) -> list[tuple[Purchase, tuple[Breach, ...]]]:
        """Those ended since then whose change could not be taken, with what was found."""
        rows = await self._world.store.read("purchase_untaken", since=since)
        return [(_purchase(row), _breaches(row)) for row in rows]

    async def taken(self, purchase: Purchase, found: Sequence[Breach]) -> None:
        """The change of such a one is ours now."""
        if purchase.reply is None:
            return
        values = {
            "n": purchase.n,
            "reply": _stripped(purchase.reply, found, keep_text=True).as_json(),
            "breaches": ",".join(found),
            "at": self._world.square.now_s(),
        }
        await self._world.store.commit(Write("purchase_taken", values))

    async def failed(self, purchase: Purchase, code: str, writes: Sequence[Write] = ()) -> Purchase:
        """Nothing was paid, or all of it is back."""
        await self._commit("purchase_fail", purchase, {"code": code}, writes)
        return replace(purchase, state="failed")

    async def found(self, purchase: Purchase, breaches: Sequence[Breach]) -> Purchase:
        """More is amiss than was known."""
        every = tuple(dict.fromkeys((*purchase.breaches, *breaches)))
        if every != purchase.breaches:
            await self._commit("purchase_found", purchase, {"breaches": ",".join(every)})
        return replace(purchase, breaches=every)

    async def unlocked(
        self,
        purchase: Purchase,
        breaches: Sequence[Breach],
        writes: Sequence[Write],
        *,
        locked: Locked = "",
    ) -> Purchase:
        """What was locked is at its end, or as far as `locked` says. Raises Conflict."""
        every = tuple(dict.fromkeys((*purchase.breaches, *breaches)))
        values = {"breaches": ",".join(every), "before": purchase.locked, "locked": locked}
        await self._commit("purchase_unlock", purchase, values, writes)
        return replace(purchase, breaches=every, locked=locked)

    async def owed(self) -> list[Purchase]:
        """Orders that are over, but not what was locked for them; oldest first."""
        return [_purchase(row) for row in await self._world.store.read("purchase_owed")]

    async def paying(self, order_id: str) -> list[Purchase]:
        """The top-ups that were to pay for an order, newest first."""
        rows = await self._world.store.read("purchase_paying", order=order_id)
        return [_purchase(row) for row in rows]

    async def to_pay(self) -> list[Purchase]:
        """Those that wait for an invoice to be paid, oldest first."""
        return [_purchase(row) for row in await self._world.store.read("purchase_to_pay")]

    async def open(self) -> list[Purchase]:
        """Those that are not at their end, oldest first."""
        return [_purchase(row) for row in await self._world.store.read("purchase_open")]

    async def beside(self, purchase: Purchase) -> list[Purchase]:
        """Others with the same provider that were under way at any time since this one began."""
        values = {"provider": purchase.provider, "n": purchase.n, "since": purchase.created_at}
        rows = await self._world.store.read("purchase_beside", **values)
        return [_purchase(row) for row in rows]

    async def amiss(self, since: int) -> list[Purchase]:
        """Those that were not kept to, not answered, or not ended, and moved last since then."""
        rows = await self._world.store.read("purchase_amiss", since=since)
        return [_purchase(row) for row in rows]

    async def get(self, n: int) -> Purchase:
        """The purchase of this number as it stands now."""
        return _purchase((await self._world.store.read("purchase_get", n=n))[0])

    @staticmethod
    def statement(provider: str, proved: tuple[Event, Statement] | None) -> list[Write]:
        """The write that keeps a statement, unless a later one is kept already."""
        if proved is None:
            return []
        event, statement = proved
        values = {
            "provider": provider,
            "seq": statement.seq,
            "balance_msat": statement.balance_msat,
            "event": _json(event),
        }
        return [Write("statement_keep", values)]

    def _receipt(self, purchase: Purchase, proved: ProvedReceipt | None) -> list[Write]:
        if proved is None or purchase.bargain is None:
            return []
        values = {
            "id": proved.event.id,
            "provider": purchase.provider,
            "d": purchase.bargain.d,
            "model": proved.receipt.content.model,
            "purchase": purchase.n,
            "event": _json(proved.event),
            "details": json.dumps(proved.details),
            "salt": purchase.bargain.salt,
            "at": self._world.square.now_s(),
        }
        return [Write("receipt_keep", values)]

    async def _commit(
        self,
        name: str,
        purchase: Purchase,
        values: Mapping[str, object],
        writes: Sequence[Write] = (),
    ) -> None:
        always = {"n": purchase.n, "at": self._world.square.now_s()}
        await self._world.store.commit(Write(name, {**values, **always}, rows=1), *writes)


def _purchase(row: Row) -> Purchase:
    reply = parse_from_provider(row["reply"]) if row["reply"] else None
    return Purchase(
        n=int(row["n"]),
        what=row["what"],
        provider=row["provider"],
        state=row["state"],
        created_at=int(row["created_at"]),
        id=row["id"],
        bargain=parse_bargain(row["bargain"]) if row["bargain"] else None,
        accepted=stored_event(row["accepted"]) if row["accepted"] else None,
        reply=reply if isinstance(reply, Result | Answer) else None,
        breaches=_breaches(row),
        locked=row["locked"],
        to_pay=row["to_pay"],
        to_pay_by=int(row["to_pay_by"]),
    )


def _late(row: Row) -> Settled:
    purchase = _purchase(row)
    if not isinstance(purchase.reply, Result):
        raise RemoteError("the stored answer is none")
    return Settled(
        purchase,
        purchase.reply,
        _breaches(row),
        stored_event(row["receipt"]) if row["receipt"] else None,
    )


def _breaches(row: Row) -> tuple[Breach, ...]:
    return _BREACHES.validate_python(tuple(filter(None, row["breaches"].split(","))))


def stored_event(text: str) -> Event:
    """An event from its JSON text in the store. Raises RemoteError."""
    try:
        return parse_event(json.loads(text))
    except ValueError:
        raise RemoteError("the stored event is not JSON") from None


def _stripped(
    reply: Result | Answer, found: Sequence[Breach], *, keep_text: bool
) -> Result | Answer:
    """What stays: not a token that was taken, nor an answer that the user has."""
    update: dict[str, object] = {}
    if reply.change is not None and not NOT_TAKEN & set(found):
        update["change"] = reply.change.model_copy(update={"token": REDACTED})
    if isinstance(reply, Result) and not keep_text:
        update |= {"text": REDACTED, "reasoning": None, "tool_calls": None}
    return reply.model_copy(update=update)


def _json(event: Event) -> str:
    return json.dumps(event.as_dict(), ensure_ascii=False, separators=(",", ":"))
