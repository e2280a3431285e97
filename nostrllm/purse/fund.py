"""Fund: a paid Lightning invoice of a mint becomes coins (NUT-04).

The quote is stored before anybody pays it. Once it is paid, the issue is stored and run like a
swap, with the quote in place of inputs. Nothing to undo. Resume: run again.
"""

from __future__ import annotations

from dataclasses import replace

from nostrllm.core import coins
from nostrllm.errors import LocalError
from nostrllm.ports import MintQuote, Row, Write
from nostrllm.purse.operation import Operation, Own
from nostrllm.purse.till import Outputs, Till, keyset_in_use


async def ask(till: Till, mint_url: str, amount: int, unit: str) -> MintQuote:
    """A stored quote whose invoice can be paid."""
    mint = till.mints.at(mint_url)
    keyset_in_use(await mint.keysets(), unit, coins.split(amount))
    quote = await mint.quote_mint(amount, unit)
    values = {
        "id": quote.quote,
        "mint": mint.url,
        "unit": unit,
        "amount": amount,
        "request": quote.request,
        "expiry": quote.expiry,
        "state": quote.state,
        "created_at": till.clock.now(),
    }
    await till.store.commit(Write("quote_insert", values))
    return quote


async def stored(till: Till, quote_id: str) -> Row:
    """The quote as it is stored. Raises LocalError."""
    rows = await till.store.read("quote_get", id=quote_id)
    if not rows:
        raise LocalError("there is no such quote", code="not-found")
    return rows[0]


async def poll(till: Till, row: Row, wait_s: float) -> str:
    """The quote's state, asked until it is not UNPAID or the time is over."""
    mint = till.mints.at(row["mint"])
    until, pause_s = till.clock.monotonic() + wait_s, 0.2
    while True:
        quote = await mint.mint_quote(row["id"])
        left_s = until - till.clock.monotonic()
        if quote.state != "UNPAID" or left_s <= 0:
            return quote.state
        await till.clock.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, 5.0)


async def place(till: Till, row: Row) -> Outputs:
    """Store the issue of a paid quote; its outputs."""
    mint = till.mints.at(row["mint"])
    pieces = coins.split(int(row["amount"]))
    keyset = keyset_in_use(await mint.keysets(), row["unit"], pieces)
    outputs, own = await till.outputs(keyset.id, [Own(piece, 0) for piece in pieces])
    operation = replace(unplaced(row), outputs=outputs, own=own)
    await till.store.commit(operation.insert(till.clock.now()))
    return outputs


def unplaced(row: Row) -> Operation:
    """The issue of a quote, without outputs yet."""
    key, amount = str(row["id"]), int(row["amount"])
    return Operation(name(key), "mint", row["mint"], row["unit"], amount, 0, (), (), quote=key)


def name(quote_id: str) -> str:
    """The id of the operation that issues a quote's coins."""
    return f"mint:{quote_id}"
