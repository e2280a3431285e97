"""Private messages from the relays: events in, letters out; what is foreign is counted."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from nostrllm.core.parts import Assemblies
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter
from nostrllm.provider.admit import Letter
from nostrllm.provider.reply import Address
from nostrllm.provider.shop import Shop, World
from nostrllm.wire import kinds
from nostrllm.wire.event import Event, Rumor
from nostrllm.wire.pow import work_of

#: Gift wraps are back-dated by up to two days (NIP-59).
WRAPS_STORED_S: Final = 2 * 86_400 + 3_600
LEGACY_STORED_S: Final = 3_600

Deliver = Callable[[Letter], Awaitable[None]]

log = structlog.get_logger()


class Inbox:
    """Subscriptions to everything that is addressed to us; one per family of kinds."""

    def __init__(self, world: World, shop: Shop, deliver: Deliver) -> None:
        self._world = world
        self._shop = shop
        self._deliver = deliver
        self._assemblies = Assemblies()
        self.dropped: Tally[str] = Tally()

    async def run(self) -> None:
        """Listen for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen("wraps", kinds.GIFT_WRAP, WRAPS_STORED_S))
            group.create_task(self._listen("live-wraps", kinds.GIFT_WRAP_EPHEMERAL, None))
            if self._shop.nip04:
                group.create_task(self._listen("legacy", kinds.DM_LEGACY, LEGACY_STORED_S))

    async def _listen(self, name: str, kind: int, stored_s: float | None) -> None:
        identity = self._world.identity
        wanted = Filter(kinds=(kind,), tags={"p": (identity.pubkey,)})
        open_letter = self._legacy if kind == kinds.DM_LEGACY else self._wrapped
        async with self._world.relays.subscribe(
            name, [wanted], signer=identity, stored_s=stored_s
        ) as events:
            async for event in events:
                heard_at = self._world.clock.monotonic()
                try:
                    self._check_fresh(event)
                    letter = await open_letter(event)
                except RemoteError as error:
                    self.dropped[error.code] += 1
                    continue
                if letter is not None:
                    await self._deliver(replace(letter, heard_at=heard_at))

    def _check_fresh(self, event: Event) -> None:
        """An event past its expiration is not read, though a relay kept it (NIP-40)."""
        expiration = event.value("expiration") or ""
        if expiration.isdecimal() and int(expiration[:16]) < self._world.now_s():
            raise RemoteError("the event has expired", code="message-stale")

    async def _wrapped(self, event: Event) -> Letter | None:
        rumor: Rumor | None = await self._world.identity.unwrap(event)
        assert rumor is not None
        if rumor.kind == kinds.PART:
            rumor = self._assemblies.add(rumor, self._world.clock.now())
            if rumor is None:
                return None
        if rumor.kind == kinds.MESSAGE:
            address = Address("client", rumor.pubkey, rumor.pubkey)
        elif rumor.kind == kinds.DM:
            address = Address("chat", rumor.pubkey, rumor.pubkey)
        else:
            raise RemoteError(f"kind {rumor.kind} is not spoken here")
        others = set(rumor.values("p")) - {self._world.identity.pubkey}
        return Letter(
            id=rumor.id,
            wrap=event.id,
            author=rumor.pubkey,
            created_at=rumor.created_at,
            text=rumor.content,
            address=address,
            alone=not others,
            work=work_of(event),
        )

    async def _legacy(self, event: Event) -> Letter | None:
        if event.pubkey == self._world.identity.pubkey:
            return None
        text = await self._world.identity.decrypt_legacy(event.content, event.pubkey)
        address = Address("legacy", event.pubkey, event.pubkey)
        return Letter(event.id, event.id, event.pubkey, event.created_at, text, address)
