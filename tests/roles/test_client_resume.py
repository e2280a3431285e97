"""A client that dies at any write finds everything again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.client.account import Accounts
from nostrllm.client.answer import Answer
from nostrllm.client.ask import Buyer
from nostrllm.client.discover import Catalogue
from nostrllm.client.quote import Question
from nostrllm.client.resume import resume
from nostrllm.client.settle import Outcome
from nostrllm.client.world import World
from nostrllm.errors import RemoteError, WorldError
from nostrllm.ports import Row, Store, Write
from nostrllm.purse import Purse
from nostrllm.service.client import Client
from tests.faultymint import FaultyMint
from tests.roles.counterpart import Counterpart, counterpart
from tests.roles.test_client_ask import FUND, TEXT, both, funded, held


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

    ahead_s = 3_600

    def now(self) -> float:
        return super().now() + self.ahead_s


def mortal(client: Client, last: int, after: bool) -> tuple[World, MortalStore]:
    """The client's world with a store that dies."""
    world = client.world
    store = MortalStore(world.store, last, after)
    purse = Purse(store, world.mints, world.square.clock, world.seed)
    return replace(world, store=store, purse=purse), store


def restarted(client: Client, *, later: bool = False) -> tuple[World, Buyer]:
    """The client's world as a new process finds it, an hour later if need be."""
    world = client.world
    purse = Purse(world.store, world.mints, world.square.clock, world.seed)
    square = replace(world.square, clock=LaterClock()) if later else world.square
    world = replace(world, purse=purse, square=square)
    return world, Buyer(world, Catalogue(square.relays, square.clock))


async def recovered(client: Client) -> list[Outcome]:
    """Everything that restarts bring to an end."""
    late = []
    for later in (False, True):
        world, buyer = restarted(client, later=later)
        for op_id, _ in await world.purse.pending():
            await world.purse.run(op_id)
        late += await resume(world, buyer, wait_s=1.0)
    return late


COMMITS = 12


@pytest.mark.parametrize("after", [False, True])
async def test_death_at_any_write_of_an_order_loses_nothing(
    after: bool, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with counterpart(tmp_path / "bird", relay_url, mint_url) as bird:
        for last in range(1, COMMITS):
            folder = tmp_path / f"client-{last}"
            async with funded(folder, relay_url, mint_url) as client:
                if await _killed(client, bird, last, after):
                    assert last > 5
                    return
    raise AssertionError("the order never came to its end")


async def _killed(client: Client, bird: Counterpart, last: int, after: bool) -> bool:
    """Kill an order at one write and recover; True when it ended before that."""
    world, store = mortal(client, last, after)
    buyer = Buyer(world, Catalogue(world.relays, world.square.clock))
    answer = Answer()
    ended = False
    try:
        await buyer.ask(Question("Speak!", provider=bird.pubkey), answer)
        ended = store.count < last
    except Dead:
        ended = False
    late = await recovered(client)
    assert await client.world.store.read("purchase_open") == []
    assert await client.wallet.pending() == []
    rows = await client.keepsakes.purchases()
    if not rows:  # it died before it began
        assert await held(client) == FUND
        return ended
    (row,) = rows
    if row["state"] == "failed":
        assert await held(client) >= FUND - 2
    else:
        assert row["state"] == "done"
        assert not row["breaches"]
        assert row["cost_msat"] == 572
        assert await held(client) >= FUND - 5
        assert await client.keepsakes.receipt(bird.pubkey) is not None
        shown = "".join(answer._pieces)
        assert TEXT in (shown, *(outcome.text for outcome in late))
    return ended


@pytest.mark.parametrize("what", ["topup", "refund"])
async def test_death_at_any_write_of_an_account_loses_nothing(
    what: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        offer = await client.market.offer(bird.pubkey)
        for last in range(1, 8):
            if what == "refund":
                await client.topup(bird.pubkey, 8)
            before = await _worth(client, bird)
            world, _ = mortal(client, last, True)
            accounts = Accounts(world, Buyer(world, client.market.catalogue))
            with suppress(Dead):
                if what == "refund":
                    await accounts.refund(offer)
                else:
                    await accounts.top_up(offer, (mint_url, "sat", 5))
            await recovered(client)
            left = await client.world.store.read("purchase_open")
            # a refund that no coin went with waits for its answer as long as one may come
            assert {(row["what"], row["state"]) for row in left} <= {("refund", "sent")}
            assert await _worth(client, bird) >= before - 4_000


async def _worth(client: Client, bird: Counterpart) -> int:
    """What the client has, at home and in its account, in msat."""
    return await held(client) * 1_000 + sum(bird.balances.values())


async def test_change_waits_for_a_mint_that_is_down(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with FaultyMint(mint_url) as mint, both(tmp_path, relay_url, mint.url) as (client, bird):
        bird.manners.before_result = lambda: mint.faults.extend(["refuse"] * 100)
        result = await client.ask("Speak!", provider=bird.pubkey).done()
        assert result.text == TEXT
        assert result.breaches == ("change-pending",)
        assert (await client.keepsakes.purchases())[0]["state"] == "settling"
        before = await held(client)
        mint.faults.clear()
        bird.manners.deaf = True  # the stored reply is enough
        late = await recovered(client)
        assert [outcome.breaches for outcome in late] == [()]
        assert await held(client) >= before + result.change_msat // 1_000 - 1
        assert (await client.keepsakes.purchases())[0]["state"] == "done"


async def test_a_mint_that_is_down_keeps_the_coins_of_a_refused_order_open(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with FaultyMint(mint_url) as mint, both(tmp_path, relay_url, mint.url) as (client, bird):
        bird.manners.refuse = "busy"
        bird.manners.before_result = lambda: mint.faults.extend(["refuse"] * 100)
        with pytest.raises(RemoteError, match="not back yet"):
            await client.ask("Speak!", provider=bird.pubkey).done()
        mint.faults.clear()
        await recovered(client)
        assert await held(client) >= FUND - 2
        assert (await client.keepsakes.purchases())[0]["state"] == "failed"


async def test_what_never_ends_is_given_up_after_a_month(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, take_and_be_silent=True) as (client, bird):
        with pytest.raises(WorldError):
            await client.ask("Speak!", provider=bird.pubkey, deadline_s=0.5).done()
        await recovered(client)
        assert len(await client.world.store.read("purchase_open")) == 1
        LaterClock.ahead_s = 33 * 86_400
        try:
            await recovered(client)
        finally:
            LaterClock.ahead_s = 3_600
        assert await client.world.store.read("purchase_open") == []
        assert (await client.keepsakes.purchases())[0]["code"] == "provider-silent"
