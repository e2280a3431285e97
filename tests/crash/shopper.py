"""A wallet that buys in a loop until it is killed: `python -m tests.crash.shopper PLAN.json`.

The plan names the state folder, the market, the ways to pay, and whether to buy or only to finish
what earlier lives left open; then the process ends by itself when nothing is open any more, but for
coins that are locked to a provider who never took them: those come back after their locktime.
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

from nostrllm.client.letters import line_to, whisper
from nostrllm.client.purchases import Purchase
from nostrllm.errors import NostrllmError
from nostrllm.service.client import Client
from nostrllm.wire.order import ReplyTo, TopUp

#: How an order is paid, and what else moves money.
Mode = Literal["token", "locked", "account"]
MODES: Final[tuple[Mode, ...]] = ("token", "locked", "account")
#: What to do: buy, finish what somebody may still answer, or everything, all locktimes being over.
Task = Literal["buy", "finish", "finish-locked"]

FUND_SAT: Final = 4_000
LOW_SAT: Final = 1_000
TOPUP_SAT: Final = 200
AT_ONCE: Final = 4
#: An order that got lost is given up a few seconds after this.
DEADLINE_S: Final = 10.0
LATE_S: Final = 10


@dataclass(frozen=True)
class Plan:
    """What a shopper is to do."""

    state: str
    relay: str
    mint: str
    provider: str
    modes: tuple[Mode, ...]
    task: Task = "buy"

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
    if mode == "account" and random.random() < 0.1:
        await _ask_for_an_invoice(client, plan)
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


async def _ask_for_an_invoice(client: Client, plan: Plan) -> None:
    """Of the provider, for our account with him; the mint's invoices pay themselves."""
    world = client._world
    line = line_to(world, await client.market.offer(plan.provider))
    reply = ReplyTo(key=world.reply(0).pubkey, relays=[plan.relay])
    await whisper(world.square, line, TopUp(reply=reply, lightning_msat=TOPUP_SAT * 1_000))


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


async def _finish(client: Client, task: Task) -> None:
    """Resume until nothing is open that anybody will ever answer."""
    while await _is_open(client, task):
        try:
            await client.resume()
        except NostrllmError:
            await asyncio.sleep(0.1)


async def _is_open(client: Client, task: Task) -> bool:
    """Is there anything to finish?"""
    left = await client._buyer.left_open()
    if task == "finish":
        waiting = [one for one in left if await _waits(client, one)]
        left = [one for one in left if one not in waiting]
        locks = client._buyer.settler.locks
        ladders = {name for one in waiting for name in await locks.ladders(one)}
    else:
        left = [one for one in left if one.bargain is None or one.bargain.pay != "account"]
        ladders = set[str]()
    return bool(left or {name for name, _ in await client._world.purse.pending()} - ladders)


async def _waits(client: Client, left: Purchase) -> bool:
    """Did the provider not take this, so that it is open until its locktime, or for a month?"""
    purse, late = client._world.purse, client._world.square.now_s() - LATE_S
    if left.reply is not None or (left.bargain is not None and left.bargain.deadline > late):
        return False
    if await purse.lock_of(left.token_op) is not None:  # perhaps he never heard of it
        return await purse.state_of(left.token_op) == "DONE" and not await purse.taken(
            left.token_op
        )
    return left.bargain is not None and left.bargain.pay != "token"


async def _main(plan: Plan, up: Path) -> None:
    async with Client(state=plan.state, relays=[plan.relay], mint=plan.mint) as client:
        up.touch()  # noqa: ASYNC240 - a file made once
        await (_buy(client, plan) if plan.task == "buy" else _finish(client, plan.task))


if __name__ == "__main__":
    PATH = Path(sys.argv[1])
    VALUES = json.loads(PATH.read_text())
    asyncio.run(_main(Plan(**{**VALUES, "modes": tuple(VALUES["modes"])}), PATH.with_suffix(".up")))
