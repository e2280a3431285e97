"""What the books must say of locked tokens, and of the trials by which their mints were tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from nostrllm.core import ledger
from nostrllm.core.order import Settlement
from nostrllm.provider.books import DEPOSIT, Books, LockedRow, OperationRow, OrderRow
from nostrllm.provider.tidy import TIDY
from nostrllm.provider.trial import TRIAL

#: States in which a token's change is still to be signed.
DUE_STATES: Final = ("due", "settling")


def place(row: LockedRow | OrderRow) -> str:
    """The ledger's name of such locked coins."""
    return ledger.locked(row.mint, row.unit)


def of_order(books: Books, row: OrderRow) -> Iterator[tuple[str, ledger.Postings]]:
    """The sets that an order paid by a locked token calls for, its end not among them."""
    token = books.locked.get(row.id)
    if token is None:
        return
    yield f"locked:{row.id}", ledger.lock_accepted(row.id, place(token), token.worth_msat)
    given = token.change_msat - token.signed_msat
    if token.state == "settled" and given:
        yield f"credited:{row.id}", ledger.change_credited(row.id, row.author, given)
    if token.state == "lost":
        lines = ledger.lock_lost(row.id, place(token), token.worth_msat, token.change_msat)
        yield f"lost:{row.id}", lines


def end_of(books: Books, row: OrderRow, split: Settlement) -> ledger.Postings:
    """How the end of any order is booked."""
    token = books.locked.get(row.id) if row.funding == "locked" else None
    if token is None:
        payer = books.payers.get(row.id, row.author)
        return ledger.settled(row.id, payer, split, row.unit_msat, unit=row.unit)
    if token.state == "released":
        return ledger.lock_released(row.id, place(token), token.worth_msat)
    fee = token.worth_msat - row.net_msat
    return ledger.settled(row.id, row.author, split, row.unit_msat, fee)


def swaps(books: Books) -> Iterator[tuple[str, ledger.Postings]]:
    """The sets of swaps of locked tokens, of deposits, and of fees that trials cost."""
    batches: dict[str, list[ledger.Redeemed]] = {}
    for token in books.locked.values():
        if token.state == "settled":
            part = ledger.Redeemed(token.id, token.worth_msat, token.signed_msat)
            batches.setdefault(token.batch, []).append(part)
    for row in books.operations.values():
        to = ledger.coins(row.mint, row.unit)
        if row.kind == "settle" and (row.state == "DONE" or row.id in batches):
            place, parts = ledger.locked(row.mint, row.unit), batches.get(row.id, [])
            yield f"redeemed:{row.id}", ledger.redeemed(place, to, parts, row.fee)
            if row.lost:
                yield f"spoiled:{row.id}", ledger.spoiled(to, row.lost)
        elif row.id.startswith(DEPOSIT) and row.state == "DONE":
            lines = ledger.deposited(to, row.amount - row.fee)
            yield f"deposit:{row.id}", lines
        elif (is_trial(row) or row.id.startswith(TIDY)) and row.state == "DONE" and row.fee:
            yield f"fee:{row.id}", ledger.fee_borne(to, row.fee)


def is_trial(row: OperationRow) -> bool:
    """Is it a step of a trial?"""
    return row.id.startswith(TRIAL)


def tokens(books: Books) -> Iterator[str | None]:
    """Does each locked token stand as its order does, and are its coins claimed by it?"""
    claimed = Counter(books.claims.values())
    for row in books.locked.values():
        order = books.orders.get(row.id)
        over = order is not None and order.settled
        if not claimed[row.id]:
            yield f"the coins of {row.id} are not claimed by it"
        elif (row.state == "accepted") != (order is not None and not over):
            yield f"the token of {row.id} is {row.state}, its order is {order and order.state}"
        elif row.state in ("settling", "settled") and row.batch not in books.operations:
            yield f"the token of {row.id} was in no swap"
        else:
            yield None
    for order in books.orders.values():
        if order.funding == "locked" and order.id not in books.locked:
            yield f"order {order.id} has no token"


def locked_msat(books: Books) -> int:
    """What is locked to us by the ledger."""
    return sum(msat for name, msat in books.balances().items() if name.startswith("locked:"))


def change_due(books: Books) -> Counter[str]:
    """Change that the mint is still to sign, per order: no coins of ours are sent for it."""
    found: Counter[str] = Counter()
    for row in books.locked.values():
        if row.state in DUE_STATES:
            found[row.id] += row.change_msat
    return found
