"""A wallet that buys in a loop until it is killed: `python -m tests.crash.shopper PLAN.json`.

The plan names the state folder, the market, the ways to pay, and whether to buy or only to finish
what earlier lives left open; then the process ends by itself when nothing is open any more.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from nostrllm.errors import NostrllmError
from nostrllm.service.client import Client

#: How an order is paid, and what else moves money.
Mode = Literal["token", "account"]
MODES: Final[tuple[Mode, ...]] = ("token", "account")

FUND_SAT: Final = 4_000
LOW_SAT: Final = 1_000
TOPUP_SAT: Final = 200
AT_ONCE: Final = 4
#: An order that got lost is given up a few seconds after this.
DEADLINE_S: Final = 5.0
LATE_S: Final = 10


@dataclass(frozen=True)
class Plan:
    """What a shopper is to do."""

    state: str
    relay: str
    mint: str
    provider: str
    modes: tuple[Mode, ...]
    finish: bool = False

    def write(self, path: Path) -> None:
        """Leave it for the process."""
        path.write_text(json.dumps(asdict(self)))


async def _fund(client: Client) -> None:
    if sum((await client.wallet.balance()).values()) < LOW_SAT:
        quote = await client.wallet.fund(FUND_SAT)
        await client.wallet.claim(quote.quote, wait_s=5.0)


async def _order(client: Client, plan: Plan, mode: Mode) -> None:
    if mode == "account" and random.random() < 0.2:
        await client.topup(plan.provider, TOPUP_SAT)
    if mode == "account" and random.random() < 0.1:
        await client.refund(plan.provider)
    change: Literal["ecash", "account"] = random.choice(("ecash", "ecash", "account"))
    answer = client.ask(
        "What is the capital of France?",
        provider=plan.provider,
        max_tokens=32,
        pay=mode,
        change=change,
        deadline_s=DEADLINE_S,
    )
    await answer.done()


async def _again_and_again(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except NostrllmError:  # the other side is dead, or money is short for a moment
            await asyncio.sleep(0.1)


async def _buy(client: Client, plan: Plan) -> None:
    async def one() -> None:
        await _fund(client)
        await _order(client, plan, random.choice(plan.modes))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(_again_and_again(one))


async def _finish(client: Client) -> None:
    """Resume until nothing is open that anybody will ever answer."""
    while await _open(client) or await client._world.purse.pending():
        try:
            await client.resume()
        except NostrllmError:
            await asyncio.sleep(0.1)


async def _open(client: Client) -> bool:
    """Is there a purchase to finish? One from an account, which nobody took, stays for a month."""
    late = client._world.square.now_s() - LATE_S
    return any(
        left.bargain is None
        or left.bargain.pay == "token"
        or left.reply is not None
        or left.bargain.deadline > late
        for left in await client._buyer.left_open()
    )


async def _main(plan: Plan, up: Path) -> None:
    async with Client(state=plan.state, relays=[plan.relay], mint=plan.mint) as client:
        up.touch()  # noqa: ASYNC240 - a file made once
        await (_finish(client) if plan.finish else _buy(client, plan))


if __name__ == "__main__":
    PATH = Path(sys.argv[1])
    VALUES = json.loads(PATH.read_text())
    asyncio.run(_main(Plan(**{**VALUES, "modes": tuple(VALUES["modes"])}), PATH.with_suffix(".up")))
