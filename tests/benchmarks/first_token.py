"""What the market adds to the time until the first piece of an answer is there.

`python -m tests.benchmarks.first_token [--model FILE.gguf | --engine URL]`: the same request goes
to the bare engine and through a relay, the daemon and back, paid from an account and with a token;
one at a time, in turns. Without an engine named, a mock answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import uvloop

from nostrllm.adapters.engine_openai import OpenAIEngine
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.core import coins
from nostrllm.crypto.bdhke import blind
from nostrllm.ports import Mint
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft
from nostrllm.wire.token import BlindedMessage
from tests.benchmarks.buyer import TOKEN_SAT, Shopper
from tests.benchmarks.figures import RUNS, Figure, load, show
from tests.benchmarks.stage import Mock, Stage, staged
from tests.roles.market import CLOCK, Buyer, buying, question

FEE_SAT = 1  # the mint's 100 ppk for the one coin of a payment


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds to the first piece, the median of one run for each way."""

    bare: float
    account: float
    token: float
    hop: float
    swap: float


async def main(orders: int, runs: int, stage: Stage, folder: Path) -> list[Figure]:
    """Runs of all ways in turns."""
    engine = OpenAIEngine(stage.engine_url)
    needed = runs * orders * (TOKEN_SAT + 8) + 300 + 10 * orders * runs
    async with (
        buying(stage.relay.url, stage.mint.url, folder, needed * 2) as buyer,
        CashuMints() as mints,
    ):
        mint = mints.at(stage.mint.url)
        price = await buyer.price(stage.provider_pubkey)
        shopper = Shopper(buyer, stage, price)
        await shopper.top_up(200 + 10 * orders * runs)
        await shopper.buy()
        found = [await one_run(orders, shopper, engine, mint) for _ in range(runs)]
    bare = [times.bare for times in found]
    account = [times.account for times in found]
    token = [times.token for times in found]
    hops = [2 * times.hop for times in found]
    swap = [2 * times.hop + times.swap for times in found]
    return [
        Figure("bare engine", "ms", bare),
        Figure("paid from an account", "ms", account, "bare engine", bare),
        Figure("paid with a token", "ms", token, "bare engine", bare),
        Figure("added, account", "ms", _minus(account, bare), "two relay hops", hops),
        Figure("added, token", "ms", _minus(token, bare), "two hops and a swap", swap),
    ]


async def one_run(orders: int, shopper: Shopper, engine: OpenAIEngine, mint: Mint) -> Times:
    """Every way `orders` times, in turns, so that all meet the same machine."""
    ways: tuple[list[float], ...] = ([], [], [], [], [])
    bare, account, token, relay, swap = ways
    buyer, upstream = shopper.buyer, shopper.stage.upstream
    for _ in range(orders):
        bare.append(await first_token_s(engine, upstream))
        account.append((await shopper.buy()).first_s)
        payment = await buyer.token(TOKEN_SAT)
        token.append((await shopper.buy(payment)).first_s)
        relay.append(await hop_s(buyer))
        swap.append(await swap_s(buyer, mint))
    return Times(*(statistics.median(way) * 1_000 for way in ways))


async def first_token_s(engine: OpenAIEngine, upstream: str) -> float:
    """The request without a market, read to its end."""
    body = {**question("What is the capital of France?").as_body(), "model": upstream}
    began = time.perf_counter()
    first = 0.0
    async with aclosing(engine.stream(body)) as deltas:
        async for _ in deltas:
            first = first or time.perf_counter()
    return first - began


async def hop_s(buyer: Buyer) -> float:
    """An ephemeral event of a gift wrap's kind, published and received on another subscription."""
    async with buyer.listening() as replies:
        tags = (("p", replies.key.pubkey),)
        event = await buyer.me.sign(Draft(kinds.CHUNK, "x" * 680, int(CLOCK.now()), tags))
        began = time.perf_counter()
        await buyer.relays.cast(event)
        async with asyncio.timeout(10):
            async for _ in replies.chunks:
                return time.perf_counter() - began
    raise AssertionError


async def swap_s(buyer: Buyer, mint: Mint) -> float:
    """A payment's swap as the bare mint does it; the coins are thrown away."""
    token = await buyer.purse.send(secrets.token_hex(8), mint.url, "sat", TOKEN_SAT)
    keyset = token.proofs[0].id
    outputs = [
        BlindedMessage(amount, keyset, blind(secrets.token_hex(32), secrets.token_bytes(32)))
        for amount in coins.ladder(TOKEN_SAT - FEE_SAT)
    ]
    began = time.perf_counter()
    await mint.swap(token.proofs, outputs)
    return time.perf_counter() - began


def _minus(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, others, strict=True)]


def run(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.first_token", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", type=Path, help="weights for llama.cpp, started here")
    which.add_argument("--engine", help="the URL of a model server, ending in /v1")
    parser.add_argument("--orders", type=int, default=20, help="of each kind in a run")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args(argv)
    before = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with staged(folder, given.model or given.engine or Mock()) as stage:
            figures = uvloop.run(main(given.orders, given.runs, stage, folder))
    what = given.model.name if given.model else given.engine or "mock engine"
    show(f"time to first piece, {given.orders} orders × {given.runs} runs, {what}", figures, before)


if __name__ == "__main__":
    run()
