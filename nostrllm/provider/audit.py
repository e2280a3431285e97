"""Prove a provider's books from the rows alone: that nothing was lost, made up or kept twice.

Every set of postings must be the one that its order, transfer or withdrawal calls for, to the msat.
Then the coins are counted. A posting is written in the commit that moves the coins, so at any
moment, and so after any crash, for each mint and unit

    free + held + reserved + sent  =  ledger balance of coins:<unit>:<mint>  +  found

in msat, or in coins of a unit with a rate, where

- reserved coins count: they are inputs of a swap that is PREPARED (the books move when it is DONE),
  or of one that is SUSPECT (the mint took them and signed wrongly; the books keep showing them, the
  question whether all can be paid leaves them out);
- sent coins count until they are seen spent, but not those of a withdrawal, which are the owner's;
- a receive that is PREPARED or SUSPECT counts nowhere: its coins are not there, nor is its posting;
- found coins (`scan`, or `found:<operation>`) came from a past that a restored database had lost,
  and have no posting. They count in whatever state they are now, for what was made of them has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import starmap
from typing import Final

from nostrllm.core import ledger
from nostrllm.core.exchange import positions
from nostrllm.core.order import Settlement
from nostrllm.provider import audit_lightning, audit_locked, audit_requests
from nostrllm.provider.books import (
    Books,
    Coin,
    OperationRow,
    OrderRow,
    PlanRow,
    TransferRow,
    by_owner,
    liabilities,
    withdrawals,
)

#: Faults of one check that are kept; more are only counted.
FAULTS_SHOWN: Final = 20

Lines = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: how many rows it looked at, and what was wrong with which."""

    name: str
    count: int
    faults: tuple[str, ...] = ()
    faults_count: int = 0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Did it hold for all of them?"""
        return not self.faults_count


def checked(name: str, faults: Iterable[str | None], notes: Iterable[str] = ()) -> Check:
    """A check of one thing after another: None for each that is well, else what is wrong."""
    seen = list(faults)
    wrong = [fault for fault in seen if fault is not None]
    return Check(name, len(seen), tuple(wrong[:FAULTS_SHOWN]), len(wrong), tuple(notes))


@dataclass(frozen=True, slots=True)
class Wanted:
    """The postings of a set as its row calls for them; `due`: they must be there."""

    lines: Lines
    due: bool = True


def audit(books: Books) -> list[Check]:
    """Every check that needs no mint. Total over rows."""
    orders = {key: want for row in books.orders.values() for key, want in _of_order(books, row)}
    transfers = {
        key: want for row in books.transfers.values() for key, want in _of_transfer(books, row)
    }
    invoices = {key: Wanted(lines) for key, lines in audit_lightning.sets(books)}
    payouts = dict(_of_withdrawals(books))
    swaps = {key: Wanted(_lines(lines)) for key, lines in audit_locked.swaps(books)}
    honoured = {
        f"restored:{key}": Wanted(_lines(ledger.restored(*row)))
        for key, row in books.honoured.items()
    }
    plans = {key: want for row in books.plans.values() for key, want in _of_plan(row)}
    wanted = orders | transfers | invoices | payouts | swaps | honoured | plans
    return [
        Check("every row can be read", books.rows, tuple(books.odd[:FAULTS_SHOWN]), len(books.odd)),
        checked("every set of postings sums to zero", starmap(_zero, books.sets.items())),
        _all_zero(books),
        checked("accounts hold what the ledger says", _accounts(books)),
        checked("orders add up", (_adds_up(books, row) for row in books.orders.values())),
        checked("orders are booked as they ended", _booked(books, orders)),
        checked("top-ups and refunds are booked as they ended", _booked(books, transfers)),
        checked("invoices have a state that can be", audit_lightning.forms(books)),
        checked("invoices are booked as they ended", _booked(books, invoices)),
        checked("payments went to whoever asked", audit_requests.credited(books)),
        checked("plans are booked as they ended", _booked(books, plans)),
        checked("withdrawals are booked", _booked(books, payouts)),
        checked("swaps of locked tokens, and trials, are booked", _booked(books, swaps)),
        checked("locked tokens stand as their orders do", audit_locked.tokens(books)),
        checked("statements honoured after a restore are booked", _booked(books, honoured)),
        checked("what was pending is posted or void, once and when it is over", _pending(books)),
        checked("every set belongs to something", (_owned(key, wanted) for key in books.sets)),
        checked("every payment has its operation", _operations(books)),
        checked("every token that was taken is claimed", _claims(books)),
        checked("coins have the name of their secret", _names(books)),
        checked("coins are what the ledger says", _coins(books), _found(books)),
        checked("coins are held for open orders, and all they paid", _held(books)),
        checked("change given is the coins sent", _sent(books)),
        checked("reserved coins are in an operation", _reserved(books), _suspect(books)),
        checked("everybody can be paid", [_solvent(books)]),
    ]


def _zero(name: str, lines: Lines) -> str | None:
    totals = ledger.sums(lines.items())
    return f"{name} sums to {_amounts(totals)}" if totals else None


def _all_zero(books: Books) -> Check:
    totals = ledger.sums(line for lines in books.sets.values() for line in lines.items())
    count = sum(map(len, books.sets.values()))
    faults = (f"they sum to {_amounts(totals)}",) if totals else ()
    return Check("all postings sum to zero", count, faults, len(faults))


def _amounts(totals: Mapping[str, int]) -> str:
    return ", ".join(f"{amount} {name}" for name, amount in sorted(totals.items()))


def _accounts(books: Books) -> Iterator[str | None]:
    known = {
        account.removeprefix("account:"): -msat
        for account, msat in books.balances().items()
        if account.startswith("account:")
    }
    for pubkey in sorted(known.keys() | books.accounts.keys()):
        yield _differs(pubkey, books.accounts.get(pubkey, 0), known.get(pubkey, 0))


def _differs(what: str, found: int, wanted: int, counted: str = ledger.MSAT) -> str | None:
    return None if found == wanted else f"{what}: {found} {counted}, the ledger says {wanted}"


# the sets that rows call for


def _lines(postings: ledger.Postings) -> Lines:
    return {line.account: line.amount for line in postings}


def _place(row: OrderRow | TransferRow | OperationRow) -> str:
    return ledger.coins(row.mint, row.unit)


def _split(row: OrderRow) -> Settlement:
    return Settlement(row.cost_msat, row.change_units, row.credit_msat)


def _adds_up(books: Books, row: OrderRow) -> str | None:
    """Is every msat that was paid in cost, change or credit, and the cost within the budget?"""
    if row.state not in ("paying", "paid", "settled", "closed", "refused"):
        return f"order {row.id} has no known state"
    parts = (row.cost_msat, row.change_units * row.unit_msat, row.credit_msat)
    if min(parts) < 0 or row.net_msat < 0:
        return f"order {row.id} has a negative part"
    token = books.locked.get(row.id)
    all_back = token is not None and token.state == "released"
    if row.settled and sum(parts) != (0 if all_back else row.net_msat):
        return f"order {row.id}: {sum(parts)} msat of {row.net_msat} are accounted for"
    if not row.settled and any(parts):
        return f"order {row.id} is {row.state} and has a cost, change or credit"
    if row.cost_msat > row.budget_msat:
        return f"order {row.id} cost {row.cost_msat} msat of at most {row.budget_msat}"
    return None


def _of_plan(row: PlanRow) -> Iterator[tuple[str, Wanted]]:
    yield f"plan:{row.id}", Wanted(_lines(ledger.plan_bought(row.id, row.author, row.price_msat)))
    if row.state != "active":
        over = ledger.plan_over(row.id, row.author, row.price_msat, row.refund_msat)
        yield f"over:{row.id}", Wanted(_lines(over))


def _of_order(books: Books, row: OrderRow) -> Iterator[tuple[str, Wanted]]:
    for name, lines in audit_locked.of_order(books, row):
        yield name, Wanted(_lines(lines))
    if row.funding == "account":
        hold = ledger.account_held(row.id, books.payers.get(row.id, row.author), row.net_msat)
        yield f"held:{row.id}", Wanted(_lines(hold))
    elif row.paid and row.funding == "token":
        paid = ledger.token_paid(row.id, _place(row), row.net_msat, row.unit_msat)
        yield f"paid:{row.id}", Wanted(_lines(paid))
    if row.settled:
        end = audit_locked.end_of(books, row, _split(row))
        yield f"settled:{row.id}", Wanted(_lines(end))
    if row.settled and row.change_units and row.funding == "token":
        given = row.booked(row.change_units * row.unit_msat)
        taken = ledger.change_spent(row.id, _place(row), given)
        yield f"spent:{row.id}", Wanted(_lines(taken), due=False)


def _of_transfer(books: Books, row: TransferRow) -> Iterator[tuple[str, Wanted]]:
    if row.kind == "topup":
        if row.state == "done":
            lines = ledger.topped_up(row.author, _place(row), row.msat)
            yield f"topup:{row.id}", Wanted(_lines(lines))
        return
    # What was held is only in the ledger once the row says what was paid out.
    booked = -books.sets.get(f"held:{row.id}", {}).get(ledger.order(row.id), 0)
    held = row.msat if row.state == "pending" else booked
    yield f"held:{row.id}", Wanted(_lines(ledger.account_held(row.id, row.author, held)))
    if row.state == "pending":
        return
    done, operation = row.state == "done", books.operations.get(row.id)
    fee = operation.fee if done and operation else 0
    change = row.msat if done else 0
    refund = ledger.refunded(row.id, row.author, _place(row), held, change, fee)
    yield f"refund:{row.id}", Wanted(_lines(refund))
    if done:
        taken = ledger.change_spent(row.id, _place(row), row.msat)
        yield f"spent:{row.id}", Wanted(_lines(taken), due=False)


def _of_withdrawals(books: Books) -> Iterator[tuple[str, Wanted]]:
    for row in withdrawals(books):
        if row.state == "DONE":
            lines = ledger.withdrawn(_place(row), row.amount, row.fee)
            yield f"withdrawn:{row.id}", Wanted(_lines(lines))


def _booked(books: Books, wanted: Mapping[str, Wanted]) -> Iterator[str | None]:
    for name, want in wanted.items():
        lines = moved(books.sets.get(name, {}))
        if lines == want.lines or (not lines and not want.due):
            yield None
        else:
            yield f"{name} is not what its row calls for" if lines else f"{name} is missing"


#: Sets that make money pending, and those that post or void it.
PENDING: Final = ("paid", "held", "locked")
ENDED: Final = ("settled", "refund")


def _pending(books: Books) -> Iterator[str | None]:
    """The rule of core/ledger: each pending set has one end, once it is over and not before."""
    over = {row.id: row.settled for row in books.orders.values()}
    over |= {row.id: row.state != "pending" for row in books.transfers.values()}
    over |= {row.id: row.over for row in books.melts.values()}
    kinds: dict[str, list[str]] = {}
    for name in books.sets:
        kind, _, owner = name.partition(":")
        kinds.setdefault(owner, []).append(kind)
    balances = books.balances()
    for owner, found in kinds.items():
        begun = sum(kind in PENDING for kind in found)
        if not begun:
            continue
        ended, due = sum(kind in ENDED for kind in found), int(over.get(owner, False))
        left = balances.get(ledger.order(owner), 0)
        if begun > 1 or ended != due:
            yield f"{owner}: {begun} times pending and {ended} times posted or void, not {due}"
        else:
            yield f"{owner} is over and {left} msat are pending" if due and left else None


def moved(lines: Lines) -> Lines:
    """Without the accounts that a set leaves as they were."""
    return {account: msat for account, msat in lines.items() if msat}


def _owned(name: str, wanted: Mapping[str, Wanted]) -> str | None:
    return None if name in wanted else f"{name} belongs to nothing"


# operations and claims


def _operations(books: Books) -> Iterator[str | None]:
    """Does the mint's side of each payment say what the order or transfer says?"""
    ends = {"done": "DONE", "pending": "PREPARED", "paying": "PREPARED"}
    for order in books.orders.values():
        if order.funding == "token":
            end = "DONE" if order.paid else ends.get(order.state, "")
            net = order.booked(order.net_msat) if order.paid else None
            yield _matches(books, order.id, ("receive", end), net)
    for row in books.transfers.values():
        kind = "receive" if row.kind == "topup" else "send"
        msat = row.msat if row.state == "done" else None
        if kind == "receive" or row.id in books.operations or row.state == "done":
            yield _matches(books, row.id, (kind, ends.get(row.state, "")), msat)
    for due in audit_lightning.operations(books):
        yield _matches(books, due.op_id, (due.kind, due.end), due.msat)


