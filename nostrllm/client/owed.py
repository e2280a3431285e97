"""Orders that are over while their locked coins are still out: until the change is ours.

The provider hands us the mint's signatures, or the mint itself does; where neither comes the coins
are taken back after the locktime, and what the answer cost is owed to the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from nostrllm.client.bargain import Bargain, Breach
from nostrllm.client.letters import EXPIRY_S, Line, letter, post
from nostrllm.client.locked import GRACE_S, Found, promised_units
from nostrllm.client.purchases import Purchase, Purchases
from nostrllm.client.replies import Replies
from nostrllm.client.settle import Settler
from nostrllm.client.world import World
from nostrllm.errors import LocalError, NostrllmError
from nostrllm.ports import Conflict, Write
from nostrllm.wire.order import NewOutputs, ReplyTo, Result, Settled


class Debts:
    """Brings to their end what providers owe us."""

    def __init__(self, world: World, purchases: Purchases, settler: Settler) -> None:
        self._world = world
        self._purchases = purchases
        self._settler = settler

    async def wait(
        self, purchase: Purchase, replies: Replies, early: Sequence[Settled], wait_s: float
    ) -> Purchase:
        """Hear what the provider says after the result, for so long; then ask the mint.

        What has to wait longer is left to `resume`.
        """
        clock = self._world.square.clock
        end, came = clock.monotonic() + wait_s, list(early)
        try:
            while purchase.locked:
                if came:
                    purchase = await self.heard(purchase, came.pop(0))
                    continue
                async with asyncio.timeout(max(0.0, end - clock.monotonic())):
                    message = await replies.next()
                if isinstance(message, Settled) and message.order == purchase.id:
                    came.append(message)
        except TimeoutError:
            with suppress(NostrllmError):
                purchase = await self.tend(purchase)
        except NostrllmError:
            return purchase
        return purchase

    async def heard(self, purchase: Purchase, message: Settled) -> Purchase:
        """Take what a `settled` brings: signatures, credit, or the wish for other outputs.

        Raises OutcomeUnknown or RelayError when that has to wait.
        """
        bargain, result = _ended(purchase)
        if message.problem is not None:
            wanted = message.problem.code == "payment-outputs-stale"
            if wanted and promised_units(bargain, result):
                await self._renew(purchase, bargain)
            return purchase
        coin = bargain.coin_msat
        credit_msat, wrong, writes = await self._credited(purchase, bargain, message)
        least = promised_units(bargain, result) - credit_msat // coin
        found = Found()
        if message.signed is not None and bargain.takes(message.signed.mint, message.signed.unit):
            found = await self._settler.locks.take(purchase, message.signed, least)
        elif not credit_msat:
            found = await self._settler.locks.look(purchase)
        wrong += found.wrong
        if not found.over and (least > 0 or not credit_msat):  # the rest is still to come
            if writes:
                await self._world.store.commit(*writes)
            return await self._purchases.found(purchase, wrong)
        if found.units < least:
            wrong.append("change-short")
        return await self._close(purchase, wrong, writes)

    async def tend(self, purchase: Purchase) -> Purchase:
        """Ask the mint alone: is the change signed, are the coins taken, is their time over?

        Raises OutcomeUnknown.
        """
        bargain, result = _ended(purchase)
        least = promised_units(bargain, result)
        found = await self._settler.locks.look(purchase)
        taken = not found.over and await self._world.purse.taken(purchase.token_op)
        if taken and least:  # perhaps between the two questions
            found = await self._settler.locks.look(purchase)
        wrong = list(found.wrong)
        if found.over:
            wrong += ["change-short"] if found.units < least else []
            return await self._close(purchase, wrong)
        lock = await self._settler.locks.of(purchase)
        over = lock is None or await self._settler.locks.is_over(lock)
        if taken and (over or not least):
            return await self._close(purchase, [*wrong, "change-unsigned"] if least else wrong)
        if taken:
            return await self._purchases.found(purchase, wrong)
        return await self._back(purchase, result, wrong)

    async def _back(self, purchase: Purchase, result: Result, wrong: list[Breach]) -> Purchase:
        """Take coins back that the provider never took, and remember what is due to him."""
        grace_s = GRACE_S if result.cost_msat else 0
        if not await self._settler.reclaim(purchase, grace_s=grace_s):
            return await self._purchases.found(purchase, wrong)
        every = (*purchase.breaches, *wrong)
        writes = await self._settler.locks.closing(purchase, gone=False)
        due = result.cost_msat > 0 and not every
        return await self._purchases.unlocked(purchase, wrong, writes, locked="due" if due else "")

    async def _close(
        self, purchase: Purchase, wrong: Sequence[Breach], writes: Sequence[Write] = ()
    ) -> Purchase:
        closing = await self._settler.locks.closing(purchase, gone=True)
        try:
            return await self._purchases.unlocked(purchase, wrong, [*closing, *writes])
        except Conflict:  # somebody else was quicker
            return await self._purchases.get(purchase.n)

    async def _credited(
        self, purchase: Purchase, bargain: Bargain, message: Settled
    ) -> tuple[int, list[Breach], list[Write]]:
        """Change that went to the account: so much, if a statement has it, and its write.

        That is for outputs which the mint cannot sign any more; else it is withheld.
        """
        if not message.credit_msat:
            return 0, [], []
        proved, wrong = await self._settler.statements.judged(purchase, bargain, message)
        if proved is None:
            return 0, wrong, []
        if not await self._settler.locks.stale(purchase, bargain):
            wrong.append("change-withheld")
        return message.credit_msat, wrong, Purchases.statement(bargain.provider, proved)

    async def _renew(self, purchase: Purchase, bargain: Bargain) -> None:
        """Send other outputs, of the keyset that the mint uses now; they are stored before."""
        if not await self._settler.locks.stale(purchase, bargain):
            return
        renewed = await self._settler.locks.renewed(purchase, bargain)
        if renewed is None or purchase.id is None:
            return
        write, outputs = renewed
        await self._world.store.commit(write)
        signer = self._world.reply(purchase.n)
        reply = ReplyTo(key=signer.pubkey, relays=list(bargain.reply_relays))
        line = Line(bargain.provider, bargain.relays, self._world.buyer(bargain.provider))
        message = NewOutputs(reply=reply, order=purchase.id, outputs=outputs)
        square = self._world.square
        expiration = max(bargain.locktime, square.now_s()) + EXPIRY_S
        await post(square, line, letter(square, line, message), expiration)


def _ended(purchase: Purchase) -> tuple[Bargain, Result]:
    if purchase.bargain is None or not isinstance(purchase.reply, Result):
        raise LocalError("the order is not over")
    return purchase.bargain, purchase.reply
