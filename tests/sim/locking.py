"""Coins that a client locks to the provider, and the outputs for his change, without any wallet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nostrllm.core import coins
from nostrllm.core.lock import Lock, locked_secret
from nostrllm.crypto import bdhke
from nostrllm.errors import MintRefused
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof
from tests.sim.mint import SimMint


@dataclass(frozen=True)
class Rung:
    """One output, and what makes a coin of the mint's signature on it."""

    output: BlindedMessage
    secret: str
    r: bytes

    def coin(self, mint: SimMint, signed: BlindSignature) -> Proof:
        """Raises ValueError for a signature that is none."""
        [keyset] = [known for known in mint.keysets if known.id == self.output.id]
        key = keyset.keys[self.output.amount]
        if (signed.id, signed.amount) != (self.output.id, self.output.amount):
            raise ValueError("signed for something else")
        if signed.dleq is None or not bdhke.verify_dleq(
            self.output.B_, signed.C_, signed.dleq, key
        ):
            raise ValueError("not signed")
        dleq = Dleq(signed.dleq.e, signed.dleq.s, self.r.hex())
        C = bdhke.unblind(signed.C_, self.r, key)
        return Proof(signed.id, signed.amount, self.secret, C, dleq)


def rung(mint: SimMint, amount: int, secret: str, rng: random.Random) -> Rung:
    """An output of the keyset in use."""
    r = rng.randbytes(32)
    return Rung(BlindedMessage(amount, mint.keysets[-1].id, bdhke.blind(secret, r)), secret, r)


def ladder(mint: SimMint, worth: int, rng: random.Random) -> list[Rung]:
    """Outputs of which any change of a token of this worth can be made."""
    return [rung(mint, amount, rng.randbytes(32).hex(), rng) for amount in coins.ladder(worth)]


@dataclass
class Locked:
    """Coins locked to the provider for one letter, and everything that may come back for them.

    `promised` units of change, `credited` instead of them; `rungs`: by B_, also those sent later.
    """

    proofs: tuple[Proof, ...]
    refunds: dict[str, bytes]
    rungs: dict[str, Rung]
    promised: int = 0
    credited: bool = False
    is_stale: bool = False
    release: dict[str, str] = field(default_factory=dict)
    handed: dict[str, BlindSignature] = field(default_factory=dict)

    @property
    def worth(self) -> int:
        """In units."""
        return sum(proof.amount for proof in self.proofs)

    def signed(self, mint: SimMint) -> list[Proof]:
        """The coins of all outputs that the mint has signed, whoever had it do so."""
        outputs = [one.output for one in self.rungs.values()]
        return [
            self.rungs[out.B_].coin(mint, signature) for out, signature in mint.restore(outputs)
        ]

    def back(self, mint: SimMint, *, late: bool) -> list[Proof]:
        """The locked coins that nobody took, ready to be spent: as released, or when it is late."""
        found = []
        for proof in self.proofs:
            if not mint.unspent([proof]):
                continue
            if proof.secret in self.release:
                witness = bdhke.witness(self.release[proof.secret])
                found.append(replace(proof, witness=witness))
            elif late:
                key = self.refunds[proof.secret]
                witness = bdhke.sign_witness(proof.secret, key, bytes(32))
                found.append(replace(proof, witness=witness))
        return found


def lock(
    mint: SimMint, amount: int, terms: tuple[str, int], rng: random.Random
) -> tuple[tuple[Proof, ...], dict[str, bytes]]:
    """Coins fresh from the mint under a lock to (key, locktime), and their refund keys."""
    proofs, refunds = [], {}
    for piece in coins.split(amount):
        refund = (rng.randrange(1 << 240) + 1).to_bytes(32, "big")
        wanted = Lock(*terms, bdhke.public_key_of(refund))
        made = rung(mint, piece, locked_secret(rng.randbytes(32).hex(), wanted), rng)
        [signed] = mint.sell([made.output])
        proofs.append(made.coin(mint, signed))
        refunds[made.secret] = refund
    return tuple(proofs), refunds


def spoil(mint: SimMint, locked: Locked, rng: random.Random) -> int:
    """Have the mint sign one of the outputs before the provider does; the units it cost."""
    one = rng.choice(list(locked.rungs.values()))
    try:
        mint.sell([one.output])
    except MintRefused:
        return 0  # it was signed already, or its keyset is gone
    return one.output.amount


def rungs_by_name(rungs: Sequence[Rung]) -> dict[str, Rung]:
    """As Locked keeps them."""
    return {one.output.B_: one for one in rungs}
