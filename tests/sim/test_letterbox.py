"""A disk that fails for a moment, at the worst moment for the outbox."""

from __future__ import annotations

import asyncio
import json
import random
from types import SimpleNamespace
from typing import Any

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.errors import StoreError
from nostrllm.ports import Published, Row, Write
from nostrllm.provider.reply import Letterbox
from nostrllm.wire.event import Draft, Event
from tests.sim.keys import SimKeyring
from tests.sim.loop import SimClock

OWNERS = ("a", "b")


class _Store:
    """Holds back the letters of "a" and the second look at what is due, until it fails."""

    def __init__(self, event: Event) -> None:
        self._event = json.dumps(event.as_dict())
        self.fails = asyncio.Event()
        self.looks_again = asyncio.Event()
        self.is_bad = True
        self.looks = 0

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        if name == "outbox_due":
            self.looks += 1
            if self.looks == 2:
                await self.looks_again.wait()
            return [{"owner": owner} for owner in OWNERS[: self.looks]]
        if self.is_bad:
            await self.fails.wait()
            raise StoreError
        owner = values["owner"]
        return [{"id": owner, "owner": owner, "event": self._event, "relays": "[]", "tries": 0}]

    async def commit(self, *writes: Write) -> list[list[Row]]:
        return []


class _Relays:
    def __init__(self) -> None:
        self.taken = asyncio.Semaphore(0)

    async def publish(self, event: Event, **named: Any) -> Published:
        self.taken.release()
        return Published(("wss://one.example",), {})


async def _both_taken(letterbox: Letterbox, relays: _Relays) -> None:
    running = asyncio.ensure_future(letterbox.run())
    try:
        async with asyncio.timeout(10):
            for _ in OWNERS:
                await relays.taken.acquire()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_delivery_that_never_began_is_made_later() -> None:
    """The failure of one ends the group before another's first step, which then cleans up nothing.

    When the supervisor starts the outbox again, all that waits must go out.
    """
    signer = SimKeyring(SimClock(), random.Random(1)).signer()
    store, relays = _Store(await signer.sign(Draft(1, "", 0))), _Relays()
    world: Any = SimpleNamespace(store=store, relays=relays, clock=SystemClock(), now_s=lambda: 1)
    letterbox = Letterbox(world, ())
    running = asyncio.ensure_future(letterbox.run())
    for _ in range(5):
        await asyncio.sleep(0)
    letterbox.wake()
    for _ in range(5):
        await asyncio.sleep(0)
    assert store.looks == 2
    store.fails.set()
    store.looks_again.set()
    with pytest.raises(ExceptionGroup):
        await running
    store.is_bad = False
    await _both_taken(letterbox, relays)
