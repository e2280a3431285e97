"""Send: coins of ours become a token of an exact amount.

Coins that sum up as they are go out at once, without the mint. Else one swap: chosen coins are
reserved with the request in one commit; DONE makes the token and the rest; if the mint refuses,
coins that are spent are marked so and the others are free again. Resume: run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nostrllm.core import coins
from nostrllm.errors import LocalError
from nostrllm.ports import Write
from nostrllm.purse.operation import Operation, Own, Then, mark, outcome_of, proof_of
from nostrllm.purse.till import Outputs, Till, keyset_in_use, keysets_with
from nostrllm.wire.token import Proof, Token

#: More coins than this make a token too long for one message, and dear to receive.
COINS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Want:
    """A token of `amount` units; with `lock`, of coins locked to that key until that time, for ever
    if that is 0.

    `fresh`: of coins that a swap makes for it, as few as can be. `most`: the amount has the fee of
    the swap that makes the token in it, and a smaller token will do.
    """

    mint: str
    unit: str
    amount: int
    lock: tuple[str, int] | None = None
    most: bool = False
    fresh: bool = False


async def place(till: Till, op_id: str, want: Want, then: Then) -> Outputs:
    """Store the send of a token.

    The outputs of the swap to run; none if it is done already. Raises LocalError `wallet-empty`.
    """
    planned, writes = await plan(till, op_id, want, then)
    await till.store.commit(*writes)
    return planned.outputs


async def plan(
    till: Till, op_id: str, want: Want, then: Then
) -> tuple[Operation, tuple[Write, ...]]:
    """The send of a token, and the writes that store it: DONE, with those of `then`, if the coins
    are there as they are, else the swap to run. Raises as `place`.

    With `want.most`, the amount is the most that the token and the fee of its swap may cost.
    """
    rows = await till.store.read("proof_free", mint=want.mint, unit=want.unit)
    have, amount, now = [proof_of(row) for row in rows], want.amount, till.clock.now()
    ready = coins.exact(have, amount) if want.lock is None and not want.fresh else None
    if ready is None or len(ready) > COINS_MAX:
        swap = await _swap(till, op_id, want, have)
        return swap, (swap.insert(now), *mark(swap.inputs, "free", "reserved", op_id))
    done = Operation(op_id, "send", want.mint, want.unit, amount, 0, (), (), state="DONE")
    token = Token(want.mint, want.unit, tuple(ready))
    marked = mark(ready, "free", "sent", op_id)
    return done, (done.insert(now), *marked, *then(outcome_of(done, (), token)))


async def fee(till: Till, want: Want) -> int:
    """What the mint takes for the swap that would make a token now. Raises as `place`."""
    rows = await till.store.read("proof_free", mint=want.mint, unit=want.unit)
    have = [proof_of(row) for row in rows]
    keysets = await keysets_with(till.mints.at(want.mint), {proof.id for proof in have})
    return coins.fee(coins.select(have, want.amount, keysets), keysets)


async def _swap(till: Till, op_id: str, want: Want, have: Sequence[Proof]) -> Operation:
    mint, amount = till.mints.at(want.mint), want.amount
    if sum(proof.amount for proof in have) < (1 if want.most else amount):  # known without the mint
        raise LocalError("the wallet has not enough coins", code="wallet-empty")
    keysets = await keysets_with(mint, {proof.id for proof in have})
    have = [proof for proof in have if proof.id in keysets]
    if want.most:
        inputs, amount, fee = coins.payable(have, amount, keysets)
    else:
        inputs = coins.select(have, amount, keysets)
        fee = coins.fee(inputs, keysets)
    rest = sum(proof.amount for proof in inputs) - fee - amount
    rows = [Own(piece, 0, "sent", op_id, want.lock) for piece in coins.split(amount)]
    rows += [Own(piece, 0) for piece in coins.split(rest)]
    keyset = keyset_in_use(keysets, want.unit, (row.amount for row in rows))
    outputs, own = await till.outputs(keyset.id, rows)
    return Operation(op_id, "send", mint.url, want.unit, amount, fee, outputs, own, tuple(inputs))
