"""A payment for a request, and the provider's end at each commit on its way: it counts once."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.keys_sdk import nprofile
from nostrllm.ports import Row, Store, Write
from nostrllm.provider.daemon import Daemon
from nostrllm.purse import Purse
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import opened
from nostrllm.wire.payment_request import Payload
from tests.adapters.scripted import scripted
from tests.roles.market import Stall, buying, config_text, selling
from tests.roles.test_provider_orders import writes
from tests.roles.test_provider_requests import asked, balance, check_books, coins, lock_of, pay

#: The last word on a question whose money came: its answer, or that it must be asked again.
ENDS = ("Cost ", "generation-failed", "no longer have the question")


class DyingStore:
    """A store of a process that ends at its n-th commit from now: nothing returns any more."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._left = -1
        self._done = False
        self.dead = asyncio.Event()

    def die_at(self, commit: int, *, done: bool) -> None:
        """`done`: that commit is on the disk."""
        self._left, self._done = commit, done

    async def commit(self, *writes: Write) -> list[list[Row]]:
        self._left -= 1
        if self._left == 0:
            if self._done:
                await self._store.commit(*writes)
            self.dead.set()
        await self._live()
        return await self._store.commit(*writes)

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        await self._live()
        return await self._store.read(name, **values)

    async def _live(self) -> None:
        if self.dead.is_set():
            await asyncio.Event().wait()


@asynccontextmanager
async def mortal(text: str) -> AsyncIterator[tuple[Stall, DyingStore]]:
    """A provider that is ended without a word."""
    config = ProviderConfig.model_validate(tomllib.loads(text))
    shop = config.shop("0.0.0")
    async with opened(config, shop) as (world, seed):
        store = DyingStore(world.store)
        purse = Purse(store, world.mints, world.clock, seed)
        mortal_world = replace(world, store=store, purse=purse)
        address = nprofile(world.identity.pubkey, shop.relays)
        daemon = Daemon(mortal_world, shop, seed=seed, nprofile=address)
        ready = asyncio.Event()

        async def announced() -> None:
            ready.set()

        running = asyncio.create_task(daemon.run(asyncio.Event(), announced))
        await ready.wait()
        try:
            yield Stall(daemon, mortal_world, asyncio.Event()), store
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def at_rest(stall: Stall) -> bool:
    """Is everything done, and told?"""
    waiting = await stall.world.store.read("outbox_waiting_count")
    states = {str(row["state"]) for row in await stall.world.store.read("transfers_all")}
    states |= {order["state"] for order in await stall.orders()}
    return not waiting[0]["n"] and states <= {"done", "closed"}


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, 8))
async def test_the_end_at_any_commit_loses_and_doubles_nothing(
    relay_url: str, mint_url: str, tmp_path: Path, commit: int, done: bool
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path) as person:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        async with mortal(text) as (stall, store):
            request = await asked(stall, person)
            amount = request.amount or 0
            token = await coins(person, amount, lock_of(request))
            await asyncio.sleep(0.05)  # what was sent is booked as sent
            store.die_at(commit, done=done)
            await pay(stall, person, Payload(request.id, token))
            async with asyncio.timeout(20):
                await store.dead.wait()
        async with selling(text) as stall:
            said = ""
            while not any(mark in said for mark in ENDS):
                said = await person.heard(stall.pubkey)
            for _ in range(400):
                if await at_rest(stall):
                    break
                await asyncio.sleep(0.05)
            orders = await stall.orders()
            assert await at_rest(stall)
            assert len(orders) <= 1
            assert len(await stall.world.store.read("transfers_all")) == 1
            cost = sum(order["cost_msat"] for order in orders)
            assert await balance(stall, person.me.pubkey) == amount * 1_000 - cost
        await check_books(text)
