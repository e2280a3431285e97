"""A provider's rows, read once and made sure of: what an audit and a withdrawal reckon with.

A row that is not what the program writes is listed and left out, so that whatever a disk or a hand
did to the database, everything after this can rely on types.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from nostrllm.core import ledger
from nostrllm.core.exchange import Position, positions
from nostrllm.core.money import RATED, booked, unit_msat
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import NostrllmError
from nostrllm.ports import Row, Store
from nostrllm.wire.token import Dleq, Proof

_T = TypeVar("_T")

#: Operations of this prefix are the owner's withdrawals; a client's have the id of a message.
WITHDRAWAL: Final = "withdraw-"
#: Those that the daemon makes by itself.
SWEEP: Final = f"{WITHDRAWAL}sweep-"

#: Operations of this prefix are coins that the owner put in.
DEPOSIT: Final = "deposit-"

#: What an odd row does to the code that reads it.
_ODD: Final = (LookupError, TypeError, ValueError, AttributeError, RecursionError, NostrllmError)


@dataclass(frozen=True, slots=True)
class OrderRow:
    """What an order says of money, in msat; `unit_msat` is one coin, as it was accepted."""

    id: str
    author: str
    funding: str
    state: str
    mint: str
    unit: str
    unit_msat: int
    budget_msat: int
    net_msat: int
    cost_msat: int
    change_units: int
    credit_msat: int

    def booked(self, msat: int) -> int:
        """So much as the ledger counts the coins that paid."""
        return msat // self.unit_msat if self.unit in RATED else msat

    @property
    def settled(self) -> bool:
        """Is it over, and was it paid?"""
        return self.state in ("settled", "closed")

    @property
    def paid(self) -> bool:
        """Did the money ever come in?"""
        return self.settled or self.state == "paid"


@dataclass(frozen=True, slots=True)
class TransferRow:
    """A top-up or a refund."""

    id: str
    kind: str
    author: str
    state: str
    mint: str
    unit: str
    msat: int


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """What came for a payment request; `author` was sent the request, so the money is his."""

    id: str
    author: str
    state: str


@dataclass(frozen=True, slots=True)
class DepositRow:
    """An invoice that fills an account."""

    id: str
    author: str
    state: str
    mint: str
    unit: str
    quote: str
    msat: int


@dataclass(frozen=True, slots=True)
class MeltRow:
    """An invoice that an account pays, for so much at most, and what it cost in the end."""

    id: str
    author: str
    state: str
    mint: str
    unit: str
    msat: int
    held_msat: int
    paid_msat: int
    fee_msat: int

    @property
    def over(self) -> bool:
        """Is it paid, or will it never be?"""
        return self.state in ("done", "refused")


@dataclass(frozen=True, slots=True)
class Coin:
    """A proof of ours. `proof` is it as the mint takes it; `named`: its Y is that of its secret.

    `worth` as the ledger counts it: msat, or coins of a unit with a rate.
    """

    y: str
    mint: str
    unit: str
    worth: int
    state: str
    owner: str
    operation: str
    proof: Proof
    named: bool

    @property
    def found(self) -> bool:
        """Did it come from a past that the database had lost, so that no posting knows of it?"""
        return self.operation == "scan" or self.operation.startswith("found:")


@dataclass(frozen=True, slots=True)
class OperationRow:
    """A request to a mint; `ys` names the coins that a receive took.

    `amount` and `fee` as the ledger counts them, and `lost`: what the mint signed wrongly of our
    part of a settle.
    """

    id: str
    kind: str
    state: str
    mint: str
    unit: str
    amount: int
    fee: int
    ys: tuple[str, ...]
    lost: int = 0


@dataclass(frozen=True, slots=True)
class LockedRow:
    """A token that is or was locked to us; `change_units` is what was signed for its payer."""

    id: str
    author: str
    mint: str
    unit: str
    worth_msat: int
    state: str
    change_units: int
    credit_units: int
    batch: str

    @property
    def signed_msat(self) -> int:
        """What was or is to be signed."""
        return self.change_units * booked(self.unit)

    @property
    def change_msat(self) -> int:
        """All of the change, what is credited with the swap included."""
        return self.signed_msat + self.credit_units * booked(self.unit)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan that somebody bought."""

    id: str
    author: str
    state: str
    price_msat: int
    refund_msat: int


