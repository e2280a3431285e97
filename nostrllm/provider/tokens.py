"""Locked tokens as clients offer them, before and after they are judged."""

from __future__ import annotations

from dataclasses import dataclass

from nostrllm.core import ledger
from nostrllm.core.money import booked
from nostrllm.wire.token import BlindedMessage, Proof, Token


@dataclass(frozen=True, slots=True)
class LockedToken:
    """A token that passed every check; `worth` and `fee` in units of its coins.

    `known`: its author has paid for an answer before. `outputs` are his own, for his change.
    """

    id: str
    author: str
    known: bool
    mint: str
    unit: str
    worth: int
    fee: int
    locktime: int
    proofs: tuple[Proof, ...]
    outputs: tuple[BlindedMessage, ...]

    @property
    def worth_msat(self) -> int:
        """What it is worth, the mint's fee included, as the ledger counts such coins: one whose
        worth is a rate is never believed, and only given back."""
        return self.worth * booked(self.unit)

    @property
    def place(self) -> str:
        """The ledger's name of such coins."""
        return ledger.locked(self.mint, self.unit)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The amounts of the outputs."""
        return tuple(output.amount for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Offered:
    """A locked token as it came with a message of `id`, whose first word is due by `deadline`.

    Without a deadline it is only to be given back, and may be locked for any time.
    """

    id: str
    author: str
    token: Token
    outputs: tuple[BlindedMessage, ...]
    deadline: int | None
