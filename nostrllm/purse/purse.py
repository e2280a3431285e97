"""The purse: coins of one seed, in a store, at any number of mints.

Whatever it asks of a mint is stored first, and whatever becomes of that is stored together with
the caller's own rows. An operation has an id that the caller chooses; the same id never does a
thing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from nostrllm.core import coins
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import LocalError, OutcomeUnknown, RemoteError
from nostrllm.ports import Clock, Conflict, MeltQuote, MintQuote, Mints, Row, Store, Write
from nostrllm.purse import (
    consolidate,
    fund,
    ladder,
    locked,
    melt,
    receive,
    reclaim,
    scan,
    send,
    settle,
    watch,
)
from nostrllm.purse.drive import Driver
from nostrllm.purse.locked import Locked
from nostrllm.purse.operation import (
    Outcome,
    Plan,
    Then,
    mark,
    nothing,
    outcome_of,
    plan_of,
    proof_of,
)
from nostrllm.purse.receive import Unlock, Wanted
from nostrllm.purse.send import Want
from nostrllm.purse.settle import Part
from nostrllm.purse.till import Counters, Pace, Till, keysets_with
from nostrllm.purse.watch import Taken
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof, Token, normal_url

#: Tries to choose coins that something else takes at the same moment.
CHOICES: Final = 8
#: So long is waited for coins that are in a swap.
SWAP_S: Final = 0.25


class Purse:
    """Coins and operations of one seed; one per store. Safe for many tasks at once."""

    def __init__(
        self, store: Store, mints: Mints, clock: Clock, seed: bytes, *, pace: Pace | None = None
    ) -> None:
        """`seed`: 16 to 64 secret bytes; whoever has them has the coins."""
        self._till = Till(store, mints, clock, seed, Counters(store), pace or Pace())
        self._driver = Driver(self._till)
        self._choosing = asyncio.Lock()

    # any operation

    async def run(self, op_id: str, then: Then = nothing) -> Outcome:
        """Bring a stored operation to its end, or as far as the mint lets us now.

        `then` gives the writes to commit with the end, DONE or REJECTED; it must not fail, and is
        not called for an operation that has ended before. An outcome that is PREPARED is not known
        yet: run it again later. Raises Conflict or StoreError from the commit; the operation is
        then as it was.
        """
        return await self._driver.run(op_id, then)

    async def knows(self, op_id: str) -> bool:
        """Was an operation of this id stored?"""
        return await self._till.operation(op_id) is not None

    async def state_of(self, op_id: str) -> str | None:
        """How an operation stands (PREPARED, DONE, REJECTED, SUSPECT); None if there is none."""
        operation = await self._till.operation(op_id)
        return None if operation is None else operation.state

    async def pending(self) -> list[tuple[str, str]]:
        """Id and kind of each operation that has not ended, oldest first; run them at a start."""
        rows = await self._till.store.read("operation_pending")
        return [(row["id"], row["kind"]) for row in rows]

    async def waiting(self, age_s: float) -> list[Row]:
        """Operations begun so long ago of which the mint does not say how they ended, oldest first:
        id, kind, mint, unit, amount, created_at."""
        before = self._till.clock.now() - age_s
        return await self._till.store.read("operation_waiting", before=before)

    async def history(self, count: int = 100) -> list[Row]:
        """The last operations, newest first: id, kind, mint, unit, state, amount, fee, code, times.

        A ladder is there only when something of it was signed, as `change` of that amount.
        """
        return await self._till.store.read("operation_history", count=count)

    async def mints(self, received_as: str) -> set[str]:
        """Mints where coins were bought, found by `scan`, or taken from a token under a name that
        begins with `received_as`."""
        rows = await self._till.store.read("operation_mints", like=f"{received_as}%")
        return {row["mint"] for row in rows}

    async def balance(self) -> Mapping[tuple[str, str], int]:
        """(mint, unit) → units that can be spent."""
        rows = await self._till.store.read("proof_balance")
        return {(row["mint"], row["unit"]): int(row["amount"]) for row in rows}

    async def spendable(self, mint: str, unit: str) -> int:
        """Units that one token can surely have: all free coins, less the fee to swap them all."""
        rows = await self._till.store.read("proof_free", mint=normal_url(mint), unit=unit)
        proofs = [proof_of(row) for row in rows]
        keysets = await keysets_with(self._till.mints.at(mint), {proof.id for proof in proofs})
        return sum(proof.amount for proof in proofs) - coins.fee(proofs, keysets)

    # tokens that come in

    async def plan_receive(
        self,
        op_id: str,
        token: Token,
        *,
        ladder: bool,
        owner: str,
        proof_state: str = "free",
        unlock: Unlock | None = None,
    ) -> Plan:
        """Check a token as far as that goes without the mint's word, and prepare its swap.

        Commit the plan's writes with your own, then `run(op_id)`. `ladder`: the new coins can make
        any change. `unlock` gives the witness of a locked secret, or None to refuse it. Raises
        RemoteError (payment-token-invalid, payment-token-locked-wrong, payment-amount-low,
        payment-mint-unaccepted), OutcomeUnknown when the mint's keys are not known and it does not
        answer.
        """
        wanted = Wanted(ladder, owner, proof_state, unlock)
        plan, outputs = await receive.plan(self._till, op_id, token, wanted)
        self._driver.planned(op_id, outputs)
        return plan

    async def receive(
        self, op_id: str, token: Token, then: Then = nothing, *, unlock: Unlock | None = None
    ) -> Outcome:
        """Take a token in as spendable coins; `unlock` as for `plan_receive`.

        One that the mint refused for anything but being spent is tried again by the next call:
        nothing happens before the mint says that its coins are unspent. Raises as `plan_receive`,
        and `payment-token-spent` for coins seen before.
        """
        state = await self.state_of(op_id)
        if state == "REJECTED":
            await self._till.store.commit(Write("operation_reopen", {"id": op_id}))
        elif state is None:
            plan = await self.plan_receive(op_id, token, ladder=False, owner="", unlock=unlock)
            try:
                await self._till.store.commit(*plan.writes)
            except Conflict:
                if await self._till.operation(op_id) is None:  # not this receive, done just now
                    raise RemoteError(
                        "a coin was seen before", code="payment-token-spent"
                    ) from None
        return await self.run(op_id, then)

    async def claimed_by(self, token: Token) -> set[str]:
        """The operations that coins of this token were seen in."""
        url = normal_url(token.mint)
        found = [
            row["owner"]
            for proof in token.proofs
            for row in await self._till.store.read("claim_owner", mint=url, y=y_of(proof.secret))
        ]
        return set(found)

    # coins kept for somebody

    async def held(self, owner: str) -> list[Proof]:
        """The coins that `owner` holds, largest first."""
        rows = await self._till.store.read("proof_of_owner", owner=owner, state="held")
        return [proof_of(row) for row in rows]

    def choose(self, held: Sequence[Proof], amount: int) -> tuple[list[Proof], list[Proof]]:
        """Coins that sum to `amount` units, and the others. Raises LocalError if none do."""
        chosen = coins.exact(held, amount)
        if chosen is None:
            raise LocalError("the held coins cannot make this amount")
        secrets = {proof.secret for proof in chosen}
        return chosen, [proof for proof in held if proof.secret not in secrets]

    def mark(
        self, proofs: Sequence[Proof], from_state: str, to_state: str, owner: str
    ) -> list[Write]:
        """Writes that move coins of ours; Conflict `proof_mark` if one is not in `from_state`.

        States: free, held, sent, spent. `owner` is who they are for from then on.
        """
        return mark(proofs, from_state, to_state, owner)

    async def token_of(self, owner: str) -> Token | None:
        """The token of the coins sent under this name, until they are known to be taken."""
        rows = await self._till.store.read("proof_of_owner", owner=owner, state="sent")
        if not rows:
            return None
        return Token(rows[0]["mint"], rows[0]["unit"], tuple(map(proof_of, rows)))

    async def watch_sent(self, then: Taken = lambda owner: ()) -> list[str]:
        """Owners whose sent coins were all taken since the last call; those coins are let go.

        `then(owner)`'s writes are committed with that.
        """
        return await watch.watch(self._till, then)

    # tokens that go out

    async def send_out(
        self,
        op_id: str,
        mint: str,
        unit: str,
        amount: int,
        then: Then = nothing,
        *,
        lock: tuple[str, int] | None = None,
    ) -> Outcome:
        """Make a token of `amount` units; `outcome.token`. The mint's fee for a swap is ours.

        Its coins are 'sent' under op_id; with `lock` (public key, locktime in unix seconds) only
        that key can spend them, until then (core.lock). Raises LocalError `wallet-empty` (nothing
        was stored), and as `run`.
        """
        want = Want(normal_url(mint), unit, amount, lock)
        await self._place(op_id, want, then)
        return await self.run(op_id, then)

    async def send(
        self,
        op_id: str,
        mint: str,
        unit: str,
        amount: int,
        *,
        then: Then = nothing,
        lock: tuple[str, int] | None = None,
    ) -> Token:
        """As `send_out`, but the token itself.

        Raises OutcomeUnknown while that is not known (call again), LocalError
        `payment-token-spent` if our own coins were spent elsewhere, or the token was since.
        """
        outcome = await self.send_out(op_id, mint, unit, amount, then, lock=lock)
        if outcome.state == "PREPARED":
            raise OutcomeUnknown("the mint has not said yet what became of the swap")
        if outcome.token is None:
            code = outcome.code or "payment-token-spent"
            raise LocalError("the token could not be made, or is gone", code=code)
        return outcome.token

    async def send_fresh(
        self, op_id: str, mint: str, unit: str, amount: int, key: str = ""
    ) -> Token:
        """As `send`, of coins that are made for it, as few as can be.

        With `key` (33 bytes, hex) nobody else can ever spend them, nor can we.
        """
        lock = (key, 0) if key else None
        await self._place(op_id, Want(normal_url(mint), unit, amount, lock, fresh=True), nothing)
        return await self.send(op_id, mint, unit, amount)

    async def send_fee(self, mint: str, unit: str, amount: int) -> int:
        """What the mint would take now for the swap that makes a token. Raises as `send_out`."""
        return await send.fee(self._till, Want(normal_url(mint), unit, amount))

    async def place_payout(
        self,
        op_id: str,
        where: tuple[str, str],
        budget: int,
        beside: Callable[[Plan], Sequence[Write]],
        then: Then,
    ) -> Plan:
        """Store the send of the largest token that costs `budget` units, its swap's fee included.

        `where`: mint and unit. What `beside` gives is committed with it, and `then`'s writes too if
        the coins are there as they are; else run(op_id, then). `beside` is called again when a coin
        went elsewhere meanwhile. Raises LocalError `wallet-empty`, RemoteError, OutcomeUnknown, and
        the Conflict of any write but our own.
        """
        want = Want(normal_url(where[0]), where[1], budget, most=True)
        if budget < 1:
            raise LocalError("the wallet has not enough coins", code="wallet-empty")
        for _ in range(CHOICES):
            async with self._choosing:
                planned, writes = await send.plan(self._till, op_id, want, then)
                plan = plan_of(planned, writes)
                try:
                    await self._till.store.commit(*beside(plan), *writes)
                except Conflict as conflict:
                    if conflict.name == "proof_mark":
                        continue  # a coin went elsewhere between our read and our write
                    raise
            if planned.outputs:
                self._driver.planned(op_id, planned.outputs)
            return plan
        raise LocalError("too many sends at once", code="busy")

    async def _place(self, op_id: str, want: Want, then: Then) -> None:
        if want.amount <= 0:
            raise LocalError("a token has a positive amount")
        empty = LocalError("too many sends at once", code="busy")
        for _ in range(CHOICES):
            try:
                async with self._choosing:
                    if await self._till.operation(op_id) is not None:
                        return
                    outputs = await send.place(self._till, op_id, want, then)
            except Conflict as conflict:
                if conflict.name == "proof_mark":
                    continue  # a coin went elsewhere between our read and our write
                if conflict.name != "operation_insert":
                    raise
                return
            except LocalError as error:
                if error.code != "wallet-empty" or not await self._in_swaps(want):
                    raise
                empty = error
                await self._till.clock.sleep(SWAP_S)
                continue
            if outputs:
                self._driver.planned(op_id, outputs)
            return
        raise empty

    async def _in_swaps(self, want: Want) -> bool:
        """Are there coins at this mint that a swap under way may give back in a moment?"""
        values = {"mint": want.mint, "unit": want.unit}
        rows = await self._till.store.read("proof_reserved", **values)
        return int(rows[0]["n"]) > 0

    async def reclaim(
        self, op_id: str, then: Then = nothing, *, unlock: Unlock | None = None
    ) -> Outcome:
        """Swap back what `op_id` sent and nobody took.

        Locked coins are unlocked by `unlock`, else by our own refund keys, which the mint takes
        after the locktime. Raises RemoteError `payment-token-spent` when it was taken, LocalError
        when there was none.
        """
        async with self._choosing:
            name, outputs = await reclaim.place(self._till, op_id, unlock)
        if outputs:
            self._driver.planned(name, outputs)
        return await self.run(name, then)

    async def consolidate(
        self, op_id: str, where: tuple[str, str], fee_max: int, then: Then = nothing
    ) -> Outcome | None:
        """Swap many small coins of a mint and unit into few, for `fee_max` units at most; or coins
        of a keyset that expires within 30 days, for whatever that costs. None: nothing to do."""
        async with self._choosing:
            outputs = await consolidate.place(self._till, op_id, where, fee_max)
        if not outputs:
            return None
        self._driver.planned(op_id, outputs)
        return await self.run(op_id, then)

    async def came_back(self, op_id: str) -> bool:
        """Was what `op_id` sent reclaimed?"""
        return await reclaim.succeeded(self._till, op_id)

    async def lock_of(self, op_id: str) -> Locked | None:
        """How the coins that `op_id` sends are locked; None if they are not."""
        return await locked.lock_of(self._till, op_id)

    async def locked(self) -> Mapping[str, Locked]:
        """Locked coins that may still be out, by the operation that sent them."""
        return await locked.out(self._till)

    async def taken(self, op_id: str) -> bool:
        """Does the mint say that a coin of what `op_id` sent is spent? Raises OutcomeUnknown."""
        return await locked.taken(self._till, op_id)

    @staticmethod
    def gone(op_id: str) -> Write:
        """The write that lets the coins that `op_id` sent go: whom they were for has them."""
        return locked.gone(op_id)

    # change that others have signed for us, and that we have signed for others

    async def plan_ladder(
        self, op_id: str, mint: str, unit: str, amount: int
    ) -> tuple[Write, tuple[BlindedMessage, ...]]:
        """Outputs for change of up to `amount` units; commit the write, then show them.

        `run` finds at the mint what was signed of them, `take_signed` takes it from whoever had it
        signed. Raises RemoteError `payment-mint-unaccepted`, OutcomeUnknown.
        """
        want = Token(normal_url(mint), unit, ())
        return await ladder.plan(self._till, op_id, want, amount)

    async def inputs_of(self, op_id: str) -> tuple[Proof, ...]:
        """The coins that an operation has the mint take; none if there is none such."""
        operation = await self._till.operation(op_id)
        return () if operation is None else operation.inputs

    async def outputs_of(self, op_id: str) -> tuple[BlindedMessage, ...]:
        """The outputs that an operation asks the mint to sign; none if there is none such."""
        operation = await self._till.operation(op_id)
        return () if operation is None else operation.outputs

    async def keyset_of(self, op_id: str) -> str:
        """The keyset that the outputs of an operation are for; "" if there is no such operation."""
        operation = await self._till.operation(op_id)
        return operation.outputs[0].id if operation is not None and operation.outputs else ""

    def unused(self, op_id: str) -> Write:
        """The write that ends a ladder which nobody will have signed any more."""
        return Write("operation_unused", {"id": op_id, "at": self._till.clock.now()})

    async def take_signed(
        self, op_id: str, signatures: Mapping[str, BlindSignature], then: Then = nothing
    ) -> Outcome:
        """Make coins of signatures on the outputs of a ladder, by B_; once.

        Those on no output of it are left out; without any it stays PREPARED, and so it does with
        `suspect` when one is not the mint's: `run` still finds what the mint has signed.
        """
        return await self._driver.take(op_id, signatures, then)

    async def plan_settle(self, op_id: str, mint: str, unit: str, parts: Sequence[Part]) -> Plan:
        """Prepare the one swap that settles locked coins; commit its writes, then `run`.

        Its outcome has `signed`: the mint's signatures for each part. Raises RemoteError
        `payment-outputs-stale`, `payment-amount-low`; OutcomeUnknown.
        """
        where = (normal_url(mint), unit)
        plan, outputs = await settle.plan(self._till, op_id, where, parts)
        self._driver.planned(op_id, outputs)
        return plan

    # Lightning

    async def fund(self, mint: str, amount: int, unit: str = "sat") -> MintQuote:
        """An invoice whose payment gives us `amount` units at this mint; it is stored."""
        return await fund.ask(self._till, mint, amount, unit)

    async def quotes(self) -> list[Row]:
        """Stored quotes whose coins were not issued to us yet, oldest first."""
        return await self._till.store.read("quote_open")

    async def claim_quote(
        self, quote_id: str, then: Then = nothing, *, wait_s: float = 0.0
    ) -> Outcome:
        """Turn a paid quote into coins; waits up to `wait_s` for its payment. `then` as in `run`.

        PREPARED with code `payment-pending` while it is not paid; REJECTED if its coins were issued
        to somebody else (or to this seed before a backup: `scan` finds them).
        """
        row = await fund.stored(self._till, quote_id)
        name = fund.name(quote_id)
        if await self._till.operation(name) is None:
            state = await fund.poll(self._till, row, wait_s)
            async with self._choosing:
                if await self._till.operation(name) is None:
                    if state != "PAID":
                        return _unclaimed(row, state)
                    self._driver.planned(name, await fund.place(self._till, row))
        issued = Write("quote_mark", {"id": quote_id, "state": "ISSUED"})
        return await self.run(name, lambda outcome: [issued, *then(outcome)])

    async def quote_melt(self, mint: str, unit: str, invoice: str) -> MeltQuote:
        """What a mint asks for paying an invoice; nothing is stored.

        Raises RemoteError `payment-invoice-invalid` for one that cannot be read or has no amount,
        `payment-mint-unaccepted` for a quote that is not of it; MintRefused, OutcomeUnknown.
        """
        return await melt.ask(self._till, mint, unit, invoice)

    async def place_melt(
        self, op_id: str, mint: str, quote: MeltQuote, beside: Callable[[Plan], Sequence[Write]]
    ) -> Plan:
        """Reserve coins for a melt and store it, together with the writes that `beside` gives.

        `run(op_id)` then has the invoice paid. `beside` is called again when a coin went elsewhere
        meanwhile, and may raise. Raises LocalError `wallet-empty`, RemoteError, OutcomeUnknown, and
        the Conflict of any write but our own.
        """
        for _ in range(CHOICES):
            async with self._choosing:
                planned = await melt.plan(self._till, op_id, mint, quote)
                writes = (
                    planned.insert(self._till.clock.now()),
                    *mark(planned.inputs, "free", "reserved", op_id),
                )
                plan = plan_of(planned, writes)
                try:
                    await self._till.store.commit(*beside(plan), *writes)
                except Conflict as conflict:
                    if conflict.name == "proof_mark":
                        continue  # a coin went elsewhere between our read and our write
                    raise
            self._driver.planned(op_id, planned.outputs)
            return plan
        raise LocalError("too many payments at once", code="busy")

    async def melt(self, op_id: str, mint: str, quote: MeltQuote, then: Then = nothing) -> Outcome:
        """Have a mint pay the invoice of a quote; the same id never pays twice.

        `outcome.amount` is the invoice, `outcome.fee` what it cost besides. PREPARED: not known
        yet, the coins stay reserved. Raises as `place_melt` and `run`.
        """
        if await self._till.operation(op_id) is None:
            try:
                await self.place_melt(op_id, mint, quote, lambda plan: ())
            except Conflict as conflict:
                if conflict.name != "operation_insert":
                    raise
        return await self.run(op_id, then)

    async def scan(self, mint: str, unit: str = "sat", *, empty_max: int = scan.EMPTY_MAX) -> int:
        """Find this seed's coins at a mint from the seed alone; units that were not known.

        Ends where `empty_max` output numbers in a row are unknown to the mint.
        """
        return await scan.scan(self._till, mint, unit, empty_max)


def _unclaimed(row: Row, state: str) -> Outcome:
    """A quote that is not ours to turn into coins, or not yet."""
    issue = fund.unplaced(row)
    if state == "ISSUED":
        return outcome_of(replace(issue, state="REJECTED", code="payment-token-spent"))
    return outcome_of(replace(issue, code="payment-pending"))