def _matches(books: Books, op_id: str, wanted: tuple[str, str], net: int | None) -> str | None:
    operation = books.operations.get(op_id)
    if operation is None:
        return f"{op_id} has no operation"
    kind, end = wanted
    ended = operation.state == end if end else operation.state in ("REJECTED", "SUSPECT")
    if operation.kind != kind or not ended:
        return f"{op_id}: its operation is a {operation.kind} that is {operation.state}"
    came = operation.amount - (operation.fee if kind == "receive" else 0)
    if net is not None and came != net:
        return f"{op_id}: its operation moved {came}, not {net}"
    return None


def _claims(books: Books) -> Iterator[str | None]:
    for row in books.operations.values():
        if row.kind == "receive" and row.state == "DONE":
            missing = [y for y in row.ys if books.claims.get((row.mint, y)) != row.id]
            if not row.ys:
                yield f"{row.id} took no coins"
            else:
                yield f"{row.id}: {len(missing)} coins are not claimed by it" if missing else None


# coins


def _names(books: Books) -> Iterator[str | None]:
    for coin in books.coins:
        yield None if coin.named else f"coin {coin.y} has another secret"


def _coins(books: Books) -> Iterator[str | None]:
    """The rule at the top of this file, per mint and unit."""
    have: Counter[str] = Counter()
    for coin in _kept(books):
        have[ledger.coins(coin.mint, coin.unit)] += coin.worth
    have.subtract(_found_worth(books))
    booked = {
        account: msat for account, msat in books.balances().items() if account.startswith("coins:")
    }
    for place in sorted(have.keys() | booked.keys()):
        yield _differs(place, have[place], booked.get(place, 0), ledger.currency(place))


