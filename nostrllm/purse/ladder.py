"""Ladder: outputs that somebody else may have the mint sign for us, as many as make up our change.

They are stored before they are shown. What comes of them is either handed to us (`take`), or found
by asking the mint for them (`run`), which needs nobody's help. Nothing to undo: outputs that are
never signed are never used.
"""

from __future__ import annotations

from nostrllm.core import coins
from nostrllm.ports import Write
from nostrllm.purse.operation import Operation, Own
from nostrllm.purse.till import Outputs, Till, keyset_in_use
from nostrllm.wire.token import Token


async def plan(till: Till, op_id: str, want: Token, amount: int) -> tuple[Write, Outputs]:
    """The write that stores outputs of which any 0..`amount` units can be made, and they.

    Mint and unit are those of `want`. Raises RemoteError `payment-mint-unaccepted`,
    OutcomeUnknown.
    """
    mint = till.mints.at(want.mint)
    rungs = coins.ladder(amount)
    keyset = keyset_in_use(await mint.keysets(), want.unit, rungs)
    outputs, own = await till.outputs(keyset.id, [Own(rung, 0) for rung in rungs])
    operation = Operation(op_id, "ladder", mint.url, want.unit, amount, 0, outputs, own)
    return operation.insert(till.clock.now()), outputs
