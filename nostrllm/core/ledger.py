"""Double-entry bookkeeping in msat: a set of postings sums to zero, or it is not written.

Accounts are named by what they stand for. Debits are positive:

    coins:<unit>:<mint> what we hold there           (asset)
    locked:<unit>:<mint> locked coins only we can take, not yet swapped  (asset)
    order:<id>          paid in, not yet settled     (liability)
    account:<pubkey>    a client's balance           (liability)
    change:<id>         change given, not yet spent  (liability)
    plan:<id>           a plan bought, not yet over  (liability)
    income              what answers earned
    fees                mint fees we bore, and rounding in our favour
    lost                locked coins that the mint never gave us, and what a restored store did
                        not know that we owed
    owner               what the owner took out

Amounts are msat everywhere, so that one order can pay in one unit and be credited in another; the
coins of each mint and unit have an account of their own, so that each can be counted at its mint.

Money that something is waiting for is pending: it lies in `order:<id>`, put there by one set,
`paid:<id>` (a token), `locked:<id>` (a locked one) or `held:<id>` (from an account). When that
order or refund is over, exactly one other set takes all of it out again, and `order:<id>` is zero
for ever:

- post: `settled:<id>` or `refund:<id>` moves it to income, change, coins and what is left over;
- void: the same set, in which all of it goes back to whom it came from.

Neither exists while the order or refund is under way. The audit checks both halves, row by row.
A locked token that was posted is no coin of ours yet: `redeemed:<swap>` makes coins of it.

The store keeps no single postings but entries: so much from one account to another. An entry sums
to zero by its form, so no write can unbalance the books, whoever makes it; the name of a set and
the number of the entry are unique, so no set is written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nostrllm.core.order import Settlement
from nostrllm.errors import LocalError

#: What an account's name begins with, up to the colon.
KINDS: Final = frozenset(
    {"coins", "locked", "lost", "order", "account", "change", "plan", "income", "fees", "owner"},
)


class LedgerError(LocalError):
    """The postings do not sum to zero, or name no account: a bug, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of a set; positive msat is a debit."""

    account: str
    msat: int


Postings = tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """So many msat, more than none, from the account `credit` to the account `debit`."""

    debit: str
    credit: str
    msat: int


def balanced(*lines: tuple[str, int]) -> Postings:
    """The lines that move anything, checked to sum to zero. Raises LedgerError."""
    if sum(msat for _, msat in lines) != 0:
        raise LedgerError
    if not all(account.partition(":")[0] in KINDS for account, _ in lines):
        raise LedgerError
    return tuple(Posting(account, msat) for account, msat in lines if msat)


def entries(postings: Postings) -> tuple[Entry, ...]:
    """The same set as movements between two accounts each. Raises LedgerError."""
    if sum(line.msat for line in postings) != 0:
        raise LedgerError
    found: list[Entry] = []
    debits = [line for line in postings if line.msat > 0]
    credited = [line for line in postings if line.msat < 0]
    while debits:
        to, by = debits.pop(), credited.pop()
        msat = min(to.msat, -by.msat)
        found.append(Entry(to.account, by.account, msat))
        if to.msat > msat:
            debits.append(Posting(to.account, to.msat - msat))
        if -by.msat > msat:
            credited.append(Posting(by.account, by.msat + msat))
    return tuple(found)


def coins(mint: str, unit: str) -> str:
    """What we hold at a mint in coins of a unit."""
    return f"coins:{unit}:{mint}"


def locked(mint: str, unit: str) -> str:
    """What is locked to us at a mint in coins of a unit, and not swapped yet."""
    return f"locked:{unit}:{mint}"


def order(order_id: str) -> str:
    """What was paid in for an order."""
    return f"order:{order_id}"


def account(pubkey: str) -> str:
    """A client's balance."""
    return f"account:{pubkey}"


def change(owner: str) -> str:
    """Coins given away and not yet seen spent."""
    return f"change:{owner}"


# `place` is everywhere the ledger's name of the coins that move: see `coins`


def token_paid(order_id: str, place: str, net_msat: int) -> Postings:
    """The mint swapped a token for an order; its fee was burned before it reached us."""
    return balanced((place, net_msat), (order(order_id), -net_msat))


def lock_accepted(order_id: str, place: str, worth_msat: int) -> Postings:
    """A locked token pays for an order; it is worth this, the mint's fee included.

    `place` is here and below the ledger's name of locked coins: see `locked`.
    """
    return balanced((place, worth_msat), (order(order_id), -worth_msat))


def lock_released(order_id: str, place: str, worth_msat: int) -> Postings:
    """Nothing was taken of it: the client has it back whole."""
    return balanced((order(order_id), worth_msat), (place, -worth_msat))


def account_held(order_id: str, pubkey: str, hold_msat: int) -> Postings:
    """A part of a balance is set aside for an order."""
    return balanced((account(pubkey), hold_msat), (order(order_id), -hold_msat))


