"""Consolidate: many small coins of ours become few, and those of a keyset near its end, new ones.

The coins are reserved with the request in one commit; DONE spends them and keeps what is left after
the mint's fee; if the mint refuses they are free again. Resume: run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nostrllm.core import coins
from nostrllm.errors import RemoteError
from nostrllm.ports import Keyset
from nostrllm.purse.operation import Operation, Own, mark, proof_of
from nostrllm.purse.till import Outputs, Till, keyset_in_use, keysets_with
from nostrllm.wire.token import Proof

#: More free coins than this of one mint and unit are too many.
COINS_MAX: Final = 128
#: So many are swapped at once: a mint's work grows with them.
INPUTS_MAX: Final = 100
#: A keyset whose coins expire within this time is left (NUT-02, final_expiry).
EXPIRY_MARGIN_S: Final = 30 * 86_400


async def place(till: Till, op_id: str, where: tuple[str, str], fee_max: int) -> Outputs:
    """Store the swap of what should be swapped now, for `fee_max` units at most.

    `where`: mint and unit. The fee of coins that expire is paid in any case. No outputs when there
    is nothing to do.
    """
    mint, unit = till.mints.at(where[0]), where[1]
    rows = await till.store.read("proof_free", mint=mint.url, unit=unit)
    have = [proof_of(row) for row in rows]
    keysets = await keysets_with(mint, {proof.id for proof in have})
    have = [proof for proof in have if proof.id in keysets]
    now = int(till.clock.now())
    expiring = [proof for proof in have if _expires(keysets[proof.id], now)]
    chosen = (expiring or (_smallest(have) if len(have) > COINS_MAX else []))[:INPUTS_MAX]
    amount, fee = sum(proof.amount for proof in chosen), coins.fee(chosen, keysets)
    if amount <= fee or (not expiring and fee > fee_max):
        return ()
    pieces = coins.split(amount - fee)
    lasting = {key: keyset for key, keyset in keysets.items() if not _expires(keyset, now)}
    try:
        keyset = keyset_in_use(lasting, unit, pieces)
    except RemoteError:  # the mint has no keyset yet that lasts longer
        return ()
    outputs, own = await till.outputs(keyset.id, [Own(piece, 0) for piece in pieces])
    operation = Operation(
        op_id, "consolidate", mint.url, unit, amount, fee, outputs, own, tuple(chosen)
    )
    reserved = mark(operation.inputs, "free", "reserved", op_id)
    await till.store.commit(operation.insert(till.clock.now()), *reserved)
    return outputs


def _expires(keyset: Keyset, now_s: int) -> bool:
    end = keyset.final_expiry
    return end is not None and end - now_s < EXPIRY_MARGIN_S


def _smallest(have: Sequence[Proof]) -> list[Proof]:
    return sorted(have, key=lambda proof: proof.amount)
