"""Receive: somebody's token becomes coins of ours, by one swap.

Plan: every check that needs no mint, then the claim of each coin and the swap as writes for the
caller to commit with his own. Run: the shared loop. Nothing to undo: a token that the mint refuses
was never ours. Resume: run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nostrllm.core import coins
from nostrllm.core.lock import is_locked
from nostrllm.crypto.bdhke import is_point, verify_proof_dleq, y_of
from nostrllm.errors import RemoteError
from nostrllm.ports import Keyset, Write
from nostrllm.purse.operation import Operation, Own, Plan
from nostrllm.purse.till import Outputs, Till, keyset_in_use, keysets_with
from nostrllm.wire.token import Proof, Token

#: The witness that spends a locked secret (NUT-11); None for a lock that is not taken.
Unlock = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the new coins are for. `ladder`: in amounts of which any change can be made."""

    ladder: bool
    owner: str
    state: str
    unlock: Unlock | None = None


async def plan(till: Till, op_id: str, token: Token, wanted: Wanted) -> tuple[Plan, Outputs]:
    """See Purse.plan_receive; the plan, and the outputs it has in its writes."""
    mint = till.mints.at(token.mint)
    keysets = await keysets_with(mint, {proof.id for proof in token.proofs}, wait=True)
    proofs = tuple(checked(proof, token.unit, keysets, wanted.unlock) for proof in token.proofs)
    amount, fee = token.amount, coins.fee(proofs, keysets)
    if amount <= fee:
        raise RemoteError(
            f"the token's {amount} {token.unit} do not exceed the mint's fee of {fee}",
            code="payment-amount-low",
            fraud="dust",
        )
    amounts = coins.ladder(amount - fee) if wanted.ladder else coins.split(amount - fee)
    keyset = keyset_in_use(keysets, token.unit, amounts)
    rows = [Own(rung, 0, wanted.state, wanted.owner) for rung in amounts]
    outputs, own = await till.outputs(keyset.id, rows)
    operation = Operation(op_id, "receive", mint.url, token.unit, amount, fee, outputs, own, proofs)
    claims = [
        Write("claim_insert", {"mint": mint.url, "y": y_of(proof.secret), "owner": op_id})
        for proof in proofs
    ]
    writes = (*claims, operation.insert(till.clock.now()))
    return Plan(op_id, mint.url, token.unit, amount, fee, amount - fee, writes), outputs


def checked(
    proof: Proof, unit: str, keysets: Mapping[str, Keyset], unlock: Unlock | None = None
) -> Proof:
    """The coin under its full keyset id, if nothing about it is wrong that we can see ourselves.

    Raises RemoteError. Without a DLEQ only the mint can tell whether it is real. A locked one is
    refused unless `unlock` gives its witness.
    """
    keyset = keyset_named(proof.id, keysets)
    if keyset.unit != unit:
        raise RemoteError("a coin is of another unit", code="payment-token-invalid")
    key = keyset.keys.get(proof.amount)
    if key is None:
        raise RemoteError("the mint has no coin of such an amount", code="payment-token-invalid")
    locked = is_locked(proof.secret)
    witness = unlock(proof.secret) if locked and unlock is not None else None
    if locked and witness is None:
        raise RemoteError("the token is locked", code="payment-token-locked-wrong")
    if not is_point(proof.C):
        raise RemoteError("a coin's signature is no point", code="payment-token-invalid")
    complete = proof.dleq is not None and proof.dleq.r is not None
    if complete and not verify_proof_dleq(proof, key):
        raise RemoteError(
            "the mint did not sign this coin", code="payment-token-invalid", fraud="forged-dleq"
        )
    return replace(proof, id=keyset.id, witness=witness)


def keyset_named(name: str, keysets: Mapping[str, Keyset]) -> Keyset:
    """The one keyset with this full or short id (NUT-02). Raises RemoteError."""
    if name in keysets:
        return keysets[name]
    found = [keyset for known, keyset in keysets.items() if known.startswith(name)]
    if len(found) != 1:
        raise RemoteError(
            "a coin's keyset is not the mint's, or not clear", code="payment-token-invalid"
        )
    return found[0]
