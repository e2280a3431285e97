"""Somebody with coins at the simulation's mint, who swaps them without any wallet's code."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from nostrllm.core import coins
from nostrllm.crypto import bdhke
from nostrllm.ports import Keyset
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof
from tests.sim.mint import SimMint

Made = list[tuple[BlindedMessage, str, bytes]]


class Holder:
    """Coins, and how to make others of them."""

    def __init__(self, mint: SimMint, rng: random.Random) -> None:
        self.mint = mint
        self.rng = rng
        self.coins: list[Proof] = []

    @property
    def keyset(self) -> Keyset:
        """The one in use."""
        return self.mint.keysets[-1]

    @property
    def units(self) -> int:
        """What the coins are worth."""
        return sum(coin.amount for coin in self.coins)

    def outputs(self, wanted: Sequence[tuple[int, str]]) -> Made:
        """Blinded messages of these amounts for these secrets ("" = a random one)."""
        made = []
        for amount, given in wanted:
            secret, r = given or self.rng.randbytes(32).hex(), self.rng.randbytes(32)
            message = BlindedMessage(amount, self.keyset.id, bdhke.blind(secret, r))
            made.append((message, secret, r))
        return made

    def unblind(self, made: Made, signatures: Sequence[BlindSignature]) -> list[Proof]:
        """The coins; each signature is checked."""
        found = []
        for (message, secret, r), signed in zip(made, signatures, strict=True):
            key = self.keyset.keys[signed.amount]
            assert signed.amount == message.amount
            assert bdhke.verify_dleq(message.B_, signed.C_, signed.dleq, key)
            C = bdhke.unblind(signed.C_, r, key)
            found.append(Proof(signed.id, signed.amount, secret, C))
        return found

    def swap(self, inputs: Sequence[Proof], wanted: Sequence[tuple[int, str]]) -> list[Proof]:
        """New coins for old ones. Raises MintRefused."""
        made = self.outputs(wanted)
        return self.unblind(made, self.mint.swap(inputs, [message for message, _, _ in made]))

    def take(self, inputs: Sequence[Proof]) -> int:
        """Make coins our own; what that left. Raises MintRefused, takes nothing worth its fee."""
        net = sum(proof.amount for proof in inputs) - self.mint.fee(len(inputs))
        if net > 0:
            self.coins += self.swap(inputs, [(amount, "") for amount in coins.split(net)])
        return max(0, net)

    def pay(self, wanted: Sequence[tuple[int, str]]) -> list[Proof] | None:
        """Coins of exactly these amounts and secrets out of ours; None if we have not enough."""
        need = sum(amount for amount, _ in wanted)
        rest = self.units - self.mint.fee(len(self.coins)) - need
        if rest < 0:
            return None
        kept = [(amount, "") for amount in coins.split(rest)]
        made = self.swap(self.coins, [*wanted, *kept])
        self.coins = made[len(wanted) :]
        return made[: len(wanted)]


def signed_by(key: bytes, proofs: Sequence[Proof]) -> list[Proof]:
    """The coins with the witness that spends them (NUT-11)."""
    return [
        replace(proof, witness=bdhke.sign_witness(proof.secret, key, bytes(32))) for proof in proofs
    ]
