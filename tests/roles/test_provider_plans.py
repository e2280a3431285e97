"""Plans: bought, used, renewed once a period whatever crashes, and cancelled with what is left."""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.errors import ConfigError
from nostrllm.ports import Clock, Row, Store
from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.provider.subscribers import Subscribers
from nostrllm.service.config import ProviderConfig
from nostrllm.wire import order as wire
from tests.adapters.scripted import scripted
from tests.purse.world import Crash, CrashingStore
from tests.roles.market import Stall, config_text, selling
from tests.roles.test_provider_audit import Customer, customer, model

COST = 25_200
PLANS = """
[[plan]]
id = "pack"
price_msat = 40_000
period_s = 86_400
quota_msat = 60_000

[[plan]]
id = "half"
price_msat = 10_000
period_s = 86_400
percent = 50

[[plan]]
id = "first"
price_msat = 5_000
period_s = 3_600
priority = 7
"""


@dataclass
class Member:
    """A provider with plans, and a client with 202 sat in his account."""

    stall: Stall
    who: Customer

    @property
    def store(self) -> Store:
        return self.stall.world.store

    async def subscribe(self, plan: str, **fields: Any) -> wire.Answer | wire.Refused:
        await self.who.send(wire.Subscribe(reply=self.who.reply, plan=plan, **fields))
        return await self.said()

    async def unsubscribe(self) -> wire.Answer | wire.Refused:
        await self.who.send(wire.Unsubscribe(reply=self.who.reply))
        return await self.said()

    async def said(self) -> wire.Answer | wire.Refused:
        while not isinstance(message := await self.who.replies.next(), wire.Answer | wire.Refused):
            continue
        return message

    async def buy(self, text: str = "Hello?") -> wire.Result:
        return await self.who.answered(text, c=secrets.token_hex(32), chunk_ms=None)

    async def plan(self) -> wire.PlanState | None:
        await self.who.send(wire.Query(reply=self.who.reply, what="plans"))
        answer = await self.who.answer()
        assert [one.id for one in answer.plans or []] == ["pack", "half", "first"]
        return answer.plan

    async def rows(self) -> list[Row]:
        return await self.store.read("subscriptions_all")

    async def clean(self) -> None:
        wrong = [one for one in audit(await read_books(self.store)) if not one.ok]
        assert wrong == []


@dataclass(frozen=True)
class LaterClock:
    """A clock that is so many seconds ahead."""

    clock: Clock
    ahead_s: float

    def now(self) -> float:
        return self.clock.now() + self.ahead_s

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


def later(one: Member, ahead_s: float, **crash: int) -> Subscribers:
    """Another process on the same rows, so much later, that crashes at a commit."""
    daemon, world = one.stall.daemon, one.stall.world
    store = CrashingStore(world.store, **crash)
    moved = replace(world, store=store, clock=LaterClock(world.clock, ahead_s))
    return Subscribers(moved, daemon._shop, daemon._letterbox)


@asynccontextmanager
async def member(relay: str, mint: str, tmp: Path, plans: str = PLANS) -> AsyncIterator[Member]:
    async with scripted(model) as engine:
        text = config_text(tmp / "stall", [relay], mint, engine.url) + plans
        async with (
            selling(text) as stall,
            customer(relay, mint, tmp, stall.pubkey) as who,
        ):
            assert (await who.top_up(203)).balance_msat == 202_000
            yield Member(stall, who)


