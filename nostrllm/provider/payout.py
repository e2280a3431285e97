"""The owner takes out what was earned: never so much that a client could not be paid.

As a token, or by having a Lightning invoice paid. Either is written down before the mint is asked,
and booked in the commit that ends it, so a withdrawal that a crash cut is taken up by its id.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nostrllm.core import coins, ledger
from nostrllm.core.exchange import positions
from nostrllm.core.money import RATED, booked
from nostrllm.errors import LocalError, OutcomeUnknown, RemoteError
from nostrllm.ports import Write
from nostrllm.provider.audit import audit
from nostrllm.provider.books import DEPOSIT, WITHDRAWAL, Books, by_owner
from nostrllm.provider.ticket import post
from nostrllm.purse import Outcome, Plan, Purse
from nostrllm.purse.operation import Then
from nostrllm.wire.token import Token


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What was taken out; amount and the mint's fee in coins of the token's unit."""

    id: str
    amount: int
    fee: int
    token: Token


@dataclass(frozen=True, slots=True)
class Paid:
    """An invoice that was paid: its amount, and all that came on top, in coins of the unit."""

    id: str
    mint: str
    unit: str
    amount: int
    fee: int


@dataclass(frozen=True, slots=True)
class Wish:
    """So many coins of a unit, at this mint or (None) where most are free."""

    amount: int
    unit: str = "sat"
    mint: str | None = None


def _agreed(price: Paid) -> None:
    """Whatever it costs, within what is the owner's."""


@dataclass(frozen=True, slots=True)
class PayOrder:
    """An invoice to pay; the wish's amount does not count.

    `agree` is told amount and the most that comes on top, before anything is asked of the mint but
    that; it may raise.
    """

    invoice: str
    wish: Wish
    agree: Callable[[Paid], None] = _agreed


def uncovered_msat(books: Books) -> int:
    """What we owe beyond the coins that are set aside for it.

    Balances, plans that are not over, and what accounts set aside for orders and refunds that have
    not ended. Token orders have their coins held, and change is sent already: neither is free.
    """
    balances = books.balances()
    pubkeys = {name[8:] for name in balances if name.startswith("account:")} | books.accounts.keys()
    owed = sum(
        max(0, -balances.get(ledger.account(pubkey), 0), books.accounts.get(pubkey, 0))
        for pubkey in pubkeys
    )
    held = by_owner(books, "held")
    for order in books.orders.values():
        if order.unit in RATED:  # an order is owed what its coins were accepted at
            held[order.id] *= order.unit_msat
    for row in books.locked.values():
        if row.state == "accepted":  # the token is there to be given back, or taken
            held[row.id] += row.worth_msat
    for name, msat in balances.items():
        if name.startswith("plan:"):
            owed += max(0, -msat)
        if name.startswith("order:"):
            owed += max(0, -msat - held[name.removeprefix("order:")])
    return owed


def mint_for(books: Books, wish: Wish) -> str:
    """The mint that a wish is about. Raises LocalError `wallet-empty`."""
    if wish.mint is not None:
        return wish.mint
    free: dict[str, int] = {}
    for coin in books.coins:
        if coin.state == "free" and coin.unit == wish.unit:
            free[coin.mint] = free.get(coin.mint, 0) + coin.worth
    if not free:
        raise LocalError(f"there are no free coins of unit {wish.unit}", code="wallet-empty")
    return max(free, key=lambda mint: (free[mint], mint))


