"""Lightning in and out of accounts, as the daemon sees it.

message → Deposits.ask | Melts.refund → the store → Deposits.run, Melts.run → the reply
"""

from __future__ import annotations

from dataclasses import replace

from nostrllm.ports import Row
from nostrllm.provider.admit import Letter
from nostrllm.provider.deposits import Deposits
from nostrllm.provider.invoices import change_id
from nostrllm.provider.melts import Melts
from nostrllm.provider.reply import Letterbox
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import Job


class Lightning:
    """Both directions."""

    def __init__(
        self, world: World, letterbox: Letterbox, deposits: Deposits, melts: Melts
    ) -> None:
        self._world = world
        self._letterbox = letterbox
        self.deposits = deposits
        self.melts = melts

    def with_invoice(self, letter: Letter, job: Job, invoice: str | None) -> Job:
        """An order whose change pays this invoice, if there is one.

        Raises RemoteError `payment-invoice-invalid`.
        """
        if invoice is None:
            return job
        return replace(job, beside=(*job.beside, *self.melts.beside(letter, invoice)))

    async def row(self, message_id: str) -> Row | None:
        """What a message to fill an account, or to pay from it, has come to."""
        rows = await self._world.store.read("deposit_get", id=message_id)
        if rows and rows[0]["state"] == "waiting":
            self.deposits.soon(message_id)
        rows = rows or await self._world.store.read("melt_get", id=message_id)
        return rows[0] if rows else None

    async def send_again(self, order_id: str) -> None:
        """Tell once more how the change of an order was paid out, if it was."""
        await self._letterbox.send_again(change_id(order_id))
