"""Cashu tokens, V3 and V4, as data (NUT-00): text ⇄ frozen objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dleq:
    """The mint's proof that it signed (NUT-12); hex scalars. `r` is the blinding factor."""

    e: str
    s: str
    r: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """A coin: `amount` in units of its keyset, `C` compressed hex, `id` the keyset's."""

    id: str
    amount: int
    secret: str
    C: str
    dleq: Dleq | None = None
    witness: str | None = None


@dataclass(frozen=True, slots=True)
class BlindedMessage:
    """An output we ask the mint to sign (NUT-00)."""

    amount: int
    id: str
    B_: str


@dataclass(frozen=True, slots=True)
class BlindSignature:
    """The mint's signature on an output (NUT-00); `dleq` without `r`."""

    amount: int
    id: str
    C_: str
    dleq: Dleq | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """Coins of one mint and unit, on their way to somebody."""

    mint: str
    unit: str
    proofs: tuple[Proof, ...]
    memo: str | None = None

    @property
    def amount(self) -> int:
        """What the coins are worth, in units."""
        return sum(proof.amount for proof in self.proofs)