async def room(books: Books, purse: Purse, mint: str, unit: str) -> int:
    """How many coins the owner may take at this mint, in units; every client stays covered there.

    Free coins, in the books and still, less the dearest fee that swapping them can cost, less all
    that we owe and have no coins set aside for, at whichever mint: a refund is paid where it can
    be. Coins of a unit with a rate are needed for what sats do not cover, at what they were taken
    for. Raises MintRefused, OutcomeUnknown.
    """
    coin = booked(unit)
    # What came since the books were read may be somebody's whom they do not know yet.
    known = sum(
        coin.worth
        for coin in books.coins
        if (coin.state, coin.mint, coin.unit) == ("free", mint, unit)
    )
    spendable = min(await purse.spendable(mint, unit), known // coin)
    due = uncovered_msat(books)
    if unit not in RATED:
        return max(0, spendable - -(-due // coin))
    position = positions(books.balances()).get(unit)
    due -= sum(one.worth for one in books.coins if one.state == "free" and one.unit not in RATED)
    return 0 if position is None else max(0, spendable - position.units_for(due))


def new_name() -> str:
    """The id of a withdrawal to make."""
    return f"{WITHDRAWAL}{secrets.token_hex(8)}"


async def withdraw(
    books: Books, purse: Purse, name: str, wish: Wish, now_s: Callable[[], int]
) -> Withdrawal:
    """Make a token of free coins, called `name`, and book it.

    Raises LocalError (`internal`: the books do not agree; `wallet-empty`: that would touch what
    others own), and as `again`.
    """
    mint, most = await _most(books, purse, wish)
    if wish.amount > most:
        raise _not_yours(most, wish.unit, mint)
    outcome = await purse.send_out(name, mint, wish.unit, wish.amount, _booked(now_s))
    return await _made(purse, outcome)


async def pay(
    books: Books,
    purse: Purse,
    name: str,
    order: PayOrder,
    now_s: Callable[[], int],
) -> Paid:
    """Have an invoice paid with free coins, under this name, and book it.

    Raises RemoteError `payment-invoice-invalid`, LocalError as `withdraw` and for a payment that
    failed, and as `again`.
    """
    mint, most = await _most(books, purse, order.wish)
    unit = order.wish.unit
    quote = await purse.quote_melt(mint, unit, order.invoice)

    def beside(plan: Plan) -> Sequence[Write]:
        if plan.amount + plan.fee > most:
            raise _not_yours(most, unit, mint)
        order.agree(Paid(name, mint, unit, plan.amount, plan.fee))
        return ()

    await purse.place_melt(name, mint, quote, beside)
    return _paid(await purse.run(name, _booked(now_s)))


async def _most(books: Books, purse: Purse, wish: Wish) -> tuple[str, int]:
    """The mint of a wish, and what the owner may take there. Raises LocalError."""
    if wrong := [check.name for check in audit(books) if not check.ok]:
        raise LocalError(f"nothing is taken out of books that do not agree: {', '.join(wrong)}")
    mint = mint_for(books, wish)
    return mint, await room(books, purse, mint, wish.unit)


def _not_yours(most: int, unit: str, mint: str) -> LocalError:
    return LocalError(f"at most {most} {unit} at {mint} are yours to take", code="wallet-empty")


async def again(purse: Purse, name: str, now_s: Callable[[], int]) -> Withdrawal | Paid:
    """A withdrawal that was begun: finished if it is not; its token, or the invoice it paid.

    Raises LocalError (`not-found`, `payment-token-spent`: the token was taken, or the code of the
    mint's refusal), OutcomeUnknown while the mint does not say: call again.
    """
    if not name.startswith(WITHDRAWAL) or not await purse.knows(name):
        raise LocalError("there is no such withdrawal", code="not-found")
    outcome = await purse.run(name, _booked(now_s))
    return _paid(outcome) if outcome.kind == "melt" else await _made(purse, outcome)


async def deposit(purse: Purse, token: Token, now_s: Callable[[], int]) -> Outcome:
    """Take a token of the owner's in: coins for refunds, and to try mints with.

    The same token again is the same deposit. Raises RemoteError, OutcomeUnknown while the mint does
    not say: call again.
    """

    def then(outcome: Outcome) -> Sequence[Write]:
        if outcome.state != "DONE":
            return ()
        place = ledger.coins(outcome.mint, outcome.unit)
        lines = ledger.deposited(place, outcome.net * booked(outcome.unit))
        return post(f"deposit:{outcome.op_id}", lines, now_s())

    booked(token.unit)  # what cannot be booked is not taken
    outcome = await purse.receive(f"{DEPOSIT}{coins.digest(token.proofs)[:32]}", token, then)
    if outcome.state == "PREPARED":
        raise OutcomeUnknown("the mint has not said yet what became of the swap")
    if outcome.state == "REJECTED":
        raise RemoteError("the mint did not take the token", code=outcome.code or "internal")
    return outcome


def _booked(now_s: Callable[[], int]) -> Then:
    def then(outcome: Outcome) -> Sequence[Write]:
        if outcome.state != "DONE":
            return ()
        coin = booked(outcome.unit)
        place = ledger.coins(outcome.mint, outcome.unit)
        lines = ledger.withdrawn(place, outcome.amount * coin, outcome.fee * coin)
        return post(f"withdrawn:{outcome.op_id}", lines, now_s())

    return then


def _paid(outcome: Outcome) -> Paid:
    if outcome.state == "PREPARED":
        raise OutcomeUnknown("the mint has not said yet whether the invoice is paid")
    if outcome.state == "REJECTED":
        code = outcome.code or "payment-lightning-failed"
        raise LocalError("the invoice was not paid, and the coins are free again", code=code)
    return Paid(outcome.op_id, outcome.mint, outcome.unit, outcome.amount, outcome.fee)


async def _made(purse: Purse, outcome: Outcome) -> Withdrawal:
    if outcome.state == "PREPARED":
        raise OutcomeUnknown("the mint has not said yet what became of the swap")
    if outcome.state == "REJECTED":
        why = "the mint signed wrongly" if outcome.suspect else "the mint refused the swap"
        raise LocalError(why, code=outcome.code or "internal")
    token = await purse.token_of(outcome.op_id)
    if token is None:
        raise LocalError("the token was taken", code="payment-token-spent")
    return Withdrawal(outcome.op_id, outcome.amount, outcome.fee, token)
