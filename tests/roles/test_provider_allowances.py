"""An owner lets another key spend: up to the limit and no further, however many ask at once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nostrllm.adapters.keys_sdk import to_npub
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.ports import Conflict, Write
from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.provider.shop import STORE_PARTS
from nostrllm.wire import order as wire
from tests.adapters.scripted import scripted
from tests.roles.market import Stall, config_text, selling
from tests.roles.test_provider_audit import Customer, customer, model

COST = 25_200


@dataclass
class Family:
    """A provider, the owner of an account of 200 sat, and a child with nothing."""

    stall: Stall
    owner: Customer
    child: Customer

    async def allow(self, limit_msat: int, **fields: Any) -> wire.Answer:
        key = self.child.buyer.me.pubkey
        message = wire.Allow(reply=self.owner.reply, key=key, limit_msat=limit_msat, **fields)
        await self.owner.send(message)
        return await self.owner.answer()

    async def buy(self, text: str = "Hello?", *, ceiling: int = 60_000) -> None:
        of = self.owner.buyer.me.pubkey
        order = await self.child.buyer.order(
            self.child.to,
            wire.AccountPayment(of=of),
            reply=self.child.replies.key,
            ceiling_msat=ceiling,
            c=secrets.token_hex(32),
            chunk_ms=None,
            body=wire.ChatRequest(messages=[wire.ChatMessage(role="user", content=text)]),
        )
        await self.child.send(order)

    async def ends(self, count: int = 1) -> list[wire.Result | wire.Refused]:
        found: list[wire.Result | wire.Refused] = []
        while len(found) < count:
            message = await self.child.replies.next()
            if isinstance(message, wire.Result | wire.Refused):
                found.append(message)
        return found

    async def used_msat(self) -> int:
        await self.owner.send(wire.Query(reply=self.owner.reply, what="allowances"))
        [state] = (await self.owner.answer()).allowances or []
        return state.used_msat

    async def balance(self) -> int:
        rows = await self.stall.world.store.read("account_get", pubkey=self.owner.buyer.me.pubkey)
        return int(rows[0]["balance_msat"])

    async def clean(self) -> None:
        wrong = [one for one in audit(await read_books(self.stall.world.store)) if not one.ok]
        assert wrong == []


@asynccontextmanager
async def family(relay: str, mint: str, tmp: Path) -> AsyncIterator[Family]:
    async with scripted(model) as engine:
        text = config_text(tmp / "stall", [relay], mint, engine.url)
        async with (
            selling(text) as stall,
            customer(relay, mint, tmp, stall.pubkey) as owner,
            customer(relay, mint, tmp, stall.pubkey) as child,
        ):
            assert (await owner.top_up(203)).balance_msat == 202_000
            yield Family(stall, owner, child)


async def test_a_child_spends_what_it_may_and_the_rest_goes_back(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with family(relay_url, mint_url, tmp_path) as home:
        await home.buy()
        [refused] = await home.ends()
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "account-insufficient"
        answer = await home.allow(90_000)
        assert answer.allowances is not None
        assert [one.limit_msat for one in answer.allowances] == [90_000]
        await home.buy()
        [result] = await home.ends()
        assert isinstance(result, wire.Result)
        assert (result.cost_msat, result.credit_msat) == (COST, 60_000 - COST)
        assert result.statement is None  # the balance is the owner's
        assert await home.used_msat() == COST
        assert await home.balance() == 202_000 - COST
        await home.buy("fail")
        [failed] = await home.ends()
        assert isinstance(failed, wire.Result)
        assert await home.used_msat() == COST
        gone = wire.Disallow(reply=home.owner.reply, key=home.child.buyer.me.pubkey)
        await home.owner.send(gone)
        assert (await home.owner.answer()).allowances == []
        await home.buy()
        [refused] = await home.ends()
        assert isinstance(refused, wire.Refused)
        await home.clean()


async def test_no_number_of_orders_at_once_passes_the_limit(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with family(relay_url, mint_url, tmp_path) as home:
        await home.allow(2 * COST + 20_000)
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(home.buy(ceiling=30_000))
        ends = await home.ends(6)
        answered = [one for one in ends if isinstance(one, wire.Result) and one.cost_msat]
        assert 1 <= len(answered) < 6
        spent = sum(one.cost_msat for one in answered)
        assert await home.used_msat() == spent <= 2 * COST + 20_000
        assert await home.balance() == 202_000 - spent
        await home.clean()


async def test_a_person_allows_in_a_message_and_a_person_spends(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with family(relay_url, mint_url, tmp_path) as home:
        owner, child, to = home.owner.buyer, home.child.buyer, home.stall.pubkey
        npub = to_npub(child.me.pubkey)
        await owner.say(to, "/allow")
        assert "No other key" in await owner.heard(to)
        await owner.say(to, f"/allow {npub} 50 day")
        told = await owner.heard(to)
        assert f"{npub}: 50 sat left of 50 sat per 86400 s" in told
        await child.say(to, "Hello?")
        said = await child.heard_until(to, "Cost ")
        assert said[0] == "Hello."
        assert said[-1].startswith("Cost 5.96 sat")  # all that 64 tokens can cost
        assert "balance" not in said[-1]
        assert await home.balance() == 202_000 - 5_960
        for age_s, told in ((0, "No other key"), (1, "no allowance")):
            await owner.say(to, f"/disallow {npub}", age_s=age_s)
            assert told in await owner.heard(to)
        await owner.say(to, f"/allow {to_npub(owner.me.pubkey)} 5")
        assert "another public key" in await owner.heard(to)
        await child.say(to, "And now?")
        assert "It has not run yet" in (await child.heard_until(to, "not run yet"))[-1]
        await home.clean()


async def test_what_a_period_gives_back_does_not_reach_the_next(tmp_path: Path) -> None:
    """The rule of core/allowance, in the one statement that takes."""
    async with SqliteStore.open(tmp_path / "provider.db", STORE_PARTS) as store:

        async def take(msat: int, at: int) -> bool:
            values = {"grant_id": "g", "msat": msat, "at": at}
            try:
                await store.commit(Write("allowance_take", values, rows=1))
            except Conflict:
                return False
            return True

        async def give(msat: int, taken_at: int) -> int:
            values = {"grant_id": "g", "msat": msat, "taken_at": taken_at}
            await store.commit(Write("allowance_give", values))
            return int((await store.read("allowance_get", owner="o", child="c"))[0]["used_msat"])

        put = {"owner": "o", "child": "c", "grant_id": "g", "limit_msat": 100, "period_s": 60}
        await store.commit(Write("allowance_put", {**put, "expires_at": 1_200, "at": 1_000}))
        assert await take(100, 1_001)
        assert not await take(1, 1_059)
        assert await give(30, 1_001) == 70
        assert await take(100, 1_061)  # a new period begins
        assert await give(70, 1_001) == 100  # what the old one did not use is gone with it
        assert await give(40, 1_061) == 60
        assert not await take(1, 1_200)  # it has ended
        await store.commit(Write("allowance_put", {**put, "expires_at": 0, "at": 1_201}))
        assert await give(5, 1_061) == 0