def _kept(books: Books) -> Iterator[Coin]:
    """Coins that are not spent, and not the owner's own."""
    own = {row.id for row in withdrawals(books)}
    for coin in books.coins:
        if coin.state != "spent" and not (coin.state == "sent" and coin.owner in own):
            yield coin


def _found_worth(books: Books) -> Counter[str]:
    found: Counter[str] = Counter()
    for coin in books.coins:
        if coin.found:
            found[ledger.coins(coin.mint, coin.unit)] += coin.worth
    return found


def _found(books: Books) -> list[str]:
    return [
        f"found in {place}: {worth} {ledger.currency(place)}"
        for place, worth in _found_worth(books).items()
    ]


def _held(books: Books) -> Iterator[str | None]:
    held = by_owner(books, "held")
    due = {
        row.id: row.booked(row.net_msat)
        for row in books.orders.values()
        if row.funding == "token" and row.state == "paid"
    }
    for owner in sorted(held.keys() | due.keys()):
        counted = _counted(books, owner)
        yield _differs(f"order {owner}", held[owner], due.get(owner, 0), counted)


def _sent(books: Books) -> Iterator[str | None]:
    sent = by_owner(books, "sent")
    owed = {
        account.removeprefix(f"{ledger.own('change', ledger.currency(account))}:"): -msat
        for account, msat in books.balances().items()
        if account.startswith("change:")
    }
    own = {row.id: row.amount for row in withdrawals(books)}
    trials = {row.id for row in books.operations.values() if audit_locked.is_trial(row)}
    due = audit_locked.change_due(books)
    for owner in sorted((sent.keys() | owed.keys()) - trials):
        wanted = own[owner] if owner in own else owed.get(owner, 0) - due[owner]
        yield _differs(f"change of {owner}", sent[owner], wanted, _counted(books, owner))


