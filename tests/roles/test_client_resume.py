"""A client that dies at any write finds everything again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.client.account import Accounts
from nostrllm.client.answer import Answer
from nostrllm.client.ask import Buyer
from nostrllm.client.discover import Catalogue
from nostrllm.client.keepsakes import Bought, Keepsakes
from nostrllm.client.quote import Question
from nostrllm.client.resume import late_answers, resume, seen
from nostrllm.client.settle import Outcome
from nostrllm.client.world import Square, World
from nostrllm.errors import RemoteError, WorldError
from nostrllm.ports import Row, Store, Write
from nostrllm.purse import Purse
from tests.faultymint import FaultyMint
from tests.roles.counterpart import Counterpart, counterpart
from tests.roles.test_client_ask import FUND, TEXT


class Dead(BaseException):
    """The process is gone."""


@dataclass
class MortalStore:
    """A store whose process dies at commit number `last`, before or after it is on disk."""

    inner: Store
    last: int
    after: bool
    count: int = 0

    async def commit(self, *writes: Write) -> list[list[Row]]:
        self.count += 1
        if self.count > self.last or (self.count == self.last and not self.after):
            raise Dead
        rows = await self.inner.commit(*writes)
        if self.count == self.last:
            raise Dead
        return rows

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        return await self.inner.read(name, **values)


class LaterClock(SystemClock):
    """The same clock, an hour or more on."""

    skew_s = 3_600

    def now(self) -> float:
        return super().now() + self.skew_s


@asynccontextmanager
async def customer(folder: Path, relay_url: str, mint_url: str) -> AsyncIterator[World]:
    """What a client has, with a wallet of 100 sat, and nothing that runs by itself."""
    clock = SystemClock()
    keyring = LocalKeyring(clock)
    async with (
        SqliteStore.open(f"{folder}.db", ("purse", "client")) as store,
        CashuMints() as mints,
        WebsocketRelays([relay_url], keyring, clock) as relays,
    ):
        seed = secrets.token_bytes(64)
        purse = Purse(store, mints, clock, seed)
        square = Square(relays, keyring, clock, (relay_url,))
        world = World(square, store, purse, mints, keyring.signer(), seed, mint_url)
        quote = await purse.fund(mint_url, FUND)
        assert (await purse.claim_quote(quote.quote, wait_s=10)).state == "DONE"
        yield world


async def held(world: World) -> int:
    """Sats in the wallet."""
    return sum((await world.purse.balance()).values())


def buyer_of(world: World) -> Buyer:
    """One who buys in this world."""
    return Buyer(world, Catalogue(world.relays, world.square.clock))


def mortal(world: World, last: int, after: bool) -> tuple[World, MortalStore]:
    """The same world with a store that dies."""
    store = MortalStore(world.store, last, after)
    purse = Purse(store, world.mints, world.square.clock, world.seed)
    return replace(world, store=store, purse=purse), store


def restarted(world: World, *, later: bool = False) -> World:
    """The world as a new process finds it, an hour later if need be."""
    purse = Purse(world.store, world.mints, world.square.clock, world.seed)
    square = replace(world.square, clock=LaterClock()) if later else world.square
    return replace(world, purse=purse, square=square)


async def recovered(world: World) -> list[Outcome]:
    """Everything that restarts bring to an end; the answers that came late."""
    for later in (False, True):
        again = restarted(world, later=later)
        for op_id, _ in await again.purse.pending():
            await again.purse.run(op_id)
        await resume(again, buyer_of(again), wait_s=1.0)
    return await late_answers(buyer_of(world))


async def latest(world: World) -> Bought:
    """The last purchase."""
    return (await Keepsakes(world).purchases())[0]


COMMITS = 12


@pytest.mark.parametrize("after", [False, True])
async def test_death_at_any_write_of_an_order_loses_nothing(
    after: bool, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with counterpart(tmp_path / "bird", relay_url, mint_url) as bird:
        for last in range(1, COMMITS):
            folder = tmp_path / f"client-{last}"
            async with customer(folder, relay_url, mint_url) as world:
                if await _killed(world, bird, last, after):
                    assert last > 5
                    return
    raise AssertionError("the order never came to its end")


async def _killed(living: World, bird: Counterpart, last: int, after: bool) -> bool:
    """Kill an order at one write and recover; True when it ended before that."""
    world, store = mortal(living, last, after)
    answer = Answer()
    ended = False
    try:
        await buyer_of(world).ask(Question("Speak!", provider=bird.pubkey, pay="token"), answer)
        ended = store.count < last
    except Dead:
        ended = False
    late = await recovered(living)
    bought = await Keepsakes(living).purchases()
    assert not any(one.open for one in bought)
    assert await living.purse.pending() == []
    if not bought:  # it died before it began
        assert await held(living) == FUND
        return ended
    (one,) = bought
    if one.state == "failed":
        assert await held(living) >= FUND - 2
    else:
        assert one.state == ("late" if late else "done")
        assert not one.breaches
        assert one.cost_msat == 572
        assert await held(living) >= FUND - 5
        assert await Keepsakes(living).receipt(bird.pubkey) is not None
        assert [outcome.text for outcome in late] == [TEXT] or await _shown(answer) == TEXT
    return ended


async def _shown(answer: Answer) -> str:
    """What the user had seen before the process died."""
    shown = ""
    async with asyncio.timeout(5):
        async for piece in answer:
            shown += piece
            if shown == TEXT:
                break
    return shown


@pytest.mark.parametrize("what", ["topup", "refund"])
async def test_death_at_any_write_of_an_account_loses_nothing(
    what: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with (
        counterpart(tmp_path / "bird", relay_url, mint_url) as bird,
        customer(tmp_path / "customer", relay_url, mint_url) as living,
    ):
        offers = await Catalogue(living.relays, living.square.clock).offers()
        offer = next(one for one in offers if one.provider == bird.pubkey)
        for last in range(1, 8):
            if what == "refund":
                await Accounts(living, buyer_of(living)).top_up(offer, 8)
            before = await _worth(living, bird)
            world, _ = mortal(living, last, True)
            accounts = Accounts(world, buyer_of(world))
            with suppress(Dead):
                if what == "refund":
                    await accounts.refund(offer)
                else:
                    await accounts.top_up(offer, 5)
            await recovered(living)
            left = [one for one in await Keepsakes(living).purchases(99) if one.open]
            # a refund that no coin went with waits for its answer as long as one may come
            assert {(one.what, one.state) for one in left} <= {("refund", "sent")}
            assert await _worth(living, bird) >= before - 4_000


async def _worth(world: World, bird: Counterpart) -> int:
    """What the client has, at home and in its account, in msat."""
    return await held(world) * 1_000 + sum(bird.balances.values())


@asynccontextmanager
async def pair(
    tmp_path: Path, relay_url: str, mint_url: str, **manners: Any
) -> AsyncIterator[tuple[World, Counterpart]]:
    """A customer and a provider with these manners."""
    async with (
        counterpart(tmp_path / "bird", relay_url, mint_url, **manners) as bird,
        customer(tmp_path / "customer", relay_url, mint_url) as world,
    ):
        yield world, bird


async def test_change_waits_for_a_mint_that_is_down(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with FaultyMint(mint_url) as mint, pair(tmp_path, relay_url, mint.url) as (world, bird):
        bird.manners.before_result = lambda: mint.faults.extend(["refuse"] * 100)
        result = await buyer_of(world).ask(
            Question("Speak!", provider=bird.pubkey, pay="token"), Answer()
        )
        assert result.text == TEXT
        assert result.breaches == ("change-pending",)
        assert (await latest(world)).state == "settling"
        before = await held(world)
        mint.faults.clear()
        bird.manners.deaf = True  # the stored reply is enough
        late = await recovered(world)
        assert [outcome.breaches for outcome in late] == [()]
        assert await held(world) >= before + result.change_msat // 1_000 - 1
        assert (await latest(world)).state == "late"


async def test_a_late_answer_is_kept_until_it_was_seen(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with pair(tmp_path, relay_url, mint_url) as (living, bird):
        world, _ = mortal(living, 8, True)
        with suppress(Dead):
            await buyer_of(world).ask(
                Question("Speak!", provider=bird.pubkey, pay="token"), Answer()
            )
        first = await recovered(living)
        assert [outcome.text for outcome in first] == [TEXT]
        assert first[0].receipt is not None
        again = await late_answers(buyer_of(restarted(living)))
        assert again == first
        await seen(buyer_of(living), again)
        assert await late_answers(buyer_of(living)) == []
        assert (await latest(living)).state == "done"
        (row,) = await living.store.read("purchase_get", n=(await latest(living)).n)
        assert TEXT not in row["reply"]


async def test_a_mint_that_is_down_keeps_the_coins_of_a_refused_order_open(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with FaultyMint(mint_url) as mint, pair(tmp_path, relay_url, mint.url) as (world, bird):
        bird.manners.refuse = "busy"
        bird.manners.before_result = lambda: mint.faults.extend(["refuse"] * 100)
        with pytest.raises(RemoteError, match="not back yet"):
            await buyer_of(world).ask(
                Question("Speak!", provider=bird.pubkey, pay="token"), Answer()
            )
        mint.faults.clear()
        await recovered(world)
        assert await held(world) >= FUND - 2
        assert (await latest(world)).state == "failed"


async def test_what_never_ends_is_given_up_after_a_month(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with pair(tmp_path, relay_url, mint_url, take_and_be_silent=True) as (world, bird):
        question = Question("Speak!", provider=bird.pubkey, pay="token", deadline_s=0.5)
        with pytest.raises(WorldError):
            await buyer_of(world).ask(question, Answer())
        await recovered(world)
        assert (await latest(world)).open
        LaterClock.skew_s = 33 * 86_400
        try:
            await recovered(world)
        finally:
            LaterClock.skew_s = 3_600
        assert (await latest(world)).code == "provider-silent"
        assert not (await latest(world)).open
