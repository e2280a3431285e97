"""Who has a plan now; the end of its time, and the standing orders that begin the next.

Nothing here asks a mint: the end of a period and the beginning of the next are one commit, so each
is done once or not at all, whatever crashes, and however late it is.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final, Literal

import structlog

from nostrllm.core import ledger
from nostrllm.core.plan import Plan, Subscription
from nostrllm.ports import Conflict, Row, Write
from nostrllm.provider.reply import Address, Dialect, Letterbox
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import post
from nostrllm.wire.amount import sats

SWEEP_S: Final = 15.0

#: Each try that fails is an order of this account that took or gave quota at the same moment.
TRIES_MAX: Final = 64

log = structlog.get_logger()


class Subscribers:
    """Plans in force. The set of who has one is kept in memory: most orders are of others."""

    def __init__(self, world: World, shop: Shop, letterbox: Letterbox) -> None:
        self._world = world
        self._letterbox = letterbox
        self._offers = {plan.id: plan for plan in shop.plans}
        self._known: set[str] = set()

    async def open(self) -> None:
        """Read who has a plan; once, before anybody is served."""
        rows = await self._world.store.read("subscriptions_due", now=1 << 62)
        self._known = {str(row["author"]) for row in rows}

    def began(self, author: str) -> None:
        """Somebody bought a plan."""
        self._known.add(author)

    async def current(self, author: str) -> Subscription | None:
        """The plan that is in force now; a standing order whose time has come is carried out."""
        if author not in self._known:
            return None
        for _ in range(2):
            rows = await self._world.store.read("subscription_of", author=author)
            if not rows:
                self._known.discard(author)
                return None
            found = subscription_of(rows[0])
            if found.is_active(self._world.now_s()):
                return found
            await self._over(rows[0])
        return None

    async def spent_msat(self, own: Subscription) -> int:
        """What orders have cost since a plan with lower prices began, at those; else 0 will do."""
        mine = {"author": own.author, "since": own.starts_at}
        [row] = await self._world.store.read("subscription_spent", **mine)
        return int(row["msat"])

    async def run(self) -> None:
        """Carry out what is due, for ever."""
        while True:
            await self.sweep()
            await self._world.clock.sleep(SWEEP_S)

    async def sweep(self) -> int:
        """End every plan whose time is over, and renew those that stand. Returns how many."""
        rows = await self._world.store.read("subscriptions_due", now=self._world.now_s())
        for row in rows:
            await self._over(row)
        return len(rows)

    async def _over(self, row: Row) -> None:
        """One plan's end, and the next period's beginning if it was ordered and can be paid."""
        old, now = subscription_of(row), self._world.now_s()
        base, _, number = old.id.partition(":")
        new = old.renewed(f"{base}:{int(number or 0) + 1}", self._offers.get(old.plan.id), now)
        ended = over(old, "ended", 0, now)
        if new is not None:
            begin = [*ended, *bought(new, str(row["dialect"]), now)]
            told = f"Your plan {new.plan.id} was renewed for {sats(new.plan.price_msat)}."
            if await self._commit(row, begin, told):
                log.info("plan_renewed", plan=new.plan.id, client=new.author[:16])
                return
        told = f"Your plan {old.plan.id} has ended." + (
            " It was not renewed: the balance does not reach, or its terms changed."
            if old.renew
            else ""
        )
        if await self._commit(row, ended, told):
            self._known.discard(old.author)
            log.info("plan_ended", plan=old.plan.id, client=old.author[:16])

    async def _commit(self, row: Row, writes: list[Write], told: str) -> bool:
        """Commit, with a word to a person. False when it did not hold: it was done meanwhile, or
        the balance does not reach."""
        dialect, author = row["dialect"], str(row["author"])
        stored: list[Write] = []
        if dialect in ("chat", "legacy"):
            kind: Dialect = "chat" if dialect == "chat" else "legacy"
            outgoing = await self._letterbox.seal(Address(kind, author, author), [told])
            stored = self._letterbox.store(f"plan:{row['id']}", outgoing)
        try:
            await self._world.store.commit(*writes, *stored)
        except Conflict as conflict:
            log.info("plan_not_moved", conflict=conflict.name)
            return False
        self._letterbox.wake()
        return True


def bought(new: Subscription, dialect: str, now_s: int) -> list[Write]:
    """The writes of a plan bought from its author's balance; a Conflict if that does not reach."""
    terms = asdict(new.plan)
    values = {
        **{name: terms[name] for name in terms if name != "id"},
        "id": new.id,
        "author": new.author,
        "dialect": dialect,
        "plan": new.plan.id,
        "starts_at": new.starts_at,
        "ends_at": new.ends_at,
        "quota_left_msat": new.quota_left_msat,
        "renew": int(new.renew),
    }
    price = new.plan.price_msat
    return [
        Write("account_take", {"pubkey": new.author, "msat": price}, rows=1),
        Write("subscription_insert", values),
        *post(f"plan:{new.id}", ledger.plan_bought(new.id, new.author, price), now_s),
    ]


def over(
    old: Subscription, state: Literal["ended", "cancelled"], refund_msat: int, now_s: int
) -> list[Write]:
    """The writes of a plan's end; a Conflict if it ended before, or its quota was used since."""
    end = {
        "id": old.id,
        "state": state,
        "refund_msat": refund_msat,
        "quota_left_msat": old.quota_left_msat,
    }
    writes = [Write("subscription_end", end, rows=1)]
    if refund_msat:
        writes.append(Write("account_add", {"pubkey": old.author, "msat": refund_msat}))
    lines = ledger.plan_over(old.id, old.author, old.plan.price_msat, refund_msat)
    return [*writes, *post(f"over:{old.id}", lines, now_s)]


def subscription_of(row: Row) -> Subscription:
    """A row of the table."""
    names = ("price_msat", "period_s", "quota_msat", "percent", "priority")
    return Subscription(
        id=str(row["id"]),
        author=str(row["author"]),
        plan=Plan(str(row["plan"]), **{name: int(row[name]) for name in names}),
        starts_at=int(row["starts_at"]),
        ends_at=int(row["ends_at"]),
        quota_left_msat=int(row["quota_left_msat"]),
        renew=bool(row["renew"]),
    )
