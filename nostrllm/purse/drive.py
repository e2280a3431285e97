"""Bring a stored operation to its end: the loop that all operations share.

Its request is in the store before the mint hears of it. A first answer ends it at once. After any
other the mint is asked what it knows (`evidence`), now or after a restart, until that says how it
ended. New coins, the operation's end and the caller's own writes are committed together.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal
from weakref import WeakValueDictionary

import structlog

from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import LocalError, MintRefused, OutcomeUnknown, RemoteError
from nostrllm.ports import Conflict, Write
from nostrllm.purse import melt
from nostrllm.purse.evidence import Consumed, Evidence, Verdict, consumed, decide
from nostrllm.purse.operation import (
    Operation,
    Outcome,
    Own,
    Then,
    mark,
    outcome_of,
    proof_of,
    proof_write,
)
from nostrllm.purse.outputs import (
    Made,
    evidence_of,
    made_of,
    mixed,
    note_of,
    owners,
    signed_of,
    spent_since,
)
from nostrllm.purse.till import (
    BadSignature,
    Till,
    keyset_in_use,
    keyset_of,
)
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof, Token

log = structlog.get_logger()

#: How far to go past counters that turn out to be used.
SKIP: Final = 1_000
#: So often a settle is tried that a mint answers and does nothing about; then its parts are.
VAIN_MAX: Final = 3
#: Plans remembered as never sent; of one that is forgotten the mint is asked first.
FRESH_MAX: Final = 4_096

#: Where signatures come from: the mint's answer to our request, what it says it signed earlier, or
#: somebody else, who may say anything.
Source = Literal["answer", "restored", "handed"]

_QUOTES: Final[dict[str, Consumed]] = {"PAID": "UNSPENT", "ISSUED": "SPENT"}


@dataclass(slots=True)
class _Chase:
    """One run of an operation. `unclear`: an earlier request may still be under way. `vain`: so
    often the mint answered a request, without saying why nothing came of it."""

    then: Then
    fresh: bool
    unclear: bool
    refusals: int = 0
    vain: int = 0


class Driver:
    """Runs operations, each by one task at a time."""

    def __init__(self, till: Till) -> None:
        self._till = till
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._fresh: OrderedDict[str, str] = OrderedDict()
        self._unheard: dict[str, float] = {}

    def planned(self, op_id: str, outputs: Sequence[BlindedMessage]) -> None:
        """An operation with these outputs was made here and now: the mint has not heard of it."""
        self._fresh[op_id] = outputs[0].B_
        while len(self._fresh) > FRESH_MAX:
            self._fresh.popitem(last=False)

    async def run(self, op_id: str, then: Then) -> Outcome:
        """See Purse.run."""
        lock = self._locks.setdefault(op_id, asyncio.Lock())
        async with lock:
            operation = await self._load(op_id)
            fresh = self._is_fresh(operation)
            chase = _Chase(then, fresh, not fresh)
            if not fresh:
                self._unheard.setdefault(op_id, self._till.clock.monotonic())
            # what of a ladder is signed is not ours to hasten
            tries = 1 if operation.kind == "ladder" else self._till.pace.tries
            for attempt in range(tries):
                if operation.state != "PREPARED":
                    break
                if attempt:
                    await self._till.clock.sleep(self._till.pace.pause_s(attempt))
                operation = await self._try(operation, chase)
            if operation.state != "PREPARED":
                self._unheard.pop(op_id, None)
            return await self._outcome(operation)

    def _is_fresh(self, operation: Operation) -> bool:
        planned = self._fresh.pop(operation.id, None)
        return planned is not None and planned == operation.outputs[0].B_

    async def _load(self, op_id: str) -> Operation:
        operation = await self._till.operation(op_id)
        if operation is None:
            raise LocalError("there is no such operation", code="not-found")
        return operation

    async def _outcome(self, operation: Operation) -> Outcome:
        rows = await self._till.store.read("proof_of_operation", operation=operation.id)
        if operation.kind == "ladder" and operation.state != "PREPARED":
            operation = replace(operation, amount=sum(int(row["amount"]) for row in rows))
        token = None
        if operation.kind == "send" and operation.state == "DONE":
            sent = [
                row
                for state in ("sent", "spent")
                for row in await self._till.store.read(
                    "proof_of_owner", owner=operation.id, state=state
                )
            ]
            token = token_of(operation, [proof_of(row) for row in sent])
        proofs = [proof_of(row) for row in rows]
        return outcome_of(operation, proofs, token, signed_of(operation))

    # one try

    async def _try(self, operation: Operation, chase: _Chase) -> Operation:
        try:
            return await self._step(operation, chase)
        except (MintRefused, OutcomeUnknown, RemoteError) as error:
            log.info("operation_unclear", operation=operation.id[:16], why=error.message)
            return operation
        except Conflict as conflict:
            if conflict.name != "operation_finish":
                raise
            return await self._load(operation.id)

    async def _step(self, operation: Operation, chase: _Chase) -> Operation:
        if operation.kind == "ladder":
            return await self._look(operation, chase)
        refused: MintRefused | None = None
        send, chase.fresh = chase.fresh, False
        while True:
            if send:
                try:
                    signatures = await self._send(operation)
                except MintRefused as error:
                    refused = error
                except OutcomeUnknown as error:
                    self._note(operation, chase, answered=error.answered)
                    raise
                else:
                    return await self._finish(operation, signatures, chase.then)
            evidence = await self._ask(operation, refused.mint_code if refused else None)
            verdict = decide(evidence)
            if verdict is not Verdict.RESEND:
                break
            if self._is_in_vain(operation, chase):
                code = "payment-mint-unreachable"
                return await self._reject(operation, evidence, chase.then, code, "in vain")
            send = True
        if refused is not None and verdict is Verdict.REJECT_REFUSED:
            return await self._refused(operation, evidence, chase, refused)
        return await self._act(operation, evidence, verdict, chase)

    def _note(self, operation: Operation, chase: _Chase, *, answered: bool) -> None:
        """A request was sent, and nobody knows what came of it."""
        chase.unclear |= not answered
        chase.vain += answered
        if operation.kind == "melt" or not answered:
            self._unheard[operation.id] = self._till.clock.monotonic()

    async def _send(self, operation: Operation) -> list[BlindSignature]:
        if operation.kind == "melt":
            return await melt.send(self._till, operation)
        mint = self._till.mints.at(operation.mint)
        if operation.quote:
            return await mint.mint(operation.quote, operation.outputs)
        return await mint.swap(operation.inputs, operation.outputs)

    async def _ask(self, operation: Operation, refusal: int | None) -> Evidence:
        if operation.kind == "melt":
            found = await melt.evidence(self._till, operation, refusal)
        else:
            found = await self._exchanged(operation, refusal)
        if refusal is None:
            return found
        # A no is final only if the list of keysets is newer than it.
        final = decide(found) is Verdict.REJECT_REFUSED
        keysets = await self._till.mints.at(operation.mint).keysets(refresh=True, wait=final)
        keyset = keysets.get(operation.outputs[0].id)
        return replace(found, keyset_in_use=keyset is not None and keyset.active)

    async def _exchanged(self, operation: Operation, refusal: int | None) -> Evidence:
        """What the mint knows of a swap or an issue."""
        mint = self._till.mints.at(operation.mint)
        restored = await mint.restore(operation.outputs)
        states: list[str] = []
        if operation.quote:
            quote = await mint.mint_quote(operation.quote)
            found = _QUOTES.get(quote.state, "PENDING")
        else:
            states = await mint.states([y_of(proof.secret) for proof in operation.inputs])
            found = consumed(states)
        if found in ("SPENT", "MIXED") and len(restored) < len(operation.outputs):
            # It may have been done between the two questions: only this answer counts.
            restored = await mint.restore(operation.outputs)
        foreign = frozenset(
            output.B_
            for own, output in zip(operation.own, operation.outputs, strict=True)
            if own.foreign
        )
        return Evidence(
            found, operation.outputs, tuple(restored), tuple(states), refusal, foreign=foreign
        )

    async def _act(
        self, operation: Operation, evidence: Evidence, verdict: Verdict, chase: _Chase
    ) -> Operation:
        match verdict:
            case Verdict.FINISH:
                signed = {output.B_: signature for output, signature in evidence.restored}
                if operation.kind == "melt":
                    return await melt.finish(
                        self._till, operation, signed, chase.then, restored=True
                    )
                signatures = [signed[output.B_] for output in operation.outputs]
                return await self._finish(operation, signatures, chase.then, "restored")
            case Verdict.REJECT_SPENT if operation.kind != "melt" or not self._may_land(operation):
                code = "payment-token-spent"
                return await self._reject(operation, evidence, chase.then, code, "spent elsewhere")
            case Verdict.REJECT_POISONED:
                note = " ".join(sorted(owners(operation, evidence.poisoned)))
                code = "payment-outputs-wrong"
                return await self._reject(operation, evidence, chase.then, code, note)
            case Verdict.REJECT_STALE:
                code = "payment-outputs-stale"
                return await self._reject(operation, evidence, chase.then, code, "keyset gone")
            case Verdict.RENUMBER | Verdict.ROTATE:
                chase.fresh = True
                return await self._renumber(operation, evidence)
        return operation

    # the ends

    async def _refused(
        self, operation: Operation, evidence: Evidence, chase: _Chase, reason: MintRefused
    ) -> Operation:
        """A definite no; twice, if an earlier request of the same may still be under way."""
        chase.refusals += 1
        early = chase.unclear and chase.refusals < 2
        if self._may_land(operation) if operation.kind == "melt" else early:
            return operation
        return await self._reject(operation, evidence, chase.then, reason.code, reason.message)

    def _is_in_vain(self, operation: Operation, chase: _Chase) -> bool:
        often = operation.kind == "settle" and chase.vain >= VAIN_MAX
        return often and not self._may_land(operation)

    def _may_land(self, operation: Operation) -> bool:
        """May the mint still get a request of which we have heard nothing?

        Coins given back before that could be spent twice: by us, and by that request.
        """
        since = self._unheard.get(operation.id)
        if since is None:
            return False
        return self._till.clock.monotonic() - since < self._till.pace.lands_s

    async def _finish(
        self,
        operation: Operation,
        signatures: Sequence[BlindSignature],
        then: Then,
        source: Source = "answer",
    ) -> Operation:
        if operation.kind == "melt":
            names = [output.B_ for output in operation.outputs]
            signed = dict(zip(names, signatures, strict=False))
            return await melt.finish(self._till, operation, signed, then)
        till = self._till
        keyset = await keyset_of(till.mints.at(operation.mint), operation.outputs[0].id)
        made = made_of(till, operation, signatures, keyset)
        if made.bad and source == "handed":
            raise BadSignature
        if source == "restored":
            made = replace(made, coins=await spent_since(till, operation, made.coins))
        if made.bad:
            return await self._suspect(operation, signatures, made, then)
        done, coins = replace(operation, state="DONE", note=note_of(made.signed)), made.coins
        writes = [proof_write("proof_insert", proof, operation, own) for proof, own in coins]
        writes.append(Write("proof_spend_all", {"owner": operation.id}))
        proofs = [proof for proof, _ in coins]
        sent = [proof for proof, own in coins if own.state == "sent"]
        token = token_of(operation, sent) if operation.kind == "send" else None
        writes += then(outcome_of(done, proofs, token, made.signed))
        await till.store.commit(done.finish(till.clock.now()), *writes)
        return done

    async def take(
        self, op_id: str, signatures: Mapping[str, BlindSignature], then: Then
    ) -> Outcome:
        """See Purse.take_signed."""
        lock = self._locks.setdefault(op_id, asyncio.Lock())
        async with lock:
            operation = await self._load(op_id)
            if operation.state == "PREPARED":
                try:
                    operation = await self._take(operation, signatures, then, "handed")
                except BadSignature:  # not the mint's fault: it may have signed all the same
                    return replace(outcome_of(operation), suspect=True)
            return await self._outcome(operation)

    async def _look(self, operation: Operation, chase: _Chase) -> Operation:
        """A ladder is finished by what the mint has signed of it, if anything."""
        mint = self._till.mints.at(operation.mint)
        restored = await mint.restore(operation.outputs)
        signed = {output.B_: signature for output, signature in restored}
        return await self._take(operation, signed, chase.then, "restored")

    async def _take(
        self,
        operation: Operation,
        signatures: Mapping[str, BlindSignature],
        then: Then,
        source: Source,
    ) -> Operation:
        """The signed part of a ladder becomes coins; the rest of its outputs is never used."""
        rungs = [
            (own, output)
            for own, output in zip(operation.own, operation.outputs, strict=True)
            if output.B_ in signatures
        ]
        part = replace(
            operation,
            own=tuple(own for own, _ in rungs),
            outputs=tuple(output for _, output in rungs),
            amount=sum(own.amount for own, _ in rungs),
        )
        found = [signatures[output.B_] for output in part.outputs]
        return await self._finish(part, found, then, source) if rungs else operation

    async def _suspect(
        self, operation: Operation, signatures: Sequence[BlindSignature], made: Made, then: Then
    ) -> Operation:
        """The mint's answer is kept as evidence; inputs stay reserved.

        In a swap of many payers one bad signature is not everybody's loss, nor is it in a ladder:
        what was signed well is kept. Anywhere else the answer counts as no money.
        """
        log.error("mint_signature_bad", operation=operation.id[:16], mint=operation.mint)
        if operation.kind not in ("settle", "ladder"):
            made = replace(made, coins=(), signed=())
        note = evidence_of(signatures, made)
        lost = replace(operation, state="SUSPECT", code="payment-mint-unaccepted", note=note)
        writes = [proof_write("proof_insert", proof, operation, own) for proof, own in made.coins]
        proofs = [proof for proof, _ in made.coins]
        writes += then(outcome_of(lost, proofs, None, made.signed))
        await self._till.store.commit(lost.finish(self._till.clock.now()), *writes)
        return lost

    async def _reject(
        self, operation: Operation, evidence: Evidence, then: Then, code: str, note: str
    ) -> Operation:
        refused = replace(operation, state="REJECTED", code=code, note=note)
        writes = await self._found(operation, evidence)
        if operation.kind in ("send", "reclaim", "melt", "consolidate"):
            back_state, back_owner = operation.back
            for proof, state in zip(operation.inputs, evidence.states, strict=True):
                to, owner = ("spent", "") if state == "SPENT" else (back_state, back_owner)
                writes += mark([proof], "reserved", to, owner)
        writes += then(outcome_of(refused))
        await self._till.store.commit(refused.finish(self._till.clock.now()), *writes)
        return refused

    async def _renumber(self, operation: Operation, evidence: Evidence) -> Operation:
        """Other outputs for the same inputs: these were signed before, or their keyset is gone."""
        till = self._till
        writes = await self._found(operation, evidence)
        keysets = await till.mints.at(operation.mint).keysets(refresh=True)
        keyset = keyset_in_use(keysets, operation.unit, (own.amount for own in operation.own))
        if evidence.restored:
            await till.counters.skip(keyset.id, SKIP)
        own = [row for row in operation.own if not row.foreign]
        renumbered = operation.renumber(*mixed(operation, *await till.outputs(keyset.id, own)))
        await till.store.commit(renumbered.renumbered(), *writes)
        log.warning("operation_renumbered", operation=operation.id[:16])
        return renumbered

    async def _found(self, operation: Operation, evidence: Evidence) -> list[Write]:
        """Coins that our outputs turned into in a past that we lost, as far as they are unspent."""
        mint = self._till.mints.at(operation.mint)
        own = {output.B_: row for output, row in zip(operation.outputs, operation.own, strict=True)}
        proofs: list[Proof] = []
        for output, signature in evidence.restored:
            if own[output.B_].foreign:
                continue
            keyset = await keyset_of(mint, output.id)
            try:
                proofs.append(self._till.unblind(own[output.B_], output, signature, keyset))
            except BadSignature:
                log.warning("mint_signature_bad", operation=operation.id[:16], mint=operation.mint)
        states = await mint.states([y_of(proof.secret) for proof in proofs]) if proofs else []
        origin = replace(operation, id=f"found:{operation.id}")
        return [
            proof_write("proof_found", proof, origin, Own(proof.amount, 0))
            for proof, state in zip(proofs, states, strict=True)
            if state == "UNSPENT"
        ]


def token_of(operation: Operation, proofs: Sequence[Proof]) -> Token | None:
    """The coins as a token of the operation's mint and unit."""
    return Token(operation.mint, operation.unit, tuple(proofs)) if proofs else None
