"""Take what a provider's reply brings: change, credit, receipt; and judge it.

The reply is stored before its coins are touched, and the wallet's operation is named after the
purchase, so that a crash anywhere and a reply that comes twice change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from nostrllm.client.bargain import (
    Bargain,
    Breach,
    ProvedReceipt,
    breaches,
    proved_receipt,
)
from nostrllm.client.locked import Locks, locked_until, promised_units
from nostrllm.client.payment import chosen_mints
from nostrllm.client.purchases import (
    NOT_TAKEN,
    Ending,
    Locked,
    Purchase,
    Purchases,
    Settled,
)
from nostrllm.client.statements import Statements
from nostrllm.client.world import World
from nostrllm.errors import (
    CODES,
    LocalError,
    MintRefused,
    NostrllmError,
    OutcomeUnknown,
    RelayError,
    RemoteError,
)
from nostrllm.ports import Write
from nostrllm.wire.event import Event
from nostrllm.wire.order import Answer, Change, Problem, Refused, Result, Usage
from nostrllm.wire.token import parse_token


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer, and where the money went; amounts in msat.

    paid = `cost_msat` + `fee_msat` + `change_msat` + `credit_msat`, if the provider is honest:
    `breaches` names each way in which he was not. `change_msat` is what he sent back, before the
    mint's fee for taking it; `pending_msat` of it is still to come, without anybody's doing. Of
    change by Lightning `paid_out_msat` left the account, fee included; or `not_paid_out` says why
    it stays there.
    """

    order_id: str
    provider: str
    model: str
    text: str
    usage: Usage
    cost_msat: int
    fee_msat: int
    change_msat: int
    credit_msat: int
    estimate_msat: int
    ceiling_msat: int
    finish_reason: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, object]] | None = None
    receipt: Event | None = None
    accepted: Event | None = None
    breaches: tuple[Breach, ...] = ()
    problem: Problem | None = None
    pending_msat: int = 0
    paid_out_msat: int = 0
    not_paid_out: Problem | None = None


