"""Finish what a crash, or a mint that did not answer, left behind.

An order whose answer was not settled is paid back whole: the prompt was never stored, so nobody is
answered and refunded both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.order import Failed, Paid
from nostrllm.errors import WorldError
from nostrllm.ports import Row, Write
from nostrllm.provider.accounts import Accounts
from nostrllm.provider.serve import Counter, paid_writes
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import Ticket, Written, post, ticket_of

SWEEP_S: Final = 30.0
UNTOLD_S: Final = 7 * 86_400
SPENT_EVERY_S: Final = 600.0

#: Gift wraps come again for two days at most; a message is remembered for longer.
HEARD_KEEP_S: Final = 7 * 86_400

log = structlog.get_logger()


class Recovery:
    """Runs at the start, and then every half minute for what is still open."""

    def __init__(
        self, world: World, counter: Counter, settler: Settler, accounts: Accounts
    ) -> None:
        self._world = world
        self._counter = counter
        self._settler = settler
        self._accounts = accounts

    async def sweep(self) -> int:
        """Finish every order and transfer that nothing in this process works on.

        Returns how many are still open: their mint has not answered.
        """
        still_open = 0
        for row in await self._world.store.read("orders_open"):
            if not self._counter.runs(row["id"]):
                still_open += not await self._guarded(row, self._finish_order)
        for row in await self._world.store.read("transfers_open"):
            if not self._accounts.runs(row["id"]):
                still_open += not await self._guarded(row, self._finish_transfer)
        since = self._world.now_s() - UNTOLD_S
        for row in await self._world.store.read("transfers_untold", since=since):
            if not self._accounts.runs(row["id"]):
                await self._accounts.tell(row["id"])
        return still_open

    async def run(self) -> None:
        """Sweep for ever, and notice change that has been spent."""
        spent_at = self._world.clock.monotonic()
        while True:
            await self._world.clock.sleep(SWEEP_S)
            await self.sweep()
            if self._world.clock.monotonic() - spent_at > SPENT_EVERY_S:
                spent_at = self._world.clock.monotonic()
                await self.book_spent_change()
                before = self._world.now_s() - HEARD_KEEP_S
                await self._world.store.commit(Write("heard_prune", {"before": before}))

    async def book_spent_change(self) -> int:
        """Take change that the mint saw spent out of the books. Returns how many tokens it was."""
        rows = await self._world.store.read("change_unspent")
        lines = {
            str(row["id"]): ledger.change_spent(row["id"], row["mint"], int(row["msat"]))
            for row in rows
        }
        now = self._world.now_s()
        spent = await self._world.purse.watch_sent(
            lambda owner: post(f"spent:{owner}", lines.get(owner, ()), now)
        )
        return len(spent)

    async def _guarded(self, row: Row, finish: Callable[[Row], Awaitable[bool]]) -> bool:
        try:
            return await finish(row)
        except WorldError as error:
            log.warning("recovery_waits", order=str(row["id"])[:16], code=error.code)
            return False

    async def _finish_order(self, row: Row) -> bool:
        ticket = ticket_of(row)
        if ticket.order.state == "paying":
            paid = await self._pay(ticket)
            if paid is None:
                return False
            ticket = paid
        if ticket.order.state in ("paid", "running"):
            log.info("order_paid_back", order=ticket.id[:16])
            await self._settler.settle(ticket, Failed("generation-failed"), Written())
        return True

    async def _pay(self, ticket: Ticket) -> Ticket | None:
        outcome = await self._world.purse.run(ticket.id, paid_writes(ticket, self._world))
        if outcome.state == "DONE":
            order, _ = ticket.order.handle(Paid(outcome.net * ticket.order.unit_msat))
            return replace(ticket, order=order)
        if outcome.state == "REJECTED":
            code = outcome.code or "payment-token-invalid"
            await self._counter.refuse(
                ticket.address, ticket.id, code, "the mint did not take the token"
            )
            return replace(ticket, order=replace(ticket.order, state="refused"))
        return None

    async def _finish_transfer(self, row: Row) -> bool:
        return await self._accounts.finish(row)
