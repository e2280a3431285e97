"""Finish what a crash, or a mint that did not answer, left behind.

An order whose answer was not settled is paid back whole: the prompt was never stored, so nobody is
answered and refunded both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.order import Failed, Paid
from nostrllm.errors import WorldError
from nostrllm.ports import Write
from nostrllm.provider.accounts import Accounts
from nostrllm.provider.draw import stored_ticket
from nostrllm.provider.payments import Payments
from nostrllm.provider.serve import Counter, paid_writes
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import Written, post, ticket_of
from nostrllm.provider.tidy import Tidying

SWEEP_S: Final = 30.0
AT_ONCE: Final = 4

#: A row whose mint does not answer is tried again after a minute, then after twice as long, …
PAUSE_S_MAX: Final = 3_600.0

Finish = Callable[[str], Awaitable[bool]]
UNTOLD_S: Final = 7 * 86_400
SPENT_EVERY_S: Final = 600.0

#: Gift wraps come again for two days at most; a message is remembered for longer.
HEARD_KEEP_S: Final = 7 * 86_400

#: A payment request that nobody paid is known for a year.
REQUEST_KEEP_S: Final = 365 * 86_400

log = structlog.get_logger()


class Recovery:
    """Runs at the start, and then every half minute for what is still open."""

    def __init__(
        self,
        world: World,
        counter: Counter,
        settler: Settler,
        accounts: Accounts,
        payments: Payments,
    ) -> None:
        self._world = world
        self._counter = counter
        self._settler = settler
        self._accounts = accounts
        self._payments = payments
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tidying = Tidying(world)
        self._waiting: dict[str, tuple[float, float]] = {}

    async def sweep(self) -> int:
        """Finish every order and transfer that nothing in this process works on.

        Each on its own: what cannot be finished is reported and tried again, later each time, and
        keeps nothing else waiting. Returns how many are still open.
        """
        store, since = self._world.store, self._world.now_s() - UNTOLD_S
        work: list[tuple[str, Finish]] = []
        work += [(row["id"], self._finish_order) for row in await store.read("orders_open")]
        work += [(row["id"], self._finish_transfer) for row in await store.read("transfers_open")]
        work += [(row["id"], self._payments.finish) for row in await store.read("payments_waiting")]
        for row in await store.read("orders_untold", since=since):
            work.append((row["id"], self._tell_order))
        for row in await store.read("transfers_untold", since=since):
            work.append((row["id"], self._tell_transfer))
        due = [item for item in work if self._is_due(item[0])]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guarded(*item)) for item in due]
        self._forget({item[0] for item in work})
        return sum(not task.result() for task in tasks)

    def _is_due(self, row_id: str) -> bool:
        _, next_s = self._waiting.get(row_id, (0.0, 0.0))
        parts = (self._counter, self._accounts, self._payments)
        busy = any(part.runs(row_id) for part in parts)
        return not busy and self._world.clock.monotonic() >= next_s

    def _forget(self, open_ids: set[str]) -> None:
        self._waiting = {key: when for key, when in self._waiting.items() if key in open_ids}

    async def run(self) -> None:
        """Sweep for ever, and notice change that has been spent."""
        spent_at = self._world.clock.monotonic()
        while True:
            await self._world.clock.sleep(SWEEP_S)
            await self.sweep()
            if self._world.clock.monotonic() - spent_at > SPENT_EVERY_S:
                spent_at = self._world.clock.monotonic()
                await self.book_spent_change()
                if not self._counter.open_orders:
                    await self._tidying.tidy()
                now = self._world.now_s()
                await self._world.store.commit(
                    Write("heard_prune", {"before": now - HEARD_KEEP_S}),
                    Write("request_prune", {"before": now - REQUEST_KEEP_S}),
                )

    async def book_spent_change(self) -> int:
        """Take change that the mint saw spent out of the books. Returns how many tokens it was."""
        rows = await self._world.store.read("change_unspent")
        lines = {
            str(row["id"]): ledger.change_spent(
                row["id"], ledger.coins(row["mint"], row["unit"]), int(row["msat"])
            )
            for row in rows
        }
        now = self._world.now_s()
        spent = await self._world.purse.watch_sent(
            lambda owner: post(f"spent:{owner}", lines.get(owner, ()), now)
        )
        return len(spent)

    async def _guarded(self, row_id: str, finish: Finish) -> bool:
        done = False
        async with self._at_once:
            try:
                done = await finish(row_id)
            except WorldError as error:
                log.warning("recovery_waits", order=row_id[:16], code=error.code)
            except Exception:  # the supervisor of one row: the others must not wait for it
                log.exception("recovery_failed", order=row_id[:16])
        if not done:
            pause, _ = self._waiting.get(row_id, (SWEEP_S / 2, 0.0))
            pause = min(pause * 2, PAUSE_S_MAX)
            self._waiting[row_id] = (pause, self._world.clock.monotonic() + pause)
        return done

    async def _finish_order(self, row_id: str) -> bool:
        ticket = await stored_ticket(self._world.store, row_id)
        if ticket.order.state == "paying":
            outcome = await self._world.purse.run(row_id, paid_writes(ticket, self._world))
            if outcome.state == "PREPARED":
                return False
            if outcome.state == "REJECTED":
                await self._counter.tell_refused(ticket, outcome)
                return True
            paid = Paid(outcome.net * ticket.order.unit_msat)
            ticket = replace(ticket, order=ticket.order.handle(paid))
        if ticket.order.state in ("paid", "running"):
            log.info("order_paid_back", order=row_id[:16])
            await self._settler.settle(ticket, Failed("generation-failed"), Written())
        return True

    async def _finish_transfer(self, row_id: str) -> bool:
        return await self._accounts.finish(row_id)

    async def _tell_order(self, row_id: str) -> bool:
        row = (await self._world.store.read("order_get", id=row_id))[0]
        await self._counter.tell_refused(ticket_of(row))
        return True

    async def _tell_transfer(self, row_id: str) -> bool:
        await self._accounts.tell(row_id)
        return True