class Settler:
    """Brings purchases to their end."""

    def __init__(self, world: World, purchases: Purchases) -> None:
        self._world = world
        self._purchases = purchases
        self.statements = Statements(world, purchases)
        self.locks = Locks(world)

    async def settle(
        self,
        purchase: Purchase,
        reply: Result | Answer,
        *,
        seen: bool = True,
        found: Iterable[Breach] = (),
    ) -> tuple[Purchase, Ending]:
        """Store the reply, take its coins, write down the end.

        `seen`: the user is shown the answer now. `found`: breaches that only the caller can see. A
        mint that does not answer leaves the purchase in `settling`, to be finished by a later call
        with the stored reply.
        """
        bargain = _bargain(purchase)
        if purchase.state in ("sent", "accepted"):
            purchase = await self._purchases.settling(purchase, reply)
        wrong = [*found, *(breaches(bargain, reply) if isinstance(reply, Result) else ())]
        if isinstance(reply, Answer) and bargain.invoice:
            wrong += ["fee-altered"] if (reply.paid_msat or 0) > bargain.ceiling_msat else []
        if reply.change is not None and "change-altered" not in wrong:
            wrong += await self._take(purchase, bargain, reply.change)
        locked, writes = await self._unlock(purchase, bargain, reply, wrong)
        receipt = self._receipt(bargain, purchase, reply, wrong)
        statement, untrue = await self.statements.judged(purchase, bargain, reply)
        wrong += untrue
        code = reply.problem.code if reply.problem is not None else ""
        ending = Ending(reply, wrong, receipt, statement, code, seen, locked, writes)
        if "change-pending" not in wrong:
            purchase = await self._purchases.done(purchase, ending)
        return purchase, ending

    async def _unlock(
        self, purchase: Purchase, bargain: Bargain, reply: Result | Answer, wrong: list[Breach]
    ) -> tuple[Locked, Sequence[Write]]:
        """What a result says of locked coins: whether they are still to come, and what to write."""
        if bargain.pay != "locked" or not isinstance(reply, Result):
            return "", ()
        if reply.release is not None and "release-invalid" not in wrong:
            wrong += await self.locks.release(purchase, bargain, reply.release)
            if "release-invalid" not in wrong:
                return "", await self.locks.closing(purchase, gone=False)
        if reply.change is not None and not NOT_TAKEN & set(wrong):  # swapped before any work
            return "", await self.locks.closing(purchase, gone=True)
        if reply.signed is not None and reply.signed.signatures:
            least = promised_units(bargain, reply)
            ended = await self.locks.take(purchase, reply.signed, least)
            wrong += ended.wrong
            if ended.over:
                wrong += ["change-short"] if ended.units < least else []
                return "", await self.locks.closing(purchase, gone=True)
        return "owed", ()

    async def give_up(self, purchase: Purchase, code: str, *, definite: bool = False) -> bool:
        """Take the payment back, if the provider has not; True when nothing is open any more.

        Trying loses nothing: a coin that the provider took is simply not taken back. `definite`: it
        is certain that he will not act on the message, so one that no coin went with is closed.
        """
        bargain = purchase.bargain
        with_token = bargain is None or bargain.pay in ("token", "locked")
        if with_token and not await self.reclaim(purchase):
            return False
        if not with_token and not definite:
            return False
        await self._purchases.failed(purchase, code, await self.locks.closing(purchase, gone=False))
        return True

    async def refused(self, purchase: Purchase, message: Refused) -> bool:
        """Take the payment back after a refusal; True when nothing is open any more.

        Locked coins come back at once by the provider's release, else after their locktime.
        """
        bargain, release = _bargain(purchase), message.release
        if message.problem.code == "payment-outputs-stale":  # the next order's are not
            with suppress(OutcomeUnknown):
                await self._world.mints.at(bargain.mint).keysets(refresh=True)
        if bargain.pay == "locked" and release is not None:
            wrong = await self.locks.release(purchase, bargain, release)
            if not wrong:
                writes = await self.locks.closing(purchase, gone=False)
                await self._purchases.failed(purchase, message.problem.code, writes)
                return True
            if "release-invalid" in wrong:
                await self._purchases.found(purchase, wrong)
        return await self.give_up(purchase, message.problem.code, definite=True)

    async def unsure(self, purchase: Purchase, error: RelayError) -> RelayError:
        """No relay said that it took a message: what to tell, its coins being taken back if they
        are there. Without coins of its own it stays open, for the provider may have it."""
        if await self.give_up(purchase, error.code):
            return error
        then = "it may have arrived all the same, stays open and is looked at again"
        then += locked_until(purchase)
        return RelayError(f"{error.message}; {then}", code=error.code)

    async def reclaim(self, purchase: Purchase, *, grace_s: int = 0) -> bool:
        """Are the coins of this purchase ours again, or were there never any?

        Locked ones not before their locktime and `grace_s` more.
        """
        purse, op_id = self._world.purse, purchase.token_op
        try:
            if (op_id, "send") in await purse.pending():
                made = await purse.run(op_id)
                if made.state == "PREPARED":
                    return False
            lock = await self.locks.of(purchase)
            if lock is not None and not await self.locks.is_over(lock, grace_s=grace_s):
                return await purse.came_back(op_id)
            return (await purse.reclaim(op_id)).state == "DONE"
        except (OutcomeUnknown, RemoteError):
            return False
        except LocalError:  # nothing is out there: it came back, was dust, or was never made
            return not await self._was_taken(op_id)

    async def _was_taken(self, op_id: str) -> bool:
        """Did the operation make a token that did not come back to us?"""
        purse = self._world.purse
        if not await purse.knows(op_id) or (await purse.run(op_id)).state != "DONE":
            return False
        return await purse.token_of(op_id) is None and not await purse.came_back(op_id)

    async def retry(self, purchase: Purchase, found: Sequence[Breach]) -> None:
        """Try once more to take change that was refused, or of a mint the user has chosen since."""
        reply = purchase.reply
        if reply is None or reply.change is None or not reply.change.token:
            return
        left = await self._take(purchase, _bargain(purchase), reply.change)
        if not {"change-pending", *NOT_TAKEN} & set(left):
            kept = [breach for breach in found if breach not in NOT_TAKEN]
            await self._purchases.taken(purchase, [*kept, *left])

    async def _take(self, purchase: Purchase, bargain: Bargain, change: Change) -> list[Breach]:
        try:
            token = parse_token(change.token)
            if not bargain.takes(token.mint, token.unit):
                return ["change-altered"]
            if not bargain.mint and token.mint not in await chosen_mints(self._world):
                return ["mint-unknown"]
            taken = await self._world.purse.receive(purchase.change_op, token)
        except (OutcomeUnknown, MintRefused):
            return ["change-pending"]
        except RemoteError:
            return ["change-refused"]
        if taken.state != "DONE":
            return ["change-pending" if taken.state == "PREPARED" else "change-refused"]
        return ["change-short"] if token.amount < change.amount else []

    def _receipt(
        self, bargain: Bargain, purchase: Purchase, reply: Result | Answer, found: list[Breach]
    ) -> ProvedReceipt | None:
        if isinstance(reply, Answer) or purchase.id is None:
            return None
        try:
            proved = proved_receipt(bargain, purchase.id, reply)
        except RemoteError:
            found.append("receipt-invalid")
            return None
        if proved is None or self._world.square.keyring.verify(proved.event):
            return proved
        found.append("receipt-invalid")
        return None


