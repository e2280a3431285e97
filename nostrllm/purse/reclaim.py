"""Reclaim: coins that we sent and nobody took are swapped back.

Whoever swaps first has them; locked ones need a signature, of the key they are locked to or, after
their time, of our own. Coins found spent are marked so; the others are reserved with the
request in one commit; if the mint refuses they are 'sent' again. Resume: run again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nostrllm.core import coins
from nostrllm.core.lock import is_locked
from nostrllm.crypto.bdhke import sign_witness
from nostrllm.errors import LocalError, RemoteError
from nostrllm.ports import Row
from nostrllm.purse.operation import Operation, Own, mark, proof_of
from nostrllm.purse.receive import Unlock
from nostrllm.purse.till import Outputs, Till, keyset_in_use, keysets_with


async def place(till: Till, op_id: str, unlock: Unlock | None) -> tuple[str, Outputs]:
    """Store the swap that takes back what the operation `op_id` sent; its own id and outputs.

    No outputs if one is under way already.

    Raises RemoteError `payment-token-spent` when it was taken, LocalError when there is nothing, or
    no more than the mint's fee.
    """
    name, number = f"{op_id}:reclaim:0", 0
    while (past := await till.operation(name)) is not None:
        if past.state == "PREPARED":
            return name, ()
        number += 1
        name = f"{op_id}:reclaim:{number}"
    rows = await till.store.read("proof_of_owner", owner=op_id, state="sent")
    if not rows:
        raise LocalError("nothing of this was sent, or all of it was taken", code="not-found")
    if unlock is None:
        unlock = await _refund(till, op_id)
    return name, await _store(till, name, op_id, _Back(rows, unlock))


async def _refund(till: Till, op_id: str) -> Unlock:
    """Our own witnesses for the locked coins that an operation made, good after their locktime."""
    operation = await till.operation(op_id)
    keys: dict[str, bytes] = {}
    for own, output in zip(operation.own, operation.outputs, strict=True) if operation else ():
        if own.lock is not None and not own.lock[1]:
            message = "these coins are locked to their payee for good"
            raise LocalError(message, code="payment-token-locked-wrong")
        if own.lock is not None:
            secret, _ = till.secret(output.id, own)
            keys[secret] = till.refund_key(output.id, own.counter)

    def unlock(secret: str) -> str | None:
        key = keys.get(secret)
        return None if key is None else sign_witness(secret, key, secrets.token_bytes(32))

    return unlock


@dataclass(frozen=True, slots=True)
class _Back:
    """Stored coins to take back, and what unlocks those that are locked."""

    rows: Sequence[Row]
    unlock: Unlock


async def succeeded(till: Till, op_id: str) -> bool:
    """Did any reclaim of what `op_id` sent end well?"""
    number = 0
    while (past := await till.operation(f"{op_id}:reclaim:{number}")) is not None:
        if past.state == "DONE":
            return True
        number += 1
    return False


async def _store(till: Till, name: str, op_id: str, back: _Back) -> Outputs:
    rows = back.rows
    mint, unit = till.mints.at(rows[0]["mint"]), rows[0]["unit"]
    states = await mint.states([row["y"] for row in rows])
    by_state = {
        state: [proof_of(row) for row, found in zip(rows, states, strict=True) if found == state]
        for state in ("SPENT", "UNSPENT")
    }
    gone = mark(by_state["SPENT"], "sent", "spent", op_id)
    inputs = by_state["UNSPENT"]
    if not inputs:
        await till.store.commit(*gone)
        raise RemoteError("the token was taken", code="payment-token-spent")
    keysets = await keysets_with(mint, {proof.id for proof in inputs})
    amount, fee = sum(proof.amount for proof in inputs), coins.fee(inputs, keysets)
    if amount <= fee:
        raise LocalError("the coins are worth no more than the fee", code="payment-amount-low")
    pieces = coins.split(amount - fee)
    keyset = keyset_in_use(keysets, unit, pieces)
    outputs, own = await till.outputs(keyset.id, [Own(piece, 0) for piece in pieces])
    ready = tuple(
        replace(coin, witness=back.unlock(coin.secret)) if is_locked(coin.secret) else coin
        for coin in inputs
    )
    operation = Operation(name, "reclaim", mint.url, unit, amount, fee, outputs, own, ready)
    operation = replace(operation, back=("sent", op_id))
    await till.store.commit(
        operation.insert(till.clock.now()), *gone, *mark(inputs, "sent", "reserved", name)
    )
    return outputs
