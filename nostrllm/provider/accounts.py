"""Accounts: a token in, a balance, a token out.

An account belongs to the key that writes to us; it holds what is smaller than a coin, and whatever
a client puts there. A top-up and a refund are written down before the mint is asked, like an order.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from nostrllm.core import ledger
from nostrllm.core.money import unit_msat
from nostrllm.errors import LocalError, NostrllmError, RemoteError, WorldError
from nostrllm.ports import Conflict, Row, Write
from nostrllm.provider.admit import Admission, Letter
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.reply import Letterbox, Outgoing
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import address_of, post
from nostrllm.purse import Outcome, Plan
from nostrllm.wire.amount import sats
from nostrllm.wire.event import Event
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Answer, Change, Problem
from nostrllm.wire.token import Token, encode_token

#: A refund is paid in coins of this unit.
REFUND_UNIT: Final = "sat"

#: A top-up of less is hardly worth its swap. It is taken, and counted.
DUST_MSAT: Final = 4_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Aside:
    """What else is sent and written when the end of a transfer is told, and done after that."""

    outgoing: Sequence[Outgoing] = ()
    writes: Sequence[Write] = ()
    then: Callable[[], None] = lambda: None


async def _nothing_else(_transfer: Row) -> Aside:
    return Aside()


class Accounts:
    """Top-ups, refunds and balances, for our client and for people."""

    def __init__(
        self,
        world: World,
        shop: Shop,
        admission: Admission,
        letterbox: Letterbox,
        settler: Settler,
        conduct: Conduct,
    ) -> None:
        self._world = world
        self._shop = shop
        self._admission = admission
        self._letterbox = letterbox
        self._settler = settler
        self._conduct = conduct
        self._running: set[str] = set()
        self.aside: Callable[[Row], Awaitable[Aside]] = _nothing_else

    def runs(self, transfer_id: str) -> bool:
        """Is this process working on the transfer?"""
        return transfer_id in self._running

    async def balance_msat(self, pubkey: str) -> int:
        """What an account holds; 0 for one we do not know."""
        rows = await self._world.store.read("account_get", pubkey=pubkey)
        return int(rows[0]["balance_msat"]) if rows else 0

    async def statement(self, pubkey: str) -> Event:
        """The account as it stands, signed."""
        return await self._settler.stated(pubkey)

    async def check_served(self, pubkey: str) -> None:
        """Raises RemoteError `client-blocked`."""
        await self._conduct.check(pubkey)

    async def top_up(self, letter: Letter, token: str) -> None:
        """Swap a token into the account of the letter's author, and tell him."""
        await self._conduct.check(letter.author)
        plan = await self._admission.plan(letter.id, self._admission.token(token), ladder=False)
        worth = plan.net * unit_msat(plan.unit)
        if await self.balance_msat(letter.author) + worth > self._shop.balance_msat_max:
            raise self._too_much()
        most = {"author": letter.author, "most": self._shop.balance_msat_max}
        writes = (
            self._insert(letter, "topup", plan.mint, plan.unit, worth),
            Write("topup_room", most, rows=1),
            *plan.writes,
        )
        message = "these coins were used here before"
        taken = RemoteError(message, code="payment-token-spent", fraud="topup-race")
        if worth < DUST_MSAT:
            await self._conduct.note(letter.author, "dust")
        commit = functools.partial(self._world.store.commit, *writes)
        outcome = await self._carry_out(letter, commit, taken)
        if outcome is not None and outcome.code == "payment-token-spent" and not outcome.suspect:
            said_at = letter.created_at
            await self._conduct.note(
                letter.author, "double-spend", said_at=said_at, message=letter.id
            )

    def _too_much(self) -> RemoteError:
        return RemoteError(
            f"an account may hold {sats(self._shop.balance_msat_max)} at most",
            code="payment-amount-high",
        )

    async def credit(self, letter: Letter, plan: Plan, *more: Write) -> None:
        """Swap coins into the account of the letter's author, however much they are, and tell him.

        `more` is committed with that. Raises RemoteError `payment-token-spent`.
        """
        worth = plan.net * unit_msat(plan.unit)
        insert = self._insert(letter, "topup", plan.mint, plan.unit, worth)
        taken = RemoteError("these coins were used here before", code="payment-token-spent")
        commit = functools.partial(self._world.store.commit, insert, *more, *plan.writes)
        await self._carry_out(letter, commit, taken)

    async def refund(self, letter: Letter) -> None:
        """Pay the whole coins of a balance out as a token, and tell the author.

        He pays the fee of the swap that makes it, which is known before anything is held.
        """
        balance = await self.balance_msat(letter.author)
        coin = unit_msat(REFUND_UNIT)
        little = RemoteError(
            f"your balance of {sats(balance)} is less than a coin and the fee to make it",
            code="account-insufficient",
        )
        if balance < coin:
            raise little
        mint, at_hand = await self._fullest_mint()
        if at_hand < 1:
            raise WorldError("the provider has no coins at hand; try again later", code="busy")

        def beside(plan: Plan) -> Sequence[Write]:
            held = (plan.amount + plan.fee) * coin
            hold = ledger.account_held(letter.id, letter.author, held)
            return (
                self._insert(letter, "refund", mint, REFUND_UNIT, held),
                Write("account_take", {"pubkey": letter.author, "msat": held}, rows=1),
                *post(f"held:{letter.id}", hold, self._world.now_s()),
            )

        async def place() -> None:
            purse, where = self._world.purse, (mint, REFUND_UNIT)
            row = {"id": letter.id, "author": letter.author, "mint": mint, "unit": REFUND_UNIT}
            then = self._refunded(row)
            try:
                await purse.place_payout(letter.id, where, balance // coin, beside, then)
            except LocalError as error:
                raise little if error.code == "wallet-empty" else error from None

        changed = RemoteError("your balance changed", code="account-insufficient")
        await self._carry_out(letter, place, changed)

    async def _carry_out(
        self, letter: Letter, commit: Callable[[], Awaitable[object]], otherwise: RemoteError
    ) -> Outcome | None:
        """Commit a transfer and take it to its end. Raises `otherwise` on a conflict of money.

        After the commit nothing is raised: what fails then is finished by recovery. Returns how it
        ended at the mint, None while that is not known.
        """
        self._running.add(letter.id)
        try:
            await commit()
        except Conflict as conflict:
            self._running.discard(letter.id)
            if conflict.name == "transfer_insert":
                return None
            if conflict.name == "topup_room":
                raise self._too_much() from None
            raise otherwise from None
        except BaseException:
            self._running.discard(letter.id)
            raise
        try:
            outcome = await self._finish(letter.id)
            if outcome is None:  # it was done by that commit
                await self.tell(letter.id)
            return outcome
        except NostrllmError as error:
            log.warning("transfer_waits", transfer=letter.id[:16], code=error.code)
            return None

    async def _fullest_mint(self) -> tuple[str, int]:
        """Where most coins are, and how many units of them one token can have."""
        purse = self._world.purse
        found = [
            (await purse.spendable(mint, unit), mint)
            for mint, unit in await purse.balance()
            if unit == REFUND_UNIT
        ]
        amount, mint = max(found, default=(0, ""))
        return mint, amount

    def _insert(
        self, letter: Letter, kind: Literal["topup", "refund"], mint: str, unit: str, msat: int
    ) -> Write:
        return Write(
            "transfer_insert",
            {
                "id": letter.id,
                "kind": kind,
                "author": letter.author,
                "dialect": letter.address.dialect,
                "reply_key": letter.address.key,
                "reply_relays": json.dumps(letter.address.relays),
                "mint": mint,
                "unit": unit,
                "msat": msat,
                "at": self._world.now_s(),
            },
        )

    # carrying out, now or after a restart

    async def finish(self, transfer_id: str) -> bool:
        """Take a stored transfer to its end: the mint's answer, the books, the reply.

        False while the mint has not answered.
        """
        outcome = await self._finish(transfer_id)
        return outcome is None or outcome.state != "PREPARED"

    async def _finish(self, transfer_id: str) -> Outcome | None:
        """As `finish`, but what the mint said; None if it was at its end before."""
        self._running.add(transfer_id)
        try:
            row = (await self._world.store.read("transfer_get", id=transfer_id))[0]
            if row["state"] != "pending":
                return None
            outcome = await self._outcome(row)
            if outcome.state == "PREPARED":
                log.warning("transfer_pending", transfer=transfer_id[:16])
            else:
                await self.tell(transfer_id, outcome.code)
            return outcome
        finally:
            self._running.discard(transfer_id)

    async def _outcome(self, row: Row) -> Outcome:
        purse = self._world.purse
        if row["kind"] == "topup":
            return await purse.run(row["id"], self._topped_up(row))
        then = self._refunded(row)
        if await purse.knows(row["id"]):
            return await purse.run(row["id"], then)
        # A version that placed the hold first was stopped before the coins: the balance returns.
        log.warning("refund_without_coins", transfer=str(row["id"])[:16])
        where = (row["mint"], row["unit"])
        outcome = Outcome(row["id"], "send", "REJECTED", *where, 0, 0, 0, code="busy")
        await self._world.store.commit(*then(outcome))
        return outcome

    def _topped_up(self, row: Row) -> Callable[[Outcome], Sequence[Write]]:
        def then(outcome: Outcome) -> Sequence[Write]:
            if outcome.state != "DONE":
                return [_moved(row, "refused", 0)]
            net = outcome.net * unit_msat(row["unit"])
            place = ledger.coins(row["mint"], row["unit"])
            lines = ledger.topped_up(row["author"], place, net)
            return [
                _moved(row, "done", net),
                Write("account_add", {"pubkey": row["author"], "msat": net}),
                *post(f"topup:{row['id']}", lines, self._world.now_s()),
            ]

        return then

    def _refunded(self, row: Row) -> Callable[[Outcome], Sequence[Write]]:
        def then(outcome: Outcome) -> Sequence[Write]:
            coin, done = unit_msat(row["unit"]), outcome.state == "DONE"
            change, fee = (outcome.amount * coin, outcome.fee * coin) if done else (0, 0)
            held = int(row["msat"]) if "msat" in row else change + fee
            back = max(0, held - change - fee)
            place = ledger.coins(row["mint"], row["unit"])
            lines = ledger.refunded(row["id"], row["author"], place, held, change, fee)
            writes = [_moved(row, "done" if change else "refused", change)]
            if back:
                writes.append(Write("account_add", {"pubkey": row["author"], "msat": back}))
            return [*writes, *post(f"refund:{row['id']}", lines, self._world.now_s())]

        return then

    async def tell(self, transfer_id: str, code: str | None = None) -> None:
        """Store and send the reply to a finished transfer; once."""
        row = (await self._world.store.read("transfer_get", id=transfer_id))[0]
        token, fee_msat = None, 0
        if row["state"] == "done":
            outcome = await self._world.purse.run(transfer_id)
            fee_msat = outcome.fee * unit_msat(row["unit"])
        if row["kind"] == "refund" and row["state"] == "done":
            token = await self._world.purse.token_of(transfer_id)
        reply = await self._reply(row, token, fee_msat, code)
        aside = await self.aside(row)
        outgoing = [*await self._letterbox.seal(address_of(row), reply), *aside.outgoing]
        stored = self._letterbox.store(transfer_id, outgoing)
        await self._world.store.commit(*aside.writes, *stored)
        self._letterbox.wake()
        aside.then()

    async def _reply(
        self, row: Row, token: Token | None, fee_msat: int, code: str | None
    ) -> Wire | list[str]:
        refused = row["state"] == "refused"
        problem = None
        if refused:
            problem = Problem(
                code=code or "payment-token-invalid", message="the mint did not take it"
            )
        balance = await self.balance_msat(row["author"])
        text = encode_token(token) if token else ""
        if address_of(row).dialect == "client":
            change = None
            if token:
                change = Change(mint=token.mint, unit=token.unit, amount=token.amount, token=text)
            statement = await self.statement(row["author"])
            return Answer(
                to=row["id"],
                balance_msat=balance,
                statement=statement.as_dict(),
                state=row["state"],
                change=change,
                fee_msat=fee_msat or None,
                problem=problem,
            )
        if problem is not None:
            return [f"{problem.message}. Your balance is {sats(balance)}. [{problem.code}]"]
        fee = f"; mint fee {sats(fee_msat)}" if fee_msat else ""
        if token:
            return [f"Refund of {token.amount} {token.unit}{fee}; {sats(balance)} stay here.", text]
        return [f"{sats(row['msat'])} added. Your balance is {sats(balance)}{fee}."]


def _moved(row: Row, state: str, msat: int) -> Write:
    return Write("transfer_move", {"id": row["id"], "state": state, "msat": msat}, rows=1)
