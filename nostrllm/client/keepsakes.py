"""What a client keeps of finished purchases: receipts for reviews, and what was bought."""

from __future__ import annotations

from dataclasses import dataclass

from nostrllm.client.bargain import What
from nostrllm.client.exchange import Balance
from nostrllm.client.purchases import Locked, State, stored_event
from nostrllm.client.world import World
from nostrllm.ports import Row, Write
from nostrllm.wire.event import Event


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt and the salt that opens it."""

    event: Event
    salt: str
    d: str
    model: str


@dataclass(frozen=True, slots=True)
class Bought:
    """One purchase as it stands; amounts in msat.

    `what` is order, topup, refund, subscribe or unsubscribe.

    `state` is done, failed (nothing was paid), late (an answer nobody has seen) or one of those on
    the way there; `code` says why it failed. `locked`: of an order that is over, its change is
    still to come ("owed"), or it was never taken and what it cost is still to be paid ("due").
    """

    n: int
    what: What
    order_id: str | None
    provider: str
    state: State
    breaches: tuple[str, ...]
    cost_msat: int
    fee_msat: int
    code: str
    created_at: int
    locked: Locked = ""

    @property
    def open(self) -> bool:
        """May money of ours still be out?"""
        return self.state not in ("late", "done", "failed") or self.locked == "owed"


class Keepsakes:
    """Reads of the client's own rows."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def receipt(self, provider: str) -> Kept | None:
        """The latest receipt of this provider."""
        rows = await self._world.store.read("receipt_latest", provider=provider)
        if not rows:
            return None
        row = rows[0]
        return Kept(stored_event(row["event"]), row["salt"], row["d"], row["model"])

    async def reviewed(self, receipt_id: str) -> None:
        """Remember that a receipt was published."""
        at = self._world.square.now_s()
        await self._world.store.commit(Write("receipt_reviewed", {"id": receipt_id, "at": at}))

    async def purchases(self, count: int = 20) -> list[Bought]:
        """The latest purchases, newest first."""
        return [_bought(row) for row in await self._world.store.read("purchase_list", count=count)]

    async def due(self) -> list[Bought]:
        """Answers whose coins came back, their provider never having taken them: still to pay."""
        rows = await self._world.store.read("purchase_owed")
        return [_bought(row) for row in rows if row["locked"] == "due"]

    async def statement(self, provider: str) -> Balance | None:
        """The account as the provider last signed it."""
        rows = await self._world.store.read("statement_of", provider=provider)
        if not rows:
            return None
        return Balance(provider, int(rows[0]["balance_msat"]), int(rows[0]["seq"]))


def _bought(row: Row) -> Bought:
    """A row of `purchase_list` or `purchase_owed`."""
    return Bought(
        n=row["n"],
        what=row["what"],
        order_id=row["id"],
        provider=row["provider"],
        state=row["state"],
        breaches=tuple(filter(None, row["breaches"].split(","))),
        cost_msat=row["cost_msat"],
        fee_msat=row["fee_msat"],
        code=row["code"],
        created_at=row["created_at"],
        locked=row["locked"],
    )
