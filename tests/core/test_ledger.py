"""Postings sum to zero, or there are none."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import ledger
from nostrllm.core.order import Settlement

msat = st.integers(0, 10**12)
PLACE, WHO = ledger.coins("https://mint.example", "sat"), "ab" * 32
LOCKED = ledger.locked("https://mint.example", "sat")


@given(msat, msat, st.integers(-(10**6), 10**9))
def test_a_paid_invoice_balances(held: int, paid: int, fee: int) -> None:
    books: Counter[str] = Counter()
    for line in (
        *ledger.account_held("m", WHO, held),
        *ledger.invoice_paid("m", WHO, PLACE, held, paid, fee),
    ):
        books[line.account] += line.amount
    assert sum(books.values()) == books[ledger.order("m")] == 0
    assert books[PLACE] == -paid - fee
    assert books[ledger.account(WHO)] == min(held, paid + fee)
    assert books["fees"] == max(0, paid + fee - held)


def test_what_does_not_balance_is_refused() -> None:
    with pytest.raises(ledger.LedgerError):
        ledger.balanced(("income", 1))
    with pytest.raises(ledger.LedgerError):
        ledger.entries((ledger.Posting("income", 1), ledger.Posting("fees", 1)))


def test_what_names_no_account_is_refused() -> None:
    with pytest.raises(ledger.LedgerError):
        ledger.topped_up(WHO, "https://mint.example", 5)


@given(st.lists(st.integers(-(10**12), 10**12), max_size=8))
def test_entries_are_the_postings_in_pairs(amounts: list[int]) -> None:
    lines = [(f"order:{n}", amount) for n, amount in enumerate((*amounts, -sum(amounts)))]
    postings = ledger.balanced(*lines)
    books: Counter[str] = Counter()
    found = ledger.entries(postings)
    assert len(found) <= max(0, len(postings) - 1)
    for entry in found:
        assert entry.amount > 0
        assert entry.debit != entry.credit
        books[entry.debit] += entry.amount
        books[entry.credit] -= entry.amount
    assert {name: msat for name, msat in books.items() if msat} == {
        line.account: line.amount for line in postings
    }


@given(msat, msat, st.integers(0, 10**6), msat, st.sampled_from([1, 1_000]))
def test_the_life_of_an_order_balances(
    fee: int, cost: int, units: int, credit: int, unit_msat: int
) -> None:
    net = cost + units * unit_msat + credit
    split = Settlement(cost, units, credit)
    books: Counter[str] = Counter()
    for postings in (
        ledger.token_paid("o", PLACE, net, unit_msat),
        ledger.settled("o", WHO, split, unit_msat),
        ledger.change_spent("o", PLACE, units * unit_msat),
        ledger.topped_up(WHO, PLACE, fee),
        ledger.account_held("p", WHO, fee + credit),
        ledger.settled("p", WHO, Settlement(fee + credit, 0, 0), 1),
    ):
        assert all(line.amount for line in postings)
        for line in postings:
            books[line.account] += line.amount
    assert sum(books.values()) == 0
    assert books[ledger.order("o")] == books[ledger.order("p")] == 0
    assert books[ledger.account(WHO)] == books[ledger.change("o")] == 0
    assert -books["income"] == books[PLACE] == cost + fee + credit


@given(st.integers(1, 10**9), msat, msat)
def test_a_refund_never_takes_more_than_was_held(held: int, change: int, fee: int) -> None:
    change = min(change, held)
    lines = {
        line.account: line.amount for line in ledger.refunded("r", WHO, PLACE, held, change, fee)
    }
    assert sum(lines.values()) == 0
    assert lines.get(ledger.account(WHO), 0) <= 0
    assert lines.get("fees", 0) == max(0, change + fee - held)


@given(msat, msat)
def test_what_the_owner_takes_leaves_the_mint_with_its_fee(amount: int, fee: int) -> None:
    lines = {line.account: line.amount for line in ledger.withdrawn(PLACE, amount, fee)}
    assert sum(lines.values()) == 0
    assert lines.get(PLACE, 0) == -amount - fee
    assert lines.get("owner", 0) == amount


@given(st.integers(-(10**12), 10**12))
def test_a_restored_balance_is_lost_to_us(more: int) -> None:
    lines = {line.account: line.amount for line in ledger.restored("a", more)}
    assert sum(lines.values()) == 0
    assert lines.get("lost", 0) == more


@given(msat, msat, st.integers(0, 10**6), msat, msat, st.booleans(), st.booleans())
def test_the_life_of_a_locked_token_balances(
    fee: int, cost: int, units: int, credit: int, real_fee: int, signed: bool, lost: bool
) -> None:
    change_msat, split = units * 1_000, Settlement(cost, units, credit)
    worth = fee + cost + change_msat + credit
    given = change_msat if signed else 0
    steps = [
        ledger.lock_accepted("o", LOCKED, worth),
        ledger.settled("o", WHO, split, 1_000, fee),
        ledger.lock_accepted("p", LOCKED, worth),
        ledger.lock_released("p", LOCKED, worth),
    ]
    if lost:
        steps.append(ledger.lock_lost("o", LOCKED, worth, change_msat))
    else:
        if not signed:
            steps.append(ledger.change_credited("o", WHO, change_msat))
        steps.append(ledger.redeemed(LOCKED, PLACE, [ledger.Redeemed("o", worth, given)], real_fee))
    books: Counter[str] = Counter()
    for postings in steps:
        assert sum(line.amount for line in postings) == 0
        for line in postings:
            books[line.account] += line.amount
    assert books[LOCKED] == books[ledger.change("o")] == books[ledger.order("o")] == 0
    assert books["income"] == -cost
    if lost:
        assert books["lost"] == worth - change_msat
    else:
        assert books[PLACE] == worth - given - real_fee
        assert books["fees"] == real_fee - fee


@given(msat, msat)
def test_a_plan_is_owed_until_it_is_over(price: int, refund: int) -> None:
    refund = min(price, refund)
    books: Counter[str] = Counter()
    for line in ledger.plan_bought("p", WHO, price):
        books[line.account] += line.amount
    assert books["plan:p"] == -price
    for line in ledger.plan_over("p", WHO, price, refund):
        books[line.account] += line.amount
    assert (books["plan:p"], books["income"]) == (0, refund - price)
    assert books[ledger.account(WHO)] == price - refund


CENTS = ledger.coins("https://mint.example", "usd")


@pytest.mark.parametrize(
    ("account", "counts"),
    [
        (PLACE, "msat"),
        (CENTS, "usd"),
        (ledger.change("o", "usd"), "usd"),
        (ledger.change("o"), "msat"),
        (ledger.own("fees", "usd"), "usd"),
        (ledger.own("fees", ledger.MSAT), "msat"),
        ("exchange", "msat"),
        (ledger.account(WHO), "msat"),
    ],
)
def test_the_name_of_an_account_tells_its_currency(account: str, counts: str) -> None:
    assert ledger.currency(account) == counts


def test_currencies_do_not_balance_each_other() -> None:
    with pytest.raises(ledger.LedgerError):
        ledger.balanced((CENTS, 5), ("income", -5))
    with pytest.raises(ledger.LedgerError):
        ledger.topped_up(WHO, CENTS, 5)


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_the_life_of_an_order_in_cents_balances_in_each_currency(
    units: int, change: int, cost: int, rate: int, taken: int, fee: int
) -> None:
    change = min(change, units)
    cost = min(cost, (units - change) * rate)
    split = Settlement(cost, change, (units - change) * rate - cost)
    books: Counter[str] = Counter()
    for postings in (
        ledger.token_paid("o", CENTS, units * rate, rate),
        ledger.settled("o", WHO, split, rate, unit="usd"),
        ledger.change_spent("o", CENTS, change),
        ledger.deposited(CENTS, taken + fee),
        ledger.withdrawn(CENTS, taken, fee),
        ledger.fee_borne(CENTS, fee),
    ):
        for entry in ledger.entries(postings):
            assert ledger.currency(entry.debit) == ledger.currency(entry.credit)
            books[entry.debit] += entry.amount
            books[entry.credit] -= entry.amount
    assert not ledger.sums(books.items())
    assert books[ledger.order("o")] == books[ledger.change("o", "usd")] == 0
    assert books["owner:usd"] == -fee
    assert books[CENTS] == units - change - fee
    assert books["exchange:usd"] == change - units
    assert (
        books["exchange"] == (units - change) * rate == -books["income"] - books["account:" + WHO]
    )


@pytest.mark.parametrize(("place", "lost"), [(PLACE, "lost"), (CENTS, "lost:usd")])
def test_coins_that_were_signed_wrongly_are_lost(place: str, lost: str) -> None:
    lines = {line.account: line.amount for line in ledger.spoiled(place, 5)}
    assert lines == {lost: 5, place: -5}