def outcome(settled: Settled, estimate_msat: int = 0) -> Outcome:
    """The end of an order as the user sees it."""
    result, purchase, bargain = settled.reply, settled.purchase, _bargain(settled.purchase)
    coin = bargain.coin_msat
    change = sum(one.amount for one in (result.change, result.signed) if one is not None)
    released = bargain.paid_msat if result.release is not None else 0
    pending = promised_units(bargain, result) if purchase.locked else 0
    return Outcome(
        order_id=purchase.id or "",
        provider=bargain.provider,
        model=result.model,
        text=result.text,
        usage=result.usage,
        cost_msat=result.cost_msat,
        fee_msat=result.fee_msat,
        change_msat=change * coin + released,
        credit_msat=result.credit_msat,
        estimate_msat=estimate_msat,
        ceiling_msat=bargain.ceiling_msat,
        finish_reason=result.finish_reason,
        reasoning=result.reasoning,
        tool_calls=result.tool_calls,
        receipt=settled.receipt,
        accepted=purchase.accepted,
        breaches=settled.breaches,
        problem=result.problem,
        pending_msat=pending * coin,
    )


def still(ended: Outcome, purchase: Purchase) -> Outcome:
    """The same outcome as it stands now that more of its money came."""
    pending = ended.pending_msat if purchase.locked else 0
    return replace(ended, pending_msat=pending, breaches=purchase.breaches)


def refusal(problem: Problem) -> NostrllmError:
    """A provider's problem as an error of ours; a code we do not know is taken as `internal`."""
    code = problem.code if problem.code in CODES else "internal"
    return RemoteError(f"the provider says: {problem.message}", code=code)


def broken(error: NostrllmError, found: Sequence[Breach]) -> NostrllmError:
    """The error with what else was wrong, so that the one does not hide the other."""
    if not found:
        return error
    message = f"{error.message}; and the bargain was not kept: {', '.join(found)}"
    return RemoteError(message, code=error.code)


def _bargain(purchase: Purchase) -> Bargain:
    if purchase.bargain is None:
        raise LocalError("the purchase was never sent")
    return purchase.bargain
