"""Outputs of ours and of others in one request, and what a mint's signatures on them are."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from nostrllm.crypto.bdhke import y_of
from nostrllm.ports import Keyset
from nostrllm.purse.operation import Operation, Own, Signed
from nostrllm.purse.till import BadSignature, Till, checked_signature
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof

Coins = Sequence[tuple[Proof, Own]]


@dataclass(frozen=True, slots=True)
class Made:
    """What a mint's signatures are: coins of ours, what is somebody else's, and what is neither.

    `bad`: the outputs whose signature does not verify.
    """

    coins: Coins = ()
    signed: Sequence[Signed] = ()
    bad: Sequence[tuple[Own, BlindedMessage]] = ()

    @property
    def lost(self) -> int:
        """What our own coins among the bad ones would have been worth, in units."""
        return sum(own.amount for own, _ in self.bad if not own.foreign)


def made_of(
    till: Till, operation: Operation, signatures: Sequence[BlindSignature], keyset: Keyset
) -> Made:
    """What the signatures on these outputs are."""
    coins: list[tuple[Proof, Own]] = []
    signed: list[Signed] = []
    bad: list[tuple[Own, BlindedMessage]] = []
    for own, output, signature in zip(operation.own, operation.outputs, signatures, strict=True):
        try:
            if own.foreign:
                checked_signature(output, signature, keyset)
                signed.append(Signed(own.owner, output, signature))
            else:
                coins.append((till.unblind(own, output, signature, keyset), own))
        except BadSignature:
            bad.append((own, output))
    return Made(coins, signed, bad)


async def spent_since(till: Till, operation: Operation, coins: Coins) -> Coins:
    """After a restored backup, coins that we now find may have been spent in the lost time."""
    mint = till.mints.at(operation.mint)
    states = await mint.states([y_of(proof.secret) for proof, _ in coins]) if coins else []
    return [
        (proof, replace(own, state="spent") if state == "SPENT" else own)
        for (proof, own), state in zip(coins, states, strict=True)
    ]


def note_of(signed: Sequence[Signed]) -> str:
    """Signatures on others' outputs as an operation keeps them: they can be sent again for ever."""
    rows = [[row.output.B_, row.signature.as_dict()] for row in signed]
    return json.dumps(rows, separators=(",", ":")) if rows else ""


def evidence_of(signatures: Sequence[BlindSignature], made: Made) -> str:
    """What a mint answered that signed wrongly, as an operation keeps it: the whole of it, which
    outputs it signed wrongly, what of ours that cost, and the others' good ones as in `note_of`."""
    found = {
        "lost": made.lost,
        "bad": [output.B_ for _, output in made.bad],
        "signed": json.loads(note_of(made.signed) or "[]"),
        "signatures": [signature.as_dict() for signature in signatures],
    }
    return json.dumps(found, separators=(",", ":"))


def signed_of(operation: Operation) -> list[Signed]:
    """The good signatures on others' outputs that an operation kept."""
    if operation.kind != "settle" or operation.state not in ("DONE", "SUSPECT"):
        return []
    kept = json.loads(operation.note or "[]")
    if operation.state == "SUSPECT":
        kept = kept["signed"] if isinstance(kept, dict) else []
    rows = {
        output.B_: (own.owner, output)
        for own, output in zip(operation.own, operation.outputs, strict=True)
    }
    return [Signed(*rows[name], BlindSignature.from_dict(signature)) for name, signature in kept]


def mixed(
    operation: Operation, outputs: Sequence[BlindedMessage], own: Sequence[Own]
) -> tuple[Sequence[BlindedMessage], Sequence[Own]]:
    """Outputs of ours with those of others that the operation has, in the order of amounts."""
    rows = list(zip(outputs, own, strict=True))
    rows += [
        (output, row)
        for output, row in zip(operation.outputs, operation.own, strict=True)
        if row.foreign
    ]
    rows.sort(key=lambda row: (row[0].amount, row[0].B_))
    return [output for output, _ in rows], [row for _, row in rows]


def owners(operation: Operation, names: Collection[str]) -> set[str]:
    """Whose outputs these are, by their B_."""
    return {
        own.owner
        for own, output in zip(operation.own, operation.outputs, strict=True)
        if output.B_ in names
    }
