"""Settle: coins that are locked to us become coins of ours, and change for those they came from.

One swap for any number of payers: in go their locked coins, with our signatures on them; out come
our coins and, signed for each payer, the outputs he chose for his change. Nothing to undo: as long
as the mint has not done it the coins stay locked to us. Resume: run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nostrllm.core import coins
from nostrllm.errors import RemoteError
from nostrllm.purse.operation import FOREIGN, Operation, Own, Plan
from nostrllm.purse.outputs import mixed
from nostrllm.purse.till import Outputs, Till, keyset_in_use, keysets_with
from nostrllm.wire.token import BlindedMessage, Proof


@dataclass(frozen=True, slots=True)
class Part:
    """One payer's share: his coins with the witnesses that spend them, and his outputs to sign."""

    owner: str
    inputs: tuple[Proof, ...]
    outputs: tuple[BlindedMessage, ...] = ()


async def plan(
    till: Till, op_id: str, where: tuple[str, str], parts: Sequence[Part]
) -> tuple[Plan, Outputs]:
    """The swap of all parts at `where` (mint, unit), and its outputs.

    Raises RemoteError: `payment-outputs-stale` when the mint no longer signs with the keyset of
    somebody's outputs, `payment-amount-low` when nothing would be left for us; OutcomeUnknown.
    """
    mint, unit = till.mints.at(where[0]), where[1]
    inputs = tuple(proof for part in parts for proof in part.inputs)
    keysets = await keysets_with(mint, {proof.id for proof in inputs})
    fee = coins.fee(inputs, keysets)
    theirs = [
        (output, Own(output.amount, FOREIGN, "foreign", part.owner))
        for part in parts
        for output in part.outputs
    ]
    amount = sum(proof.amount for proof in inputs) - fee
    amount -= sum(output.amount for output, _ in theirs)
    if amount < 1:
        raise RemoteError("the coins are worth no more than the fee", code="payment-amount-low")
    pieces = coins.split(amount)
    keyset = keyset_in_use(keysets, unit, pieces)
    if any(output.id != keyset.id for output, _ in theirs):
        raise RemoteError("the mint has another keyset now", code="payment-outputs-stale")
    bare = Operation(
        op_id,
        "settle",
        mint.url,
        unit,
        amount,
        fee,
        tuple(output for output, _ in theirs),
        tuple(own for _, own in theirs),
        inputs,
    )
    ours = await till.outputs(keyset.id, [Own(piece, 0) for piece in pieces])
    operation = bare.renumber(*mixed(bare, *ours))
    write = operation.insert(till.clock.now())
    return Plan(op_id, mint.url, unit, amount, fee, amount, (write,)), operation.outputs
