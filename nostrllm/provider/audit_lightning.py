"""What the books must say of Lightning: the sets of postings and the requests to mints that each
invoice, paid in or out, calls for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nostrllm.core import ledger
from nostrllm.provider.books import Books, MeltRow

#: State of a row → state of its operation; "" for one that came to nothing.
_ENDS = {"done": "DONE", "pending": "PREPARED"}


class Due(NamedTuple):
    """An operation that a row calls for: its end, "" for none that was done, and what it moved."""

    op_id: str
    kind: str
    end: str
    msat: int | None


def sets(books: Books) -> Iterator[tuple[str, Mapping[str, int]]]:
    """The name and lines of each set that must be there."""
    for deposit in books.deposits.values():
        if deposit.state == "done":
            place = ledger.coins(deposit.mint, deposit.unit)
            lines = ledger.topped_up(deposit.author, place, deposit.msat)
            yield f"topup:{deposit.id}", _lines(lines)
    for melt in books.melts.values():
        yield from _of_melt(melt)


def _of_melt(row: MeltRow) -> Iterator[tuple[str, Mapping[str, int]]]:
    if not row.held_msat:
        return
    yield f"held:{row.id}", _lines(ledger.account_held(row.id, row.author, row.held_msat))
    if row.over:
        place = ledger.coins(row.mint, row.unit)
        lines = ledger.invoice_paid(
            row.id, row.author, place, row.held_msat, row.paid_msat, row.fee_msat
        )
        yield f"refund:{row.id}", _lines(lines)


def _lines(postings: ledger.Postings) -> Mapping[str, int]:
    return {line.account: line.amount for line in postings}


def operations(books: Books) -> Iterator[Due]:
    """The request to a mint behind each row."""
    for deposit in books.deposits.values():
        if deposit.state == "done":
            yield Due(f"mint:{deposit.quote}", "mint", "DONE", deposit.msat)
    for melt in books.melts.values():
        if melt.held_msat:
            done = melt.paid_msat if melt.state == "done" else None
            yield Due(melt.id, "melt", _ENDS.get(melt.state, ""), done)


def forms(books: Books) -> Iterator[str | None]:
    """Does each row say something that can be?"""
    for deposit in books.deposits.values():
        known = deposit.state in ("waiting", "done", "expired", "refused")
        yield None if known and deposit.msat > 0 else f"invoice {deposit.id} has no known state"
    for melt in books.melts.values():
        if melt.state not in ("waiting", "pending", "done", "refused"):
            yield f"payment {melt.id} has no known state"
        elif melt.state != "done" and (melt.paid_msat or melt.fee_msat):
            yield f"payment {melt.id} is {melt.state} and cost something"
        elif melt.state == "done" and melt.paid_msat < melt.msat:
            yield f"payment {melt.id} paid {melt.paid_msat} msat of {melt.msat}"
        elif melt.state in ("pending", "done") and not melt.held_msat:
            yield f"payment {melt.id} has nothing set aside"
        else:
            yield None