def _counted(books: Books, owner: str) -> str:
    """What the ledger counts the coins of an order in."""
    row = books.orders.get(owner)
    return ledger.MSAT if row is None else ledger.currency(_place(row))


def _reserved(books: Books) -> Iterator[str | None]:
    for owner in sorted(by_owner(books, "reserved")):
        row = books.operations.get(owner)
        well = row is not None and row.state in ("PREPARED", "SUSPECT")
        yield None if well else f"coins are reserved for {owner}, which is not under way"


def suspect(books: Books) -> Counter[str]:
    """What is in the books and lost, by the ledger's name of such coins: inputs of swaps that the
    mint signed wrongly."""
    lost: Counter[str] = Counter()
    for coin in books.coins:
        row = books.operations.get(coin.owner)
        if coin.state == "reserved" and row is not None and row.state == "SUSPECT":
            lost[ledger.coins(coin.mint, coin.unit)] += coin.worth
    return lost


def _suspect(books: Books) -> list[str]:
    return [
        f"lost in {place}: {worth} {ledger.currency(place)}"
        for place, worth in suspect(books).items()
    ]


def _solvent(books: Books) -> str | None:
    """Do coins that are worth something cover accounts, open orders and change?

    Coins of a unit with a rate count what they were taken for: no rate is asked here.
    """
    held: Counter[str] = Counter({ledger.MSAT: audit_locked.locked_msat(books)})
    for coin in _kept(books):
        held[ledger.currency(ledger.coins(coin.mint, coin.unit))] += coin.worth
    for place, worth in suspect(books).items():
        held[ledger.currency(place)] -= worth
    have = held[ledger.MSAT]
    for unit, position in positions(books.balances()).items():
        if held[unit] < position.change:
            return f"{held[unit]} {unit} of coins for {position.change} of change"
        have += position.at_cost(held[unit] - position.change)
    owed = sum(liabilities(books).values())
    return None if have >= owed else f"{have} msat of coins for {owed} msat of liabilities"
