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
from nostrllm.ports import Clock, Row, Store, Write
from nostrllm.provider.admit import Letter
from nostrllm.provider.daemon import Daemon
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.reply import Address
from nostrllm.provider.requests import WAIT_S, WAITING_MAX, Payee, Requests
from nostrllm.purse import Purse
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import opened
from nostrllm.wire.payment_request import Payload, encode_payload, parse_request
from tests.adapters.relay_scripted import until
from tests.adapters.scripted import scripted
from tests.faultymint import FaultyMint
from tests.roles.market import Stall, buying, config_text, selling
from tests.roles.test_provider_orders import writes
from tests.roles.test_provider_process import key_of, provider
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


@pytest.mark.parametrize(
    "faults", [["lost"], ["503"], ["garbage"], ["500 after"], ["code 0"], ["lost", "lost", "503"]]
)
async def test_whatever_the_mint_answers_it_is_credited_once(
    relay_url: str, mint_url: str, tmp_path: Path, faults: list[str]
) -> None:
    async with (
        FaultyMint(mint_url) as faulty,
        scripted(writes) as engine,
        buying(relay_url, mint_url, tmp_path) as person,
    ):
        text = config_text(tmp_path / "stall", [relay_url], faulty.url, engine.url)
        async with selling(text) as stall:
            request = await asked(stall, person, "/topup 20")
            token = replace(await coins(person, 20, lock_of(request)), mint=faulty.url)
            faulty.faults = faults
            await pay(stall, person, Payload(request.id, token), copies=2)
            assert "20 sat added" in await person.heard(stall.pubkey)
            assert await balance(stall, person.me.pubkey) == 20_000
        await check_books(text)


@pytest.mark.parametrize("when", ["before the keys", "after the swap"])
async def test_a_killed_provider_credits_what_came_before(
    relay_url: str, mint_url: str, tmp_path: Path, when: str
) -> None:
    state = tmp_path / "stall"
    async with (
        FaultyMint(mint_url) as faulty,
        scripted(writes) as engine,
        buying(relay_url, mint_url, tmp_path) as person,
    ):
        text = config_text(state, [relay_url], faulty.url, engine.url)
        to = key_of(state)
        with provider(state, text) as child:
            await person.say(to, "/topup 20")
            request = parse_request((await person.heard_until(to, "creqA"))[-1])
            token = replace(await coins(person, 20, lock_of(request)), mint=faulty.url)
            if when == "before the keys":
                faulty.says |= dict.fromkeys(("/v1/keysets", "/v1/keys"), (503, ""))
            else:
                faulty.faults = ["lost"]
                faulty.says |= dict.fromkeys(("/v1/restore", "/v1/checkstate"), (503, ""))
            payload = encode_payload(Payload(request.id, token))
            await person.say(to, payload)
            if when == "before the keys":
                assert "payment-pending" in await person.heard(to)
            else:
                await until(lambda: any(path == "/v1/restore" for path, _ in faulty.calls))
            child.kill()
        faulty.says.clear()
        with provider(state, text):
            assert "20 sat added" in await person.heard(to)
            await person.say(to, "/balance")
            assert "balance is 20 sat" in (await person.heard_until(to, "balance is"))[-1]
        await check_books(text)


class Late:
    """A clock that is so far ahead."""

    def __init__(self, clock: Clock, ahead_s: float) -> None:
        self._clock = clock
        self.ahead_s = ahead_s

    def now(self) -> float:
        return self._clock.now() + self.ahead_s

    def monotonic(self) -> float:
        return self._clock.monotonic() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


async def test_questions_wait_for_a_day_and_so_many(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    text = config_text(tmp_path / "stall", [relay_url], mint_url, "http://127.0.0.1:9")
    config = ProviderConfig.model_validate(tomllib.loads(text))
    shop = config.shop("0.0.0")
    async with opened(config, shop) as (world, _):
        clock = Late(world.clock, 0.0)
        key = PaymentKey(b"seed" * 8)
        key.open("shop")
        payee = Payee("", key, lambda letter_id: f"request of {letter_id}")
        requests = Requests(replace(world, clock=clock), shop, payee)
        letters = [
            Letter(str(n), "", "author", 0, "?", Address("chat", "author", "author"))
            for n in range(WAITING_MAX + 1)
        ]
        for letter in letters:
            requests.ask(letter, 8, waits=True)
        assert not requests.waits("request of 0")  # the oldest was forgotten
        assert requests.take("request of 1") == letters[1]
        assert requests.take("request of 1") is None
        clock.ahead_s = WAIT_S - 10
        requests.ask(letters[0], 8, waits=True)
        assert requests.waits("request of 2")
        clock.ahead_s = WAIT_S + 10
        assert requests.take("request of 2") is None
        assert requests.take("request of 0") == letters[0]
        assert requests.withdraw("somebody") == 0
        assert requests.withdraw("author") > 500
        assert requests.take("request of 9") is None
