"""What is held of a unit with a rate is told at what it was taken for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import ledger
from nostrllm.core.exchange import Position, positions
from nostrllm.core.ledger import Postings
from nostrllm.core.order import Settlement

CENTS = ledger.coins("https://mint.example", "usd")


def books(*sets: Postings) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in (line for postings in sets for line in postings):
        found[line.account] = found.get(line.account, 0) + line.amount
    return found


def test_books_without_such_coins_have_no_position() -> None:
    assert positions(books(ledger.deposited(ledger.coins("m", "sat"), 5))) == {}


def test_a_position_is_what_orders_paid_less_their_change() -> None:
    found = positions(
        books(
            ledger.token_paid("o", CENTS, 50_000, 10_000),
            ledger.token_paid("p", CENTS, 60_000, 12_000),
            ledger.settled("o", "a", Settlement(30_000, 2, 0), 10_000, unit="usd"),
            ledger.withdrawn(CENTS, 1, 1),
        )
    )
    assert found == {"usd": Position(8, 90_000, change=2, fees=1, withdrawn=1, have=6)}
    assert found["usd"].at_cost(4) == 45_000
    assert found["usd"].at_cost(100) == 90_000
    assert found["usd"].units_for(45_001) == 5
    assert found["usd"].units_for(0) == found["usd"].units_for(-1) == 0


def test_coins_that_nobody_paid_are_worth_nothing_here() -> None:
    found = positions(books(ledger.deposited(CENTS, 7)))["usd"]
    assert found.at_cost(7) == 0
    assert found.units_for(1) == 7


@given(st.integers(1, 10**6), st.integers(1, 10**12), st.integers(0, 10**12))
def test_coins_for_an_amount_are_worth_it(bought: int, cost: int, due: int) -> None:
    position = Position(bought, cost, 0, 0, 0, bought)
    units = position.units_for(min(due, cost))
    assert position.at_cost(units) >= min(due, cost)
    assert units <= bought
