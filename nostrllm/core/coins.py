"""Which coins: into what an amount is split, what a swap costs, which to spend.

Keysets have one key per power of two, so all here speaks of powers of two; fewer coins make
shorter messages and less work for the mint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import LocalError
from nostrllm.wire.token import Proof


class HasFee(Protocol):
    """A keyset, as far as its input fee goes (NUT-02)."""

    @property
    def fee_ppk(self) -> int:
        """Thousandths of a unit per coin spent."""


def split(amount: int) -> list[int]:
    """`amount` as different powers of two, smallest first."""
    return [1 << bit for bit in range(amount.bit_length()) if amount >> bit & 1]


def ladder(amount: int) -> list[int]:
    """Powers of two that sum to `amount`, such that any 0..amount is the sum of some of them.

    1, 2, 4, … as far as they fit, then the binary pieces of what is left: no piece is larger than
    the sum of the smaller ones plus one. Smallest first.
    """
    rungs = (amount + 1).bit_length() - 1
    return sorted([1 << bit for bit in range(rungs)] + split(amount - (1 << rungs) + 1))


def subset(amounts: Sequence[int], target: int) -> list[int] | None:
    """Indices of powers of two that sum to `target`, or None; largest first is exact for these."""
    chosen = []
    for index in sorted(range(len(amounts)), key=lambda index: -amounts[index]):
        if amounts[index] <= target:
            chosen.append(index)
            target -= amounts[index]
    return None if target else chosen


def covers(amounts: Sequence[int], target: int) -> bool:
    """Is every whole amount up to `target` the sum of some of these powers of two?"""
    reach = 0
    for amount in sorted(amounts):
        if amount > reach + 1:
            break
        reach += amount
    return reach >= target


def most(amounts: Sequence[int], target: int) -> int:
    """The largest sum of some of these powers of two that does not exceed `target`."""
    left = target
    for amount in sorted(amounts, reverse=True):
        left -= amount if amount <= left else 0
    return target - left


def fee(proofs: Iterable[Proof], keysets: Mapping[str, HasFee]) -> int:
    """What a mint takes for spending these in one swap: ceil(Σ ppk / 1000) units (NUT-02)."""
    return -(-sum(keysets[proof.id].fee_ppk for proof in proofs) // 1000)


def exact(proofs: Sequence[Proof], amount: int) -> list[Proof] | None:
    """Coins that sum to `amount` as they are, or None."""
    chosen = subset([proof.amount for proof in proofs], amount)
    return None if chosen is None else [proofs[index] for index in chosen]


def select(proofs: Sequence[Proof], amount: int, keysets: Mapping[str, HasFee]) -> list[Proof]:
    """Few coins that, swapped, leave at least `amount` after the mint's fee.

    The smallest coin that suffices, else the largest and on. Raises LocalError `wallet-empty`.
    """
    left = sorted(proofs, key=lambda proof: proof.amount)
    chosen: list[Proof] = []
    have, ppk = 0, 0
    while have + -ppk // 1000 < amount:
        if not left:
            raise LocalError("the wallet has not enough coins", code="wallet-empty")
        enough = (
            i
            for i, proof in enumerate(left)
            if have + proof.amount + -(ppk + keysets[proof.id].fee_ppk) // 1000 >= amount
        )
        proof = left.pop(next(enough, -1))
        chosen.append(proof)
        have, ppk = have + proof.amount, ppk + keysets[proof.id].fee_ppk
    return chosen


def payable(
    proofs: Sequence[Proof], budget: int, keysets: Mapping[str, HasFee]
) -> tuple[list[Proof], int, int]:
    """Coins to swap for a token that costs `budget` at most, the mint's fee for that included.

    The coins, the token's units, the fee; of the coins, what is over comes back. Raises LocalError
    `wallet-empty` when not even one unit can be had so.
    """
    total = sum(proof.amount for proof in proofs)
    most, reserve = min(budget, total), 0
    while reserve < most:
        try:
            chosen = select(proofs, most - reserve, keysets)
        except LocalError:  # all of them do not leave so much
            reserve = max(reserve + 1, most - total + fee(proofs, keysets))
            continue
        taken = fee(chosen, keysets)
        if taken <= reserve:
            return chosen, most - reserve, taken
        reserve += max(1, (taken - reserve) // 2)  # half the way: less to pay needs fewer coins
    raise LocalError("the wallet has not enough coins", code="wallet-empty")


def digest(proofs: Iterable[Proof]) -> str:
    """A name for coins that gives none of them away: sha256 over their Ys, sorted, in hex."""
    ys = sorted(y_of(proof.secret) for proof in proofs)
    return hashlib.sha256("".join(ys).encode()).hexdigest()