@dataclass(slots=True)
class Books:
    """Every row that money depends on. `odd` lists those that cannot be read."""

    orders: dict[str, OrderRow] = field(default_factory=dict)
    transfers: dict[str, TransferRow] = field(default_factory=dict)
    deposits: dict[str, DepositRow] = field(default_factory=dict)
    melts: dict[str, MeltRow] = field(default_factory=dict)
    payments: dict[str, PaymentRow] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    plans: dict[str, PlanRow] = field(default_factory=dict)
    payers: dict[str, str] = field(default_factory=dict)
    sets: dict[str, dict[str, int]] = field(default_factory=dict)
    coins: list[Coin] = field(default_factory=list)
    locked: dict[str, LockedRow] = field(default_factory=dict)
    operations: dict[str, OperationRow] = field(default_factory=dict)
    claims: dict[tuple[str, str], str] = field(default_factory=dict)
    honoured: dict[str, tuple[str, int]] = field(default_factory=dict)
    rows: int = 0
    odd: list[str] = field(default_factory=list)

    def balances(self) -> dict[str, int]:
        """Each ledger account's balance in its currency; debits are positive, zeros left out."""
        found: dict[str, int] = {}
        for lines in self.sets.values():
            for account, msat in lines.items():
                found[account] = found.get(account, 0) + msat
        return {account: msat for account, msat in found.items() if msat}


async def read_books(store: Store) -> Books:
    """Read all of a provider's store. Nothing may write to it meanwhile."""
    books = Books()
    for name, table, read in (
        ("orders_all", "order", _order),
        ("transfers_all", "transfer", _transfer),
        ("deposits_all", "invoice", _deposit),
        ("melts_all", "payment", _melt),
        ("payments_all", "paid request", _payment),
        ("accounts_all", "account", _account),
        ("subscriptions_all", "plan", _plan),
        ("drawn_all", "drawn", _drawn),
        ("postings_all", "posting", _posting),
        ("audit_proofs", "coin", _coin),
        ("locked_rows", "locked token", _locked),
        ("audit_operations", "operation", _operation),
        ("audit_claims", "claim", _claim),
        ("honoured_all", "honoured statement", _honoured),
    ):
        _take(books, table, await store.read(name), read)
    return books


def _take(
    books: Books, table: str, rows: Iterable[Row], read: Callable[[Books, Row], None]
) -> None:
    for number, row in enumerate(rows, 1):
        books.rows += 1
        try:
            read(books, row)
        except _ODD:
            books.odd.append(f"{table} number {number} is not one")


def _of(row: Row, name: str, kind: type[_T]) -> _T:
    value: Any = row[name]
    if not isinstance(value, kind):
        raise TypeError(name)
    return value


def _text(row: Row, name: str) -> str:
    return _of(row, name, str)


def _whole(row: Row, name: str) -> int:
    return _of(row, name, int)


def _order(books: Books, row: Row) -> None:
    net = _whole(row, "net_msat")
    unit = _text(row, "unit")
    if unit:
        booked(unit)
    books.orders[_text(row, "id")] = OrderRow(
        **{name: _text(row, name) for name in ("id", "author", "funding", "state", "mint")},
        unit=unit,
        unit_msat=max(1, _whole(row, "unit_msat")),
        budget_msat=max(0, min(_whole(row, "ceiling_msat") - _whole(row, "fee_msat"), net)),
        net_msat=net,
        cost_msat=_whole(row, "cost_msat"),
        change_units=_whole(row, "change_units"),
        credit_msat=_whole(row, "credit_msat"),
    )


def _transfer(books: Books, row: Row) -> None:
    unit_msat(_text(row, "unit"))
    books.transfers[_text(row, "id")] = TransferRow(
        **{name: _text(row, name) for name in ("id", "kind", "author", "state", "mint", "unit")},
        msat=_whole(row, "msat"),
    )


def _deposit(books: Books, row: Row) -> None:
    unit_msat(_text(row, "unit"))
    names = ("id", "author", "state", "mint", "unit", "quote")
    books.deposits[_text(row, "id")] = DepositRow(
        **{name: _text(row, name) for name in names}, msat=_whole(row, "msat")
    )


def _melt(books: Books, row: Row) -> None:
    unit_msat(_text(row, "unit"))
    texts = {name: _text(row, name) for name in ("id", "author", "state", "mint", "unit")}
    books.melts[_text(row, "id")] = MeltRow(
        **texts,
        msat=_whole(row, "msat"),
        held_msat=_whole(row, "held_msat"),
        paid_msat=_whole(row, "paid_msat"),
        fee_msat=_whole(row, "fee_msat"),
    )


def _payment(books: Books, row: Row) -> None:
    books.payments[_text(row, "id")] = PaymentRow(
        **{name: _text(row, name) for name in ("id", "author", "state")}
    )


def _account(books: Books, row: Row) -> None:
    books.accounts[_text(row, "pubkey")] = _whole(row, "balance_msat")


def _plan(books: Books, row: Row) -> None:
    books.plans[_text(row, "id")] = PlanRow(
        **{name: _text(row, name) for name in ("id", "author", "state")},
        price_msat=_whole(row, "price_msat"),
        refund_msat=_whole(row, "refund_msat"),
    )


