"""Change that goes out by Lightning: the provider credits it, pays our invoice, and says so.

What he may take for that is written down with the order, so that the balance may fall by it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from nostrllm.client.bargain import Bargain
from nostrllm.client.purchases import Purchase, Purchases
from nostrllm.client.replies import Replies
from nostrllm.client.settle import Outcome, Settler
from nostrllm.client.statements import Known
from nostrllm.client.world import World
from nostrllm.errors import RemoteError
from nostrllm.ports import Write
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.order import Answer


class Payouts:
    """Invoices that the change of orders pays."""

    def __init__(self, world: World, settler: Settler) -> None:
        self._world = world
        self._settler = settler

    def noted(self, bargain: Bargain) -> Write:
        """The write that goes with an order: all its change may leave the account once."""
        now = self._world.square.now_s()
        values = {"limit_msat": bargain.paid_msat, "period_s": 0, "at": now}
        return Write("grant_put", {"provider": bargain.provider, "key": _key(bargain), **values})

    async def wait(
        self, purchase: Purchase, replies: Replies, ended: Outcome, wait_s: float
    ) -> Outcome:
        """Hear how the payment of the invoice ended, for so long; the outcome with that in it."""
        bargain = purchase.bargain
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    message = await replies.next()
                    if isinstance(message, Answer) and message.to == purchase.id:
                        break
        except TimeoutError:
            return ended
        if bargain is None:
            return ended
        now = self._world.square.now_s()
        over = {"provider": bargain.provider, "key": _key(bargain), "at": now, "before": now + 1}
        try:
            proved = await self._settler.statements.proved(
                bargain.provider, bargain.buyer, message.statement, Known(bargain.seq)
            )
        except RemoteError:
            return replace(ended, breaches=(*ended.breaches, "statement-invalid"))
        kept = Purchases.statement(bargain.provider, proved)
        await self._world.store.commit(Write("grant_end", over), *kept)
        return replace(ended, paid_out_msat=message.paid_msat or 0, not_paid_out=message.problem)


def _key(bargain: Bargain) -> str:
    """A name for this payment among those who may take from the account."""
    return f"invoice:{parse_invoice(bargain.invoice).payment_hash}"
