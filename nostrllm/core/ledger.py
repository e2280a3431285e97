"""Double-entry bookkeeping in msat: a set of postings sums to zero, or it is not written.

Accounts are named by what they stand for. Debits are positive:

    coins:<mint>        what we hold there           (asset)
    order:<id>          paid in, not yet settled     (liability)
    account:<pubkey>    a client's balance           (liability)
    change:<id>         change given, not yet spent  (liability)
    income              what answers earned
    fees                mint fees we bore, and rounding in our favour
    owner               what the owner took out
"""

from __future__ import annotations

from dataclasses import dataclass

from nostrllm.core.order import Settlement
from nostrllm.errors import LocalError


class LedgerError(LocalError):
    """The postings do not sum to zero: a bug, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of a set; positive msat is a debit."""

    account: str
    msat: int


Postings = tuple[Posting, ...]


def balanced(*lines: tuple[str, int]) -> Postings:
    """The lines that move anything, checked to sum to zero. Raises LedgerError."""
    if sum(msat for _, msat in lines) != 0:
        raise LedgerError
    return tuple(Posting(account, msat) for account, msat in lines if msat)


def coins(mint: str) -> str:
    """What we hold at a mint."""
    return f"coins:{mint}"


def order(order_id: str) -> str:
    """What was paid in for an order."""
    return f"order:{order_id}"


def account(pubkey: str) -> str:
    """A client's balance."""
    return f"account:{pubkey}"


def change(owner: str) -> str:
    """Coins given away and not yet seen spent."""
    return f"change:{owner}"


def token_paid(order_id: str, mint: str, net_msat: int) -> Postings:
    """The mint swapped a token for an order; its fee was burned before it reached us."""
    return balanced((coins(mint), net_msat), (order(order_id), -net_msat))


def account_held(order_id: str, pubkey: str, hold_msat: int) -> Postings:
    """A part of a balance is set aside for an order."""
    return balanced((account(pubkey), hold_msat), (order(order_id), -hold_msat))


def settled(order_id: str, pubkey: str, split: Settlement, unit_msat: int) -> Postings:
    """An order is over: what was paid in becomes income, change and credit."""
    change_msat = split.change_units * unit_msat
    return balanced(
        (order(order_id), split.cost_msat + change_msat + split.credit_msat),
        ("income", -split.cost_msat),
        (change(order_id), -change_msat),
        (account(pubkey), -split.credit_msat),
    )


def topped_up(pubkey: str, mint: str, net_msat: int) -> Postings:
    """A token went straight into an account."""
    return balanced((coins(mint), net_msat), (account(pubkey), -net_msat))


def refunded(
    owner: str, pubkey: str, mint: str, held_msat: int, change_msat: int, fee_msat: int
) -> Postings:
    """A held part of a balance was paid out as a token; the swap's fee is the client's.

    A fee beyond what was held is ours to bear; what is left of the hold goes back.
    """
    ours_msat = max(0, change_msat + fee_msat - held_msat)
    return balanced(
        (order(owner), held_msat),
        (change(owner), -change_msat),
        (coins(mint), -fee_msat),
        ("fees", ours_msat),
        (account(pubkey), change_msat + fee_msat - ours_msat - held_msat),
    )


def change_spent(owner: str, mint: str, change_msat: int) -> Postings:
    """The mint says the coins given away are spent: they are no longer ours in any sense."""
    return balanced((change(owner), change_msat), (coins(mint), -change_msat))


def withdrawn(mint: str, msat: int, fee_msat: int) -> Postings:
    """The owner took coins out; the fee of the swap that made them is borne like any other."""
    return balanced((coins(mint), -msat - fee_msat), ("owner", msat), ("fees", fee_msat))
