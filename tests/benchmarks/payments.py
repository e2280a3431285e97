"""What each way to be paid costs the mint and us, side by side at one mint.

`python -m tests.benchmarks.payments`: orders of 64 in, 21 of work, 42 of change (the mint's fee is
one), two at a time, the ways in turns in each run. Coins and outputs are made before the clock
runs, so what is timed is the payment alone: of a provider who redeems a token and then swaps again
for the change, of one who makes a ladder of it (payment A), of locked tokens settled one by one and
fifty at a time (payment B), and of accounts, which need no mint. Then what it costs to take a
locked token offline: read, judged, and written down.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
import time
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nostrllm.core import coins, ledger
from nostrllm.core.order import Settlement
from nostrllm.crypto.bdhke import public_key_of, sign_witness
from nostrllm.devnet.children import Child, start_mint, start_relay
from nostrllm.ports import Keyset, Mint, Write
from nostrllm.provider.locked import Locks
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import post
from nostrllm.provider.tokens import Offered
from nostrllm.provider.trial import Trials
from nostrllm.purse.operation import Own
from nostrllm.purse.till import Counters, Pace, Till, keyset_in_use
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import opened
from nostrllm.wire.token import BlindedMessage, Proof, Token, encode_token, parse_token
from tests.benchmarks import floors
from tests.benchmarks.figures import RUNS, Figure, cpu_s, load, show
from tests.roles.market import config_text

WORTH: Final = 64
CHANGE: Final = 42
BATCH: Final = 50
AT_ONCE: Final = 2
#: Coins that are issued in one request to the mint.
ISSUE: Final = 50

SECRET: Final = secrets.token_bytes(32)
LOCK_S: Final = 36_000

Rows = tuple[list[Own], list[BlindedMessage]]
Order = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Bench:
    """A provider's parts, and one mint."""

    world: World
    shop: Shop
    till: Till
    mint: Mint
    keyset: Keyset
    process: Child

    def rows(self, amounts: Sequence[int], lock: tuple[str, int] | None = None) -> Rows:
        """Fresh outputs and where they derive from."""
        start = secrets.randbits(48)
        own = [Own(amount, start + n, lock=lock) for n, amount in enumerate(amounts)]
        return own, [self.till.output(self.keyset.id, each) for each in own]

    def outputs(self, amounts: Sequence[int]) -> list[BlindedMessage]:
        """Fresh outputs."""
        return self.rows(amounts)[1]

    async def coins(self, count: int, lock: tuple[str, int] | None = None) -> list[Proof]:
        """So many coins of 64, locked or not, fresh from the mint."""
        found: list[Proof] = []
        while len(found) < count:
            own, outputs = self.rows([WORTH] * min(ISSUE, count - len(found)), lock)
            quote = await self.mint.quote_mint(WORTH * len(own), "sat")
            while (await self.mint.mint_quote(quote.quote)).state == "UNPAID":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            signed = await self.mint.mint(quote.quote, outputs)
            found += [
                self.till.unblind(each, output, signature, self.keyset)
                for each, output, signature in zip(own, outputs, signed, strict=True)
            ]
        return found

    async def locked(self, count: int) -> list[Proof]:
        """Coins of 64 that are locked to us, with the witness that takes them."""
        lock = (public_key_of(SECRET), int(time.time()) + LOCK_S)
        aux = secrets.token_bytes(32)
        return [
            replace(proof, witness=sign_witness(proof.secret, SECRET, aux))
            for proof in await self.coins(count, lock)
        ]


# the ways; each gives what one order, or one batch of them, does


async def redeem_then_change(bench: Bench, orders: int) -> list[Order]:
    """Swap the token; swap what is needed of it for the change."""
    into = [bench.rows(coins.split(WORTH - 1)) for _ in range(orders)]
    change = [bench.outputs(coins.split(CHANGE)) for _ in range(orders)]
    tokens = await bench.coins(orders)

    def order(n: int) -> Order:
        async def run() -> None:
            own, outputs = into[n]
            signed = await bench.mint.swap([tokens[n]], outputs)
            held = [
                bench.till.unblind(each, output, signature, bench.keyset)
                for each, output, signature in zip(own, outputs, signed, strict=True)
            ]
            spent = coins.exact(held, CHANGE + 1)
            assert spent is not None
            await bench.mint.swap(spent, change[n])

        return run

    return [order(n) for n in range(orders)]


