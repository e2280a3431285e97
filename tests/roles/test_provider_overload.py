"""Ten times more orders than the back-end bears: the rest is refused, at once and for nothing.

Each order is by another client, who pays by a token; one that is refused is still good, and pays
for a later one. The engine takes a fixed time for each.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nostrllm.ports import Signer
from nostrllm.wire import order as wire
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import (
    CLOCK,
    KEYRING,
    Buyer,
    Replies,
    Stall,
    buying,
    config_text,
    question,
    selling,
)

SLOTS = 2
TOKENS = 80
OVERLOAD = 10
PATIENCE_S = 12
#: A refusal is on its way so soon after the message came, for 19 of 20.
REFUSED_MS_MAX = 100.0


@dataclass
class Kitchen:
    """An engine that takes `service_s` for each answer; when it began which."""

    service_s: float
    began: dict[str, float] = field(default_factory=dict)

    async def script(self, request: Wire) -> None:
        self.began[request.body["messages"][-1]["content"]] = time.monotonic()
        await asyncio.sleep(self.service_s)
        await request.open()
        await request.text("Done.", finish_reason="stop")
        await request.end()


@dataclass
class Said:
    """What was answered: by order id, and when."""

    accepted: dict[str, tuple[float, int]] = field(default_factory=dict)
    refused: dict[str, wire.Problem] = field(default_factory=dict)
    results: dict[str, wire.Result] = field(default_factory=dict)

    @property
    def over(self) -> int:
        return len(self.refused) + len(self.results)

    async def hear(self, replies: Replies) -> None:
        while True:
            message = await replies.next()
            match message:
                case wire.Accepted():
                    self.accepted[message.order] = (time.monotonic(), message.wait_s or 0)
                case wire.Refused():
                    self.refused[message.order] = message.problem
                case wire.Result():
                    self.results[message.order] = message
                case _:
                    pass


@dataclass
class Crowd:
    """Clients that nobody knows, with one order each."""

    stall: Stall
    buyer: Buyer
    price: str
    tokens: list[str]
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)  # prompt and token

    async def order(self, n: int, key: Signer, relay: str, said: Said) -> None:
        if not self.tokens:  # those that were refused last are good again
            paid = said.results.keys() | said.accepted.keys()
            used = [order for order in said.refused if order in self.orders]
            assert not paid & set(used)
            self.tokens = [self.orders.pop(order)[1] for order in used]
        token = self.tokens.pop()
        order = wire.Order(
            reply=wire.ReplyTo(key=key.pubkey, relays=[relay]),
            model="smollm2-135m",
            body=question(f"order {n}", max_tokens=16),
            price=self.price,
            ceiling_msat=10_000,
            payment=wire.TokenPayment(token=token),
            deadline=int(CLOCK.now()) + PATIENCE_S,
            c="ab" * 32,
        )
        client = replace(self.buyer, me=KEYRING.signer())
        letter = client.message(order)
        self.orders[letter.id] = f"order {n}", token
        await client.send(letter, self.stall.pubkey)


def resident_kib() -> int:
    """What this process holds in memory."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


async def overloaded(
    relay: str, mint: str, folder: Path, *, service_s: float, seconds: float
) -> Found:
    """Orders for so long, ten times as many as can be served."""
    kitchen, said, memory = Kitchen(service_s), Said(), list[int]()
    pause = service_s / SLOTS / OVERLOAD
    count = int(seconds / pause)
    async with scripted(kitchen.script) as engine:
        text = config_text(folder / "stall", [relay], mint, engine.url)
        async with selling(text) as stall, buying(relay, mint, folder, TOKENS * 21) as buyer:
            tokens = [await buyer.token(16) for _ in range(TOKENS)]
            async with buyer.listening() as replies:
                crowd = Crowd(stall, buyer, await buyer.price(stall.pubkey), tokens)
                hearing = asyncio.create_task(said.hear(replies))
                with capture_logs() as logs:
                    for n in range(count):
                        due = asyncio.create_task(asyncio.sleep(pause))
                        await crowd.order(n, replies.key, relay, said)
                        await due
                        if n % (count // 4) == 0:
                            memory.append(resident_kib())
                    async with asyncio.timeout(60):
                        while said.over < count and not hearing.done():
                            await asyncio.wait([hearing], timeout=0.1)
                hearing.cancel()
            await stall.books()
    took = [each["took_ms"] for each in logs if each["event"] == "order_refused"]
    return Found(kitchen, said, crowd, count, took, memory)


@dataclass
class Found:
    """What came of it; how long refusals took (ms), and the memory in each quarter (KiB)."""

    kitchen: Kitchen
    said: Said
    crowd: Crowd
    count: int
    took: list[float]
    memory: list[int]


def check(found: Found) -> None:
    """What holds under overload."""
    kitchen, said, crowd, took = found.kitchen, found.said, found.crowd, sorted(found.took)
    assert said.over == found.count  # everybody was answered
    assert len(said.refused) >= found.count * 0.6
    for problem in said.refused.values():
        assert problem.code == "busy"
        assert problem.retry_after_s
    failed = [each for each in said.results.values() if each.problem is not None]
    assert len(failed) <= len(said.results) // 20
    # Who was told a wait had his turn by then, give or take a service and a second.
    late = 0
    for order, (at, wait_s) in said.accepted.items():
        began = kitchen.began.get(crowd.orders[order][0], math.inf)
        late += began - at > wait_s + kitchen.service_s + 1
    assert late <= len(said.accepted) // 20
    assert len(took) == len(said.refused)
    assert took[len(took) * 95 // 100] <= REFUSED_MS_MAX
    assert found.memory[-1] - found.memory[1] < 16 * 1_024


async def test_ten_times_the_capacity(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    check(await overloaded(relay_url, mint_url, tmp_path, service_s=1.0, seconds=10))


@pytest.mark.nightly
async def test_ten_times_the_capacity_for_long(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    check(await overloaded(relay_url, mint_url, tmp_path, service_s=1.0, seconds=120))