async def test_a_quota_pays_before_the_balance_and_what_is_left_comes_back(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        assert await one.plan() is None
        refused = await one.subscribe("gold")
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "plan-unknown"
        bought = await one.subscribe("pack")
        assert isinstance(bought, wire.Answer)
        assert (bought.balance_msat, bought.state) == (162_000, "done")
        assert bought.plan is not None
        assert bought.plan.quota_left_msat == 60_000
        refused = await one.subscribe("half")
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "plan-active"
        for quota, cost in ((COST, 0), (COST, 0), (60_000 - 2 * COST, 3 * COST - 60_000)):
            result = await one.buy()
            assert ((result.quota_msat or 0), result.cost_msat) == (quota, cost)
            if cost:
                break
            left = await one.plan()
            assert left is not None
        failed = await one.buy("fail")
        assert (failed.cost_msat, failed.quota_msat) == (0, None)
        left = await one.plan()
        assert left is not None
        assert left.quota_left_msat == 0
        ended = await one.unsubscribe()
        assert isinstance(ended, wire.Answer)
        assert ended.plan is None
        assert ended.balance_msat == 162_000 - (3 * COST - 60_000)  # the quota is used up
        assert -(await one.stall.books())["income"] == 40_000 + 3 * COST - 60_000
        await one.clean()


async def test_an_unused_plan_comes_back_whole_but_for_its_seconds(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        await one.subscribe("pack", renew=True)
        again = await one.subscribe("pack")  # only the standing order changes
        assert isinstance(again, wire.Answer)
        assert again.balance_msat == 162_000
        assert again.plan is not None
        assert not again.plan.renew
        failed = await one.buy("fail")
        assert failed.cost_msat == 0
        ended = await one.unsubscribe()
        assert isinstance(ended, wire.Answer)
        assert ended.balance_msat is not None
        assert 201_900 <= ended.balance_msat <= 202_000
        await one.clean()


async def test_half_the_price(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        await one.subscribe("half")
        result = await one.buy()
        assert result.cost_msat == COST // 2
        await one.clean()


async def test_a_plan_costs_no_more_than_was_agreed(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        for most in (9_999, 0):
            refused = await one.subscribe("half", price_msat=most)
            assert isinstance(refused, wire.Refused)
            assert refused.problem.code == "price-changed"
        bought = await one.subscribe("half", price_msat=10_000)
        assert isinstance(bought, wire.Answer)
        assert bought.balance_msat == 192_000
        kept = await one.subscribe("half", renew=True, price_msat=0)
        assert isinstance(kept, wire.Answer)
        assert (kept.balance_msat, kept.plan and kept.plan.renew) == (192_000, True)
        await one.clean()


async def test_lower_prices_are_not_had_for_nothing_by_cancelling_after_each_order(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        await one.subscribe("half")
        result = await one.buy()
        assert result.cost_msat == COST // 2
        ended = await one.unsubscribe()
        # 10 sat bought a saving of 12.6: all of the plan's price is used up.
        assert isinstance(ended, wire.Answer)
        assert (ended.plan, ended.balance_msat) == (None, 202_000 - COST // 2 - 10_000)
        await one.clean()


async def test_a_standing_order_is_carried_out_once_whatever_crashes(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        await one.subscribe("pack", renew=True)
        period_s = 86_400
        for number in (1, 2):
            crashes: list[dict[str, int]] = [{"before": 1}, {"after": 1}, {}]
            for crash in crashes:
                process = later(one, number * period_s + 5 * number, **crash)
                try:
                    await process.sweep()
                except Crash:
                    continue
            rows = await one.rows()
            assert [row["state"] for row in rows] == ["ended"] * number + ["active"]
            assert rows[-1]["id"].endswith(f":{number}")
            books = await one.stall.books()
            me = one.who.buyer.me.pubkey
            assert -books[f"account:{me}"] == 202_000 - 40_000 * (number + 1)
            assert -books["income"] == 40_000 * number
        await one.clean()


async def test_a_standing_order_ends_when_the_balance_does_not_reach_or_terms_got_worse(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with member(relay_url, mint_url, tmp_path) as one:
        me, to = one.who.buyer, one.stall.pubkey
        await me.say(to, "/plans")
        told = await me.heard(to)
        assert "pack: 60 sat of answers, 40 sat for 1 days" in told
        await me.say(to, "/subscribe pack renew")
        assert "renewed at" in await me.heard(to)
        await one.who.refund()
        process = later(one, 86_400 + 5)
        await process.open()
        assert await process.current(me.me.pubkey) is None
        assert await process.current(me.me.pubkey) is None
        assert "has ended. It was not renewed" in await me.heard(to)
        assert [row["state"] for row in await one.rows()] == ["ended"]
        await me.say(to, "/unsubscribe")
        assert "[plan-unknown]" in await me.heard(to)
        await me.say(to, "/subscribe")
        assert "the plan's name" in await me.heard(to)
        await me.say(to, "/subscribe first")
        assert "your balance is" in await me.heard(to)
        await one.clean()


@pytest.mark.parametrize(
    "wrong",
    [
        PLANS.replace("priority = 7", ""),
        PLANS.replace("percent = 50", "percent = 50\nquota_msat = 5"),
        PLANS.replace('"half"', '"pack"'),
    ],
)
def test_a_plan_has_one_benefit_and_a_name_of_its_own(wrong: str, tmp_path: Path) -> None:
    text = config_text(tmp_path / "s", ["wss://r.example"], "https://m.example", "http://e") + wrong
    with pytest.raises(ConfigError, match="plan"):
        ProviderConfig.model_validate(tomllib.loads(text)).shop("0")
