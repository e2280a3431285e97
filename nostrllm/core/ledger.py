"""Double-entry bookkeeping: in each currency a set of postings sums to zero, or is not written.

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
    exchange            what coins of units with a rate were taken for, less what they went for

Amounts are msat, so that one order can pay in one unit and be credited in another; the coins of
each mint and unit have an account of their own, so that each can be counted at its mint.

A unit whose worth is a rate (usd) is a currency of its own, told by the second part of an account's
name and counted in whole coins: coins:usd:<mint>, change:usd:<id>, fees:usd, owner:usd. What an
order paid in it is exchanged at the rate that the order was accepted at, by two entries: coins
through exchange:usd, and msat through exchange ("trading accounts", Peter Selinger, Tutorial on
multiple currency accounting). No entry joins two currencies, so no rate is needed to prove the
books; exchange:usd is the position, exchange what it cost.

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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nostrllm.core.money import RATED
from nostrllm.core.order import Settlement
from nostrllm.errors import LocalError

#: What an account's name begins with, up to the colon.
KINDS: Final = frozenset(
    {"coins", "locked", "lost", "order", "account", "change", "plan", "income", "fees", "owner"}
    | {"exchange"},
)

#: The currency of every account whose name tells no other.
MSAT: Final = "msat"


class LedgerError(LocalError):
    """The postings do not sum to zero, or name no account: a bug, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of a set, in the account's currency; a positive amount is a debit."""

    account: str
    amount: int


Postings = tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """So much, more than nothing, from the account `credit` to `debit`, of one currency."""

    debit: str
    credit: str
    amount: int


def currency(account: str) -> str:
    """What an account counts: MSAT, or the coins of a unit with a rate."""
    unit = account.partition(":")[2].partition(":")[0]
    return unit if unit in RATED else MSAT


def sums(lines: Iterable[tuple[str, int]]) -> dict[str, int]:
    """What lines come to, per currency; zeros left out."""
    found: dict[str, int] = {}
    for account, amount in lines:
        name = currency(account)
        found[name] = found.get(name, 0) + amount
    return {name: amount for name, amount in found.items() if amount}


def balanced(*lines: tuple[str, int]) -> Postings:
    """The lines that move anything, checked to sum to zero. Raises LedgerError."""
    if sums(lines):
        raise LedgerError
    if not all(account.partition(":")[0] in KINDS for account, _ in lines):
        raise LedgerError
    return tuple(Posting(account, amount) for account, amount in lines if amount)


def entries(postings: Postings) -> tuple[Entry, ...]:
    """The same set as movements between two accounts each. Raises LedgerError."""
    if sums((line.account, line.amount) for line in postings):
        raise LedgerError
    heaps: dict[str, list[Posting]] = {}
    for line in postings:
        heaps.setdefault(currency(line.account), []).append(line)
    return tuple(entry for heap in heaps.values() for entry in _paired(heap))


def _paired(postings: Sequence[Posting]) -> Iterator[Entry]:
    debits = [line for line in postings if line.amount > 0]
    credited = [line for line in postings if line.amount < 0]
    while debits:
        to, by = debits.pop(), credited.pop()
        amount = min(to.amount, -by.amount)
        yield Entry(to.account, by.account, amount)
        if to.amount > amount:
            debits.append(Posting(to.account, to.amount - amount))
        if -by.amount > amount:
            credited.append(Posting(by.account, by.amount + amount))


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


def change(owner: str, of: str = MSAT) -> str:
    """Coins given away and not yet seen spent, of a currency."""
    return f"change:{owner}" if of == MSAT else f"change:{of}:{owner}"


def own(kind: str, of: str) -> str:
    """The account of this kind for a currency: of `owner`, `fees`, `exchange`."""
    return kind if of == MSAT else f"{kind}:{of}"


# `place` is everywhere the ledger's name of the coins that move: see `coins`. What is not called
# msat is in its currency.


def token_paid(order_id: str, place: str, net_msat: int, unit_msat: int) -> Postings:
    """The mint swapped a token for an order; its fee was burned before it reached us.

    Coins of a unit with a rate are exchanged at once, `unit_msat` for each.
    """
    of = currency(place)
    if of == MSAT:
        return balanced((place, net_msat), (order(order_id), -net_msat))
    units = net_msat // unit_msat
    return balanced(
        (place, units),
        (own("exchange", of), -units),
        ("exchange", net_msat),
        (order(order_id), -net_msat),
    )


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
    order_id: str,
    pubkey: str,
    split: Settlement,
    unit_msat: int,
    fee_msat: int = 0,
    *,
    unit: str = "",
) -> Postings:
    """An order is over: what was paid in becomes income, change and credit.

    Change is in coins of `unit`, each of which is worth `unit_msat`. `fee_msat`: what a locked
    token pays for its swap, which is still to come.
    """
    units = split.change_units
    change_msat = units * unit_msat
    if unit in RATED:
        given = [
            ("exchange", -change_msat),
            (own("exchange", unit), units),
            (change(order_id, unit), -units),
        ]
    else:
        given = [(change(order_id), -change_msat)]
    return balanced(
        (order(order_id), split.cost_msat + change_msat + split.credit_msat + fee_msat),
        ("income", -split.cost_msat),
        *given,
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


def spoiled(place: str, amount: int) -> Postings:
    """The mint signed coins wrongly that were to be ours: they are worth nothing."""
    return balanced((own("lost", currency(place)), amount), (place, -amount))


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


def change_spent(owner: str, place: str, amount: int) -> Postings:
    """The mint says the coins given away are spent: they are no longer ours in any sense."""
    return balanced((change(owner, currency(place)), amount), (place, -amount))


def fee_borne(place: str, fee: int) -> Postings:
    """A swap of our own coins cost us the mint's fee."""
    return balanced((own("fees", currency(place)), fee), (place, -fee))


def deposited(place: str, net: int) -> Postings:
    """The owner put coins in."""
    return balanced((place, net), (own("owner", currency(place)), -net))


def restored(pubkey: str, msat: int) -> Postings:
    """A balance is what our own newer statement says of it, so much more than the books knew."""
    return balanced(("lost", msat), (account(pubkey), -msat))


def withdrawn(place: str, amount: int, fee: int) -> Postings:
    """The owner took coins out; the fee of the swap that made them is borne like any other."""
    of = currency(place)
    return balanced((place, -amount - fee), (own("owner", of), amount), (own("fees", of), fee))