def _drawn(books: Books, row: Row) -> None:
    books.payers[_text(row, "order_id")] = _text(row, "payer")


def _posting(books: Books, row: Row) -> None:
    _whole(row, "at")
    lines = books.sets.setdefault(_text(row, "set_id"), {})
    account = _text(row, "account")
    lines[account] = lines.get(account, 0) + _whole(row, "msat")


def _coin(books: Books, row: Row) -> None:
    unit, secret, amount = _text(row, "unit"), _text(row, "secret"), _whole(row, "amount")
    dleq = Dleq(*(_text(row, name) for name in ("dleq_e", "dleq_s", "dleq_r")))
    names = ("y", "mint", "state", "owner", "operation")
    books.coins.append(
        Coin(
            **{name: _text(row, name) for name in names},
            unit=unit,
            worth=amount * booked(unit),
            proof=Proof(_text(row, "keyset_id"), amount, secret, _text(row, "c"), dleq),
            named=row["state"] == "spent" or y_of(secret) == row["y"],
        )
    )


def _locked(books: Books, row: Row) -> None:
    booked(_text(row, "unit"))
    names = ("id", "author", "mint", "unit", "state", "batch")
    books.locked[_text(row, "id")] = LockedRow(
        **{name: _text(row, name) for name in names},
        worth_msat=_whole(row, "worth_msat"),
        change_units=_whole(row, "change_units"),
        credit_units=_whole(row, "credit_units"),
    )


def _operation(books: Books, row: Row) -> None:
    worth = booked(_text(row, "unit"))
    taken: tuple[str, ...] = ()
    if row["body"]:
        taken = tuple(y_of(coin["secret"]) for coin in json.loads(_text(row, "body"))["inputs"])
    books.operations[_text(row, "id")] = OperationRow(
        **{name: _text(row, name) for name in ("id", "kind", "state", "mint", "unit")},
        amount=_whole(row, "amount") * worth,
        fee=_whole(row, "fee") * worth,
        ys=taken,
        lost=_lost(_text(row, "evidence")) * worth,
    )


def _lost(evidence: str) -> int:
    found = json.loads(evidence) if evidence else None
    lost = found["lost"] if isinstance(found, dict) else 0  # the first version kept a bare list
    if not isinstance(lost, int):
        raise TypeError("lost")
    return lost


def _claim(books: Books, row: Row) -> None:
    books.claims[_text(row, "mint"), _text(row, "y")] = _text(row, "owner")


def _honoured(books: Books, row: Row) -> None:
    books.honoured[_text(row, "id")] = (_text(row, "pubkey"), _whole(row, "msat"))


# reckoned from them


def withdrawals(books: Books) -> Iterator[OperationRow]:
    """The owner's withdrawals, by token or by Lightning, in any state."""
    for row in books.operations.values():
        if row.id.startswith(WITHDRAWAL) and row.kind in ("send", "melt"):
            yield row


def by_owner(books: Books, state: str) -> Counter[str]:
    """What is in this state for each owner, whose coins are of one unit, as the ledger counts."""
    found: Counter[str] = Counter()
    for coin in books.coins:
        if coin.state == state:
            found[coin.owner] += coin.worth
    return found


def liabilities(books: Books) -> dict[str, int]:
    """What we owe in msat by kind: accounts, open orders and refunds, change not yet spent, plans
    that are not over."""
    kinds = {"account": 0, "order": 0, "change": 0, "plan": 0}
    for name, msat in books.balances().items():
        kind = name.partition(":")[0]
        if kind in kinds and ledger.currency(name) == ledger.MSAT:
            kinds[kind] -= msat
    return kinds


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is, in msat; `coins` by (mint, unit) and state, as the ledger counts them."""

    orders: Mapping[str, int]
    earned_msat: int
    fees_msat: int
    withdrawn_msat: int
    owed_msat: Mapping[str, int]
    coins: Mapping[tuple[str, str], Mapping[str, int]]
    exchange: Mapping[str, Position]
    open_operations: tuple[str, ...]


def summary(books: Books) -> Summary:
    """The books in short."""
    balances = books.balances()
    coins: dict[tuple[str, str], Counter[str]] = {}
    for coin in books.coins:
        if coin.state != "spent":
            coins.setdefault((coin.mint, coin.unit), Counter())[coin.state] += coin.worth
    return Summary(
        orders=dict(Counter(row.state for row in books.orders.values())),
        earned_msat=-balances.get("income", 0),
        fees_msat=balances.get("fees", 0),
        withdrawn_msat=balances.get("owner", 0),
        owed_msat=liabilities(books),
        coins={where: dict(states) for where, states in coins.items()},
        exchange=positions(balances),
        open_operations=tuple(
            row.id for row in books.operations.values() if row.state == "PREPARED"
        ),
    )
