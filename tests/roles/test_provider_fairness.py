"""Somebody sends a hundred orders: nine others, who send one each, hardly notice.

Waits are counted in turns, the orders that the engine began before: how fast the machine is makes
no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from nostrllm.ports import Signer
from nostrllm.wire import order as wire
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import KEYRING, Buyer, Stall, buying, config_text, question, selling

FLOOD = 100
OTHERS = 9
PLACE = "orders_per_author_max = 200\nletters_per_minute_max = 100000\nqueue_max = "


@dataclass
class Line:
    """An engine with one slot: who was served, in order, and a gate that is shut at first."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    served: list[str] = field(default_factory=list)

    async def script(self, request: Wire) -> None:
        self.served.append(request.body["messages"][-1]["content"])
        await request.open()
        await self.gate.wait()
        for _ in range(8):
            await request.text("word ")
        await request.text("end", finish_reason="stop")
        await request.end()


@asynccontextmanager
async def shop(
    relay: str, mint: str, folder: Path, queue_max: int
) -> AsyncIterator[tuple[Line, Stall, Buyer]]:
    """A provider with one slot, and somebody with a wallet and a balance there."""
    line = Line()
    async with scripted(line.script) as engine:
        text = config_text(folder / "stall", [relay], mint, engine.url, f"{PLACE}{queue_max}")
        text = text.replace("slots = 2", "slots = 1")
        async with selling(text) as stall, buying(relay, mint, folder, 2_500) as buyer:
            async with buyer.listening() as replies:
                reply = wire.ReplyTo(key=replies.key.pubkey, relays=[relay])
                top_up = wire.TopUp(reply=reply, token=await buyer.token(1_500))
                await buyer.send(buyer.message(top_up), stall.pubkey)
                await replies.next()
            yield line, stall, buyer


async def ask(stall: Stall, buyer: Buyer, key: Signer, text: str, *, by_token: bool) -> None:
    payment: wire.TokenPayment | wire.AccountPayment = wire.AccountPayment()
    if by_token:
        payment = wire.TokenPayment(token=await buyer.token(20))
    order = await buyer.order(
        stall.pubkey,
        payment,
        reply=key,
        body=question(text, max_tokens=16),
        ceiling_msat=10_000,
        deadline=(1 << 40) - 1,
    )
    await buyer.send(buyer.message(order), stall.pubkey)


async def until_paid(stall: Stall, count: int) -> None:
    """Wait until so many orders are paid for and wait, or run."""
    async with asyncio.timeout(120):
        while sum(row["state"] == "paid" for row in await stall.orders()) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_served(line: Line, texts: set[str]) -> list[str]:
    """Open the gate; what was served up to the last of these."""
    line.gate.set()
    async with asyncio.timeout(120):
        while not texts <= set(line.served):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return line.served


@pytest.mark.parametrize("queue_max", [250, 32])
async def test_nine_wait_hardly_longer_for_somebody_who_floods(
    queue_max: int, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    names = [f"other {n}" for n in range(OTHERS)]
    async with shop(relay_url, mint_url, tmp_path, queue_max) as (line, stall, flooder):
        key = KEYRING.signer()
        # A short line is never the flooder's alone: half of it stays free.
        taken = FLOOD if queue_max > FLOOD * 2 else 1 + queue_max // 2
        for n in range(FLOOD):
            await ask(stall, flooder, key, f"flood {n}", by_token=False)
        await until_paid(stall, taken)
        for name in names:
            other = replace(flooder, me=KEYRING.signer())
            await ask(stall, other, key, name, by_token=True)
        await until_paid(stall, taken + OTHERS)
        before = len(line.served)
        served = await until_served(line, set(names))
        turns = sorted(served.index(name) - before for name in names)
        # Alone the first would wait no turn, the last eight.
        assert all(wait <= 2 * alone + 1 for alone, wait in enumerate(turns))
        assert [name for name in served if name.startswith("other")] == names


@pytest.mark.nightly
async def test_two_who_flood_share_what_is_left(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with shop(relay_url, mint_url, tmp_path, 500) as (line, stall, buyer):
        key = KEYRING.signer()
        other = replace(buyer, me=KEYRING.signer())
        for n in range(60):
            await ask(stall, buyer, key, f"a {n}", by_token=False)
        for n in range(20):
            await ask(stall, other, key, f"b {n}", by_token=True)
        await until_paid(stall, 80)
        before = len(line.served)
        served = (await until_served(line, {"b 19"}))[before:]
        for n in range(1, len(served)):
            a, b = (sum(name.startswith(who) for name in served[:n]) for who in "ab")
            assert abs(a - b) <= 3
