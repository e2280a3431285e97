"""How much processor one paid order costs the provider, and how many orders go through a second.

`python -m tests.benchmarks.orders`: a real relay and mint, the daemon as its own process, a mock
engine, 8 orders at a time; paid from one account, streamed and whole, from 8 accounts, one order of
each at a time, and each with a token of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.core import coins
from nostrllm.wire.token import parse_token
from tests.benchmarks import floors
from tests.benchmarks.buyer import TOKEN_SAT, Shopper
from tests.benchmarks.figures import RUNS, Figure, cpu_s, load, show
from tests.benchmarks.stage import Mock, Stage, staged
from tests.roles.market import CLOCK, KEYRING, Buyer, buying

IDLE_S = 0.1
IDLE_CPU_S = 0.002


@dataclass(frozen=True, slots=True)
class Options:
    """How much of what."""

    orders: int
    at_once: int
    runs: int
    mock: Mock
    chunk_ms: int
    folder: Path


@dataclass(slots=True)
class Series:
    """What the runs of one way to pay gave; one value per run in each list."""

    name: str
    cpu_ms: list[float] = field(default_factory=list)
    mint_cpu_ms: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    curve_ms: list[float] = field(default_factory=list)
    commits_per_s: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Its lines of the table."""
        name = self.name
        found = [
            Figure(
                f"{name}: provider CPU per order",
                "ms",
                self.cpu_ms,
                "curve operations",
                self.curve_ms,
            ),
            Figure(
                f"{name}: orders a core",
                "/s",
                [1_000 / cpu_ms for cpu_ms in self.cpu_ms],
                "curve operations",
                [1_000 / curve_ms for curve_ms in self.curve_ms],
                rate=True,
            ),
            Figure(
                f"{name}: orders, wall clock",
                "/s",
                self.per_s,
                "one fsync each",
                self.commits_per_s,
                rate=True,
            ),
        ]
        if any(self.chunks):
            found.append(Figure(f"{name}: stream events before the result", "", self.chunks))
        if name == "token":
            found.append(Figure(f"{name}: mint CPU per order", "ms", self.mint_cpu_ms))
        return found


async def main(options: Options, stage: Stage) -> list[Figure]:
    """All series, a run of one after a run of the other."""
    account, whole, token = Series("account"), Series("account, whole"), Series("token")
    many, many_whole = Series("accounts"), Series("accounts, whole")
    orders = options.orders
    needed = options.runs * orders * (TOKEN_SAT + 32) + 160 * options.at_once + 8 * orders
    async with buying(stage.relay.url, stage.mint.url, options.folder, needed * 2) as buyer:
        price = await buyer.price(stage.provider_pubkey)
        shopper = Shopper(buyer, stage, price, options.chunk_ms)
        await shopper.top_up(70 * options.at_once + 10 * orders * options.runs)
        crowd = [
            replace(shopper, buyer=replace(buyer, me=KEYRING.signer()))
            for _ in range(options.at_once)
        ]
        for each in crowd:
            await each.top_up(80 + 10 * orders * options.runs // options.at_once)
        await shopper.buy()  # first times are not steady state
        for _ in range(options.runs):
            await measure(options, [shopper], account, [None] * orders)
            await measure(options, silent([shopper]), whole, [None] * orders)
            await measure(options, crowd, many, [None] * orders)
            await measure(options, silent(crowd), many_whole, [None] * orders)
            await measure(options, [shopper], token, await wallet_tokens(buyer, orders))
    every = (account, whole, many, many_whole, token)
    return [figure for series in every for figure in series.figures()]


def silent(shoppers: Sequence[Shopper]) -> list[Shopper]:
    """The same, who want no stream."""
    return [replace(shopper, chunk_ms=None) for shopper in shoppers]


async def wallet_tokens(buyer: Buyer, count: int) -> list[str | None]:
    """Tokens made beforehand: what the buyer's wallet does is not measured."""
    return [await buyer.token(TOKEN_SAT) for _ in range(count)]


async def measure(
    options: Options,
    shoppers: Sequence[Shopper],
    series: Series,
    payments: Sequence[str | None],
) -> None:
    """One run: the floors, then all orders, then the provider's quiet end."""
    series.commits_per_s.append(floors.commits_per_s(options.folder, 200))
    stage = shoppers[0].stage
    waiting = deque(payments)
    chunks: list[int] = []

    async def work(shopper: Shopper) -> None:
        while waiting:
            bought = await shopper.buy(waiting.popleft())
            chunks.append(bought.chunks)

    await idle(stage.provider.pid)
    cpu, mint_cpu = cpu_s(stage.provider.pid), cpu_s(stage.mint.pid)
    # A connection of its own: after some 1,300 REQs on one, the devnet's relay closes new ones.
    async with WebsocketRelays([stage.relay.url], KEYRING, CLOCK) as relays:
        fresh = [replace(each, buyer=replace(each.buyer, relays=relays)) for each in shoppers]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(options.at_once):
                group.create_task(work(fresh[number % len(fresh)]))
        wall_s = time.perf_counter() - began
    await idle(stage.provider.pid)
    count = len(payments)
    series.cpu_ms.append((cpu_s(stage.provider.pid) - cpu) * 1_000 / count)
    series.mint_cpu_ms.append((cpu_s(stage.mint.pid) - mint_cpu) * 1_000 / count)
    series.per_s.append(count / wall_s)
    mean_chunks = sum(chunks) / count
    series.chunks.append(mean_chunks)
    series.curve_ms.append(curve(round(mean_chunks), payments[0]).cpu_ms(200))


def curve(chunks: int, token: str | None) -> floors.Curve:
    """The curve operations of one such order."""
    if token is None:
        return floors.account_order(chunks)
    proofs = parse_token(token).proofs
    fee = -(-len(proofs) * 100 // 1_000)  # the mint's 100 ppk
    return floors.token_order(chunks, len(proofs) + len(coins.ladder(TOKEN_SAT - fee)))


async def idle(pid: int) -> None:
    """Wait until the process has done what it does after the last reply."""
    used = -1.0
    while cpu_s(pid) - used > IDLE_CPU_S:
        used = cpu_s(pid)
        await asyncio.sleep(IDLE_S)


def run(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.orders", description=__doc__)
    parser.add_argument("--orders", type=int, default=100, help="orders in a run")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--chunks", type=int, default=20, help="chunks of the mock's answer")
    parser.add_argument("--pause-ms", type=int, default=0, help="between two of them")
    parser.add_argument("--chunk-ms", type=int, default=250, help="the order's stream interval")
    given = parser.parse_args(argv)
    before = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mock = Mock(given.chunks, given.pause_ms)
        options = Options(given.orders, given.at_once, given.runs, mock, given.chunk_ms, folder)
        with staged(folder, mock, slots=given.at_once) as stage:
            figures = uvloop.run(main(options, stage))
    show(
        f"{given.orders} orders × {given.runs} runs, {given.at_once} at once, mock engine with "
        f"{given.chunks} chunks",
        figures,
        before,
    )


if __name__ == "__main__":
    run()
