"""The statements that a provider signs of our account, each held against the one before.

A statement is all that an account is worth, so credit counts only once one says so, and one that
contradicts an earlier one is kept as evidence and not believed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from nostrllm.client.bargain import Bargain, Breach, account_statement
from nostrllm.client.purchases import Purchase, Purchases
from nostrllm.client.world import World
from nostrllm.core.money import UNIT_MSAT
from nostrllm.errors import RemoteError
from nostrllm.ports import Write
from nostrllm.wire.event import Event
from nostrllm.wire.order import Answer, Result, Settled, Statement

#: A fee for making a refund's coins is believed up to this, and a twentieth of them.
REFUND_FEE_MSAT: Final = 2_000
#: A message is refused after its deadline; clocks differ by so much.
LATE_S: Final = 5

Proved = tuple[Event, Statement]


@dataclass(frozen=True, slots=True)
class Known:
    """The latest statement we believe: `seq` -1 while there is none; `event` as JSON text, `at` its
    time by the provider (unix seconds)."""

    seq: int = -1
    balance_msat: int = 0
    event: str = ""
    at: int = 0


class Statements:
    """Reads, judges and disputes account statements."""

    def __init__(self, world: World, purchases: Purchases) -> None:
        self._world = world
        self._purchases = purchases

    async def known(self, provider: str) -> Known:
        """What this provider signed last."""
        rows = await self._world.store.read("statement_of", provider=provider)
        if not rows:
            return Known()
        row = rows[0]
        at = int(json.loads(row["event"])["created_at"])
        return Known(int(row["seq"]), int(row["balance_msat"]), row["event"], at)

    async def proved(
        self, provider: str, account: str, raw: dict[str, Any] | None, since: Known
    ) -> Proved:
        """The statement, signed and no older than `since`, what was known when it was asked for.

        Raises RemoteError; a contradiction is written down before.
        """
        found = account_statement(provider, account, raw)
        event, statement = found
        if not self._world.square.keyring.verify(event):
            raise RemoteError("the account statement is not signed by the provider")
        now = await self.known(provider)
        other = statement.seq == now.seq and statement.balance_msat != now.balance_msat
        if other or statement.seq < since.seq:
            await self._dispute(provider, now, event)
            raise RemoteError("the account statement contradicts an earlier one")
        return found

    async def judged(
        self, purchase: Purchase, bargain: Bargain, reply: Result | Answer | Settled
    ) -> tuple[Proved | None, list[Breach]]:
        """The statement of a reply, and whether it has what the reply says was booked."""
        gain = _gain_msat(bargain, reply)
        if reply.statement is None:
            return None, [] if gain is None else ["statement-invalid"]
        since = Known(bargain.seq, bargain.balance_msat, at=bargain.known_at)
        try:
            found = await self.proved(bargain.provider, bargain.buyer, reply.statement, since)
        except RemoteError:
            return None, ["statement-invalid"]
        if gain is None:
            return found, []
        if found[1].seq <= since.seq and gain:
            return None, ["statement-invalid"]
        now = await self.known(bargain.provider)
        if bargain.what == "order" and since.seq < now.seq < found[1].seq:
            since = now  # an order's statement is signed as it is booked: nothing lies between
        least = since.balance_msat + gain - await self._held_beside(purchase, since)
        if found[1].balance_msat >= least:
            return found, []
        await self._dispute(bargain.provider, now, found[0])
        return found, ["balance-short"]

    async def lowered(self, since: Known, found: Proved, provider: str) -> list[Breach]:
        """Has the balance gone down while nothing of ours was under way?"""
        asked = Purchase(-1, "order", provider, "sent", self._world.square.now_s())
        least = since.balance_msat - await self._held_beside(asked, since)
        if found[1].balance_msat >= least:
            return []
        await self._dispute(provider, since, found[0])
        return ["balance-short"]

    async def _held_beside(self, purchase: Purchase, since: Known) -> int:
        """What other messages of ours may have taken off the account since a statement, in msat."""
        held = await self._granted(purchase.provider, since)
        for other in await self._purchases.beside(purchase):
            bargain = other.bargain
            if bargain is None or not _takes(bargain):
                continue
            over = bargain.seq < since.seq and bargain.deadline + LATE_S < purchase.created_at
            if not over and _seq_at_end(bargain, other) > since.seq:
                held += bargain.ceiling_msat or since.balance_msat
        return held

    async def _granted(self, provider: str, since: Known) -> int:
        """What keys that we allowed, and the standing order of a plan, may have taken since."""
        now, taken = self._world.square.now_s(), 0
        grants = await self._world.store.read("grants_since", provider=provider, since=since.at)
        for grant in grants:
            period_s, elapsed_s = int(grant["period_s"]), now - min(since.at or now, now)
            periods = 2 + elapsed_s // period_s if period_s else 1
            taken += periods * int(grant["limit_msat"])
        return taken

    async def _dispute(self, provider: str, known: Known, event: Event) -> None:
        values = {
            "id": event.id,
            "provider": provider,
            "known": known.event,
            "event": json.dumps(event.as_dict(), ensure_ascii=False),
            "at": self._world.square.now_s(),
        }
        await self._world.store.commit(Write("statement_dispute", values))


def _takes(bargain: Bargain) -> bool:
    """Does a message take from the account?"""
    own_order = bargain.what == "order" and bargain.pay == "account" and not bargain.of
    return own_order or bargain.what in ("refund", "subscribe")


def _seq_at_end(bargain: Bargain, purchase: Purchase) -> float:
    """From which statement on all that a purchase did to the account is in; infinite if unknown."""
    if purchase.state not in ("late", "done") or purchase.reply is None:
        return math.inf
    try:
        _, statement = account_statement(bargain.provider, bargain.buyer, purchase.reply.statement)
    except RemoteError:
        return math.inf
    return statement.seq


def _gain_msat(bargain: Bargain, reply: Result | Answer | Settled) -> int | None:
    """By how much the account must have grown at least; None when it need not have changed."""
    if bargain.of:  # the account is another's
        return None
    if isinstance(reply, Answer):
        return _answered_msat(bargain, reply)
    if isinstance(reply, Result) and bargain.pay == "account":
        return -reply.cost_msat
    return reply.credit_msat or None


def _answered_msat(bargain: Bargain, reply: Answer) -> int | None:
    """The same, of what is no order."""
    if bargain.what == "topup":
        return bargain.paid_msat - (bargain.fee_msat or 0)
    if bargain.what == "subscribe":
        return -bargain.ceiling_msat
    if bargain.what == "unsubscribe":
        return 0
    if bargain.what == "refund" and bargain.invoice:
        return -min(reply.paid_msat or 0, bargain.ceiling_msat)
    if bargain.what == "refund":
        change = reply.change
        paid = 0 if change is None else change.amount * UNIT_MSAT.get(change.unit, 0)
        return -paid - min(reply.fee_msat or 0, REFUND_FEE_MSAT + paid // 20)
    return None
