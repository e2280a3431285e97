"""What a client keeps of finished purchases: receipts for reviews, and what was bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nostrllm.client.purchases import stored_event
from nostrllm.client.world import World
from nostrllm.ports import Write
from nostrllm.wire.event import Event


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt and the salt that opens it."""

    event: Event
    salt: str
    d: str
    model: str


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

    async def purchases(self, count: int = 20) -> list[Mapping[str, Any]]:
        """The latest purchases, newest first."""
        return await self._world.store.read("purchase_list", count=count)

    async def statement(self, provider: str) -> int | None:
        """The account's balance in msat as the provider last signed it."""
        rows = await self._world.store.read("statement_of", provider=provider)
        return int(rows[0]["balance_msat"]) if rows else None
