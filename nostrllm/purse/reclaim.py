"""Reclaim: coins that we sent and nobody took are swapped back.

Whoever swaps first has them. Coins found spent are marked so; the others are reserved with the
request in one commit; if the mint refuses they are 'sent' again. Resume: run again.
"""

from __future__ import annotations

from dataclasses import replace

from nostrllm.core import coins
from nostrllm.errors import LocalError, RemoteError
from nostrllm.ports import Row
from nostrllm.purse.operation import Operation, Own, mark, proof_of
from nostrllm.purse.till import Outputs, Till, keyset_in_use, keysets_with


async def place(till: Till, op_id: str) -> tuple[str, Outputs]:
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
    return name, await _store(till, name, op_id, rows)


async def succeeded(till: Till, op_id: str) -> bool:
    """Did any reclaim of what `op_id` sent end well?"""
    number = 0
    while (past := await till.operation(f"{op_id}:reclaim:{number}")) is not None:
        if past.state == "DONE":
            return True
        number += 1
    return False


async def _store(till: Till, name: str, op_id: str, rows: list[Row]) -> Outputs:
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
    operation = Operation(name, "reclaim", mint.url, unit, amount, fee, outputs, own, tuple(inputs))
    operation = replace(operation, back=("sent", op_id))
    await till.store.commit(
        operation.insert(till.clock.now()), *gone, *mark(inputs, "sent", "reserved", name)
    )
    return outputs