async def ladder(bench: Bench, orders: int) -> list[Order]:
    """Payment A: one swap into coins of which any change can be made."""
    into = [bench.outputs(coins.ladder(WORTH - 1)) for _ in range(orders)]
    tokens = await bench.coins(orders)
    return [lambda n=n: bench.mint.swap([tokens[n]], into[n]) for n in range(orders)]  # type: ignore[misc]


async def settled(bench: Bench, orders: int, batch: int) -> list[Order]:
    """Payment B: locked tokens into our coins and the clients' change, `batch` in one swap."""
    tokens = await bench.locked(orders)
    found: list[Order] = []
    for start in range(0, orders, batch):
        inputs = tokens[start : start + batch]
        fee = -(-sum(bench.keyset.fee_ppk for _ in inputs) // 1_000)
        ours = len(inputs) * (WORTH - CHANGE) - fee
        change = [amount for _ in inputs for amount in coins.split(CHANGE)]
        outputs = sorted(
            bench.outputs([*coins.split(ours), *change]), key=lambda one: (one.amount, one.B_)
        )
        found.append(lambda inputs=inputs, outputs=outputs: bench.mint.swap(inputs, outputs))  # type: ignore[misc]
    return found


async def account(bench: Bench, orders: int) -> list[Order]:
    """An order from an account: its hold and its end in the books, each on disk."""
    who, store, now = secrets.token_hex(32), bench.world.store, bench.world.now_s()
    await store.commit(Write("account_add", {"pubkey": who, "msat": WORTH * 1_000 * orders}))

    def order() -> Order:
        name, hold = secrets.token_hex(32), WORTH * 1_000
        split = Settlement(21_000, 0, hold - 21_000)

        async def run() -> None:
            take = Write("account_take", {"pubkey": who, "msat": hold}, rows=1)
            held = ledger.account_held(name, who, hold)
            await store.commit(take, *post(f"held:{name}", held, now))
            add = Write("account_add", {"pubkey": who, "msat": split.credit_msat})
            end = ledger.settled(name, who, split, 1_000)
            await store.commit(add, *post(f"settled:{name}", end, now))

        return run

    return [order() for _ in range(orders)]


WAYS: Final[dict[str, Callable[[Bench, int], Awaitable[list[Order]]]]] = {
    "redeem, then change": redeem_then_change,
    "A, ladder": ladder,
    "B, single": lambda bench, orders: settled(bench, orders, 1),
    f"B, {BATCH} in a swap": lambda bench, orders: settled(bench, orders, BATCH),
    "account": account,
}


@dataclass(frozen=True, slots=True)
class Took:
    """Per order: CPU of the mint and of ourselves in ms; and orders a second."""

    mint_ms: float
    own_ms: float
    per_s: float


async def timed(bench: Bench, orders: int, work: Sequence[Order]) -> Took:
    """Do the work, two at a time."""
    left = iter(work)
    pid = bench.process.pid
    began, own, mint = time.perf_counter(), time.process_time(), cpu_s(pid)

    async def line() -> None:
        for order in left:
            await order()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(line())
    return Took(
        (cpu_s(pid) - mint) * 1_000 / orders,
        (time.process_time() - own) * 1_000 / orders,
        orders / (time.perf_counter() - began),
    )


# taking a token offline


@dataclass(frozen=True, slots=True)
class Offline:
    """Locked tokens taken per second of our CPU: judged; judged and on disk; and the floor."""

    judged: float
    written: float
    floor: float


async def offline(bench: Bench, count: int) -> Offline:
    """Read, judge and write down so many locked tokens of one coin, each with outputs."""
    key = PaymentKey(SECRET)
    key.open("benchmark")
    locks = Locks(bench.world, bench.shop, key, Trials(bench.world, bench.shop, key))
    deadline = int(time.time()) + 60
    lock = (key.public, deadline + 7_200)
    texts = [
        encode_token(Token(bench.mint.url, "sat", (proof,)))
        for proof in await bench.coins(count, lock)
    ]
    ladders = [tuple(bench.outputs(coins.ladder(WORTH))) for _ in range(count)]

    def offers() -> list[Offered]:
        return [
            Offered(secrets.token_hex(32), "ab" * 32, parse_token(text), outputs, deadline)
            for text, outputs in zip(texts, ladders, strict=True)
        ]

    began = time.process_time()
    for each in offers():
        await locks.judge(each)
    judged = count / (time.process_time() - began)
    began = time.process_time()

    async def take(each: Offered) -> None:
        await bench.world.store.commit(*locks.accepted(await locks.judge(each)))

    async with asyncio.TaskGroup() as group:
        for each in offers():
            group.create_task(take(each))
    written = count / (time.process_time() - began)
    # a DLEQ proof is six multiplications; a point per coin and output, and the coin's own
    need = floors.Curve(multiply=6, hash_to_curve=1 + len(ladders[0]))
    return Offline(judged, written, 1_000 / need.cpu_ms(200))


# the whole


async def figures(bench: Bench, orders: int, runs: int) -> list[Figure]:
    """All ways in turns, so many times."""
    took: dict[str, list[Took]] = {name: [] for name in WAYS}
    taken: list[Offline] = []
    for _ in range(runs):
        for name, way in WAYS.items():
            work = await way(bench, orders)
            took[name].append(await timed(bench, orders, work))
        taken.append(await offline(bench, orders))
    first, single = took["redeem, then change"], took["B, single"]
    found = []
    for name, each in took.items():
        bare = [one.mint_ms for one in first]
        found.append(
            Figure(f"{name}: mint CPU", "ms", [one.mint_ms for one in each], "redeem…", bare)
        )
        found.append(Figure(f"{name}: our CPU", "ms", [one.own_ms for one in each]))
        found.append(Figure(f"{name}: orders", "/s", [one.per_s for one in each]))
    batched = [one.mint_ms for one in took[f"B, {BATCH} in a swap"]]
    bare = [one.mint_ms for one in single]
    found.append(Figure("batched against single: mint CPU", "ms", batched, "B, single", bare))
    floor = [one.floor for one in taken]
    for what, values in (
        ("judged", [one.judged for one in taken]),
        ("judged and on disk", [one.written for one in taken]),
    ):
        name = f"locked token {what}, of our CPU"
        found.append(Figure(name, "/s", values, "curve", floor, rate=True))
    return found


async def benched(folder: Path, relay: Child, mint: Child, orders: int, runs: int) -> list[Figure]:
    """Open a provider's store beside the mint and measure."""
    text = config_text(folder / "stall", [relay.url], mint.url, "http://127.0.0.1:9")
    config = ProviderConfig.model_validate(tomllib.loads(text))
    shop = config.shop("0.0.0")
    async with AsyncExitStack() as stack:
        world, seed = await stack.enter_async_context(opened(config, shop))
        at = world.mints.at(mint.url)
        keyset = keyset_in_use(await at.keysets(), "sat", ())
        till = Till(world.store, world.mints, world.clock, seed, Counters(world.store), Pace())
        return await figures(Bench(world, shop, till, at, keyset, mint), orders, runs)


def run(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.payments", description=__doc__)
    parser.add_argument("--orders", type=int, default=200, help="of each way in a run")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args(argv)
    before = load()
    with (
        tempfile.TemporaryDirectory() as name,
        start_relay(Path(name) / "relay") as relay,
        start_mint(Path(name) / "mint") as mint,
    ):
        found = asyncio.run(benched(Path(name), relay, mint, given.orders, given.runs))
    show(f"{given.orders} orders × {given.runs} runs, {AT_ONCE} at once", found, before)


if __name__ == "__main__":
    run()
