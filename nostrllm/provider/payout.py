"""The owner takes out what was earned, as a token: never so much that a client could not be paid.

Like every token it is written down before the mint is asked, and booked in the commit that makes
it, so a withdrawal that a crash cut is taken up again by its id.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nostrllm.core import coins, ledger
from nostrllm.core.money import unit_msat
from nostrllm.errors import LocalError, OutcomeUnknown, RemoteError
from nostrllm.ports import Write
from nostrllm.provider.audit import audit
from nostrllm.provider.books import DEPOSIT, WITHDRAWAL, Books, by_owner
from nostrllm.provider.ticket import post
from nostrllm.purse import Outcome, Purse
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
class Wish:
    """So many coins of a unit, at this mint or (None) where most are free."""

    amount: int
    unit: str = "sat"
    mint: str | None = None


def uncovered_msat(books: Books) -> int:
    """What we owe beyond the coins that are set aside for it.

    Balances; and what accounts set aside for orders and refunds that have not ended. Token orders
    have their coins held, and change is sent already: neither is free.
    """
    balances = books.balances()
    pubkeys = {name[8:] for name in balances if name.startswith("account:")} | books.accounts.keys()
    owed = sum(
        max(0, -balances.get(ledger.account(pubkey), 0), books.accounts.get(pubkey, 0))
        for pubkey in pubkeys
    )
    held = by_owner(books, "held")
    for row in books.locked.values():
        if row.state == "accepted":  # the token is there to be given back, or taken
            held[row.id] += row.worth_msat
    for name, msat in balances.items():
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
            free[coin.mint] = free.get(coin.mint, 0) + coin.msat
    if not free:
        raise LocalError(f"there are no free coins of unit {wish.unit}", code="wallet-empty")
    return max(free, key=lambda mint: (free[mint], mint))


async def room(books: Books, purse: Purse, mint: str, unit: str) -> int:
    """How many coins the owner may take at this mint, in units; every client stays covered there.

    Free coins, less the dearest fee that swapping them can cost, less all that we owe and have no
    coins set aside for, at whichever mint: a refund is paid where it can be. Raises MintRefused,
    OutcomeUnknown.
    """
    spendable = await purse.spendable(mint, unit)
    return max(0, spendable - -(-uncovered_msat(books) // unit_msat(unit)))


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
    if wrong := [check.name for check in audit(books) if not check.ok]:
        raise LocalError(f"nothing is taken out of books that do not agree: {', '.join(wrong)}")
    mint = mint_for(books, wish)
    most = await room(books, purse, mint, wish.unit)
    if wish.amount > most:
        raise LocalError(
            f"at most {most} {wish.unit} at {mint} are yours to take", code="wallet-empty"
        )
    outcome = await purse.send_out(name, mint, wish.unit, wish.amount, _booked(now_s))
    return await _made(purse, outcome)


async def again(purse: Purse, name: str, now_s: Callable[[], int]) -> Withdrawal:
    """A withdrawal that was begun: finished if it is not, and its token.

    Raises LocalError (`not-found`, `payment-token-spent`: the token was taken, or the code of the
    mint's refusal), OutcomeUnknown while the mint does not say: call again.
    """
    if not name.startswith(WITHDRAWAL) or not await purse.knows(name):
        raise LocalError("there is no such withdrawal", code="not-found")
    return await _made(purse, await purse.run(name, _booked(now_s)))


async def deposit(purse: Purse, token: Token, now_s: Callable[[], int]) -> Outcome:
    """Take a token of the owner's in: coins for refunds, and to try mints with.

    The same token again is the same deposit. Raises RemoteError, OutcomeUnknown while the mint does
    not say: call again.
    """

    def then(outcome: Outcome) -> Sequence[Write]:
        if outcome.state != "DONE":
            return ()
        place = ledger.coins(outcome.mint, outcome.unit)
        lines = ledger.deposited(place, outcome.net * unit_msat(outcome.unit))
        return post(f"deposit:{outcome.op_id}", lines, now_s())

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
        coin = unit_msat(outcome.unit)
        place = ledger.coins(outcome.mint, outcome.unit)
        lines = ledger.withdrawn(place, outcome.amount * coin, outcome.fee * coin)
        return post(f"withdrawn:{outcome.op_id}", lines, now_s())

    return then


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