def settled(
    order_id: str, pubkey: str, split: Settlement, unit_msat: int, fee_msat: int = 0
) -> Postings:
    """An order is over: what was paid in becomes income, change and credit.

    `fee_msat`: what a locked token pays for its swap, which is still to come.
    """
    change_msat = split.change_units * unit_msat
    return balanced(
        (order(order_id), split.cost_msat + change_msat + split.credit_msat + fee_msat),
        ("income", -split.cost_msat),
        (change(order_id), -change_msat),
        (account(pubkey), -split.credit_msat),
        ("fees", -fee_msat),
    )


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A locked token as it is swapped: its worth, and the change that the mint signed for it."""

    order_id: str
    worth_msat: int
    change_msat: int


def redeemed(place: str, to: str, orders: Sequence[Redeemed], fee_msat: int) -> Postings:
    """One swap made coins (`to`) of locked tokens and gave out their change; the fee in all."""
    worth = sum(each.worth_msat for each in orders)
    given = [(change(each.order_id), each.change_msat) for each in orders]
    return balanced(
        (place, -worth),
        *given,
        ("fees", fee_msat),
        (to, worth - sum(msat for _, msat in given) - fee_msat),
    )


def spoiled(place: str, msat: int) -> Postings:
    """The mint signed coins wrongly that were to be ours: they are worth nothing."""
    return balanced(("lost", msat), (place, -msat))


def change_credited(order_id: str, pubkey: str, change_msat: int) -> Postings:
    """Change that the mint would not sign goes to the client's account."""
    return balanced((change(order_id), change_msat), (account(pubkey), -change_msat))


def lock_lost(order_id: str, place: str, worth_msat: int, change_msat: int) -> Postings:
    """The mint gave us nothing for a locked token; its change is no longer ours to give."""
    return balanced(
        (place, -worth_msat),
        (change(order_id), change_msat),
        ("lost", worth_msat - change_msat),
    )


def topped_up(pubkey: str, place: str, net_msat: int) -> Postings:
    """A token went straight into an account."""
    return balanced((place, net_msat), (account(pubkey), -net_msat))


def refunded(
    owner: str, pubkey: str, place: str, held_msat: int, change_msat: int, fee_msat: int
) -> Postings:
    """A held part of a balance was paid out as a token; the swap's fee is the client's.

    A fee beyond what was held is ours to bear; what is left of the hold goes back.
    """
    ours_msat = max(0, change_msat + fee_msat - held_msat)
    return balanced(
        (order(owner), held_msat),
        (change(owner), -change_msat),
        (place, -fee_msat),
        ("fees", ours_msat),
        (account(pubkey), change_msat + fee_msat - ours_msat - held_msat),
    )


def invoice_paid(
    owner: str, pubkey: str, place: str, held_msat: int, paid_msat: int, fee_msat: int
) -> Postings:
    """A held part of a balance paid an invoice of the client's; all that it cost is his.

    What it cost beyond the hold is ours to bear; what is left of the hold goes back.
    """
    cost_msat = paid_msat + fee_msat
    ours_msat = max(0, cost_msat - held_msat)
    return balanced(
        (order(owner), held_msat),
        (place, -cost_msat),
        ("fees", ours_msat),
        (account(pubkey), cost_msat - ours_msat - held_msat),
    )


def plan_bought(plan_id: str, pubkey: str, price_msat: int) -> Postings:
    """A plan was paid from a balance; it is earned when it is over."""
    return balanced((account(pubkey), price_msat), (f"plan:{plan_id}", -price_msat))


def plan_over(plan_id: str, pubkey: str, price_msat: int, refund_msat: int) -> Postings:
    """A plan ended: what comes back, and the rest is earned."""
    return balanced(
        (f"plan:{plan_id}", price_msat),
        (account(pubkey), -refund_msat),
        ("income", refund_msat - price_msat),
    )


def change_spent(owner: str, place: str, change_msat: int) -> Postings:
    """The mint says the coins given away are spent: they are no longer ours in any sense."""
    return balanced((change(owner), change_msat), (place, -change_msat))


def fee_borne(place: str, fee_msat: int) -> Postings:
    """A swap of our own coins cost us the mint's fee."""
    return balanced(("fees", fee_msat), (place, -fee_msat))


def deposited(place: str, net_msat: int) -> Postings:
    """The owner put coins in."""
    return balanced((place, net_msat), ("owner", -net_msat))


def restored(pubkey: str, msat: int) -> Postings:
    """A balance is what our own newer statement says of it, so much more than the books knew."""
    return balanced(("lost", msat), (account(pubkey), -msat))


def withdrawn(place: str, msat: int, fee_msat: int) -> Postings:
    """The owner took coins out; the fee of the swap that made them is borne like any other."""
    return balanced((place, -msat - fee_msat), ("owner", msat), ("fees", fee_msat))
