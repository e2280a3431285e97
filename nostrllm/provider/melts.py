"""Accounts that pay invoices (NUT-05): a refund by Lightning, and change that goes out that way.

What it can cost at most is taken off the account, the coins are reserved and the payment is written
down in one commit, before the mint is asked to pay. What it did not cost goes back. An invoice is
paid once, for ever: its payment hash is unique.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.money import UNIT_MSAT, unit_msat
from nostrllm.errors import LocalError, MintRefused, NostrllmError, RemoteError, WorldError
from nostrllm.ports import Conflict, MeltQuote, Row, Write
from nostrllm.provider.accounts import Accounts
from nostrllm.provider.admit import Letter
from nostrllm.provider.invoices import (
    LEFT_S_AT_END,
    check_left,
    melt_insert,
    taken,
    used_before,
)
from nostrllm.provider.reply import Letterbox
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import address_of, post
from nostrllm.purse import Outcome, Plan
from nostrllm.wire.amount import sats
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Answer, Problem

#: How often the end of an order is looked for, and a payment that is under way at first.
LOOK_S: Final = 1.0
LOOK_S_MAX: Final = 600.0
#: With none that is open, how long before the store is asked again.
IDLE_S: Final = 60.0
AT_ONCE: Final = 4

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Offer:
    """A mint that could pay an invoice, and what it asks for that."""

    mint: str
    quote: MeltQuote


class Melts:
    """Lightning out of accounts."""

    def __init__(self, world: World, accounts: Accounts, letterbox: Letterbox) -> None:
        self._world = world
        self._accounts = accounts
        self._letterbox = letterbox
        self._wake = asyncio.Event()
        self._running: set[str] = set()
        self._next: dict[str, tuple[float, float]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def refund(self, letter: Letter, text: str) -> None:
        """Pay an invoice from the account of the letter's author, and tell him.

        Raises RemoteError (payment-invoice-invalid, account-insufficient), WorldError; nothing is
        stored then. After the commit nothing is raised: what fails is finished by `run`.
        """
        invoice = taken(text, self._world.now_s())
        if await self._world.store.read("melt_of_hash", payment_hash=invoice.payment_hash):
            raise used_before()
        msat = invoice.amount_msat or 0
        balance = await self._accounts.balance_msat(letter.author)
        if balance < msat:
            raise _too_little(balance)
        offer = await self._offer(invoice.text, msat)
        now = self._world.now_s()
        heard = {"id": letter.id, "wrap": letter.wrap, "at": now}

        def insert(plan: Plan, held_msat: int) -> list[Write]:
            if held_msat > balance:
                raise _too_little(balance, held_msat)
            begun = {"mint": plan.mint, "unit": plan.unit, "held_msat": held_msat}
            of = {"id": letter.id, "kind": "refund", "state": "pending", **begun}
            row = melt_insert(letter.id, letter.address, invoice, now, **of)
            return [row, Write("heard_note", heard)]

        self._running.add(letter.id)
        try:
            if await self._begin(letter.id, letter.author, offer, insert):
                await self._finish(letter.id)
        finally:
            self._running.discard(letter.id)

    async def _offer(self, invoice: str, msat: int) -> _Offer:
        """The fullest mint that can pay an invoice. Raises NostrllmError."""
        failed: NostrllmError = WorldError(
            "the provider has no coins at hand; try again later", code="busy"
        )
        for worth, mint, unit in await self._places():
            if worth < msat:
                break
            try:
                quote = await self._world.purse.quote_melt(mint, unit, invoice)
            except (RemoteError, WorldError) as error:
                failed = error
                continue
            if (quote.amount + quote.fee_reserve) * unit_msat(unit) <= worth:
                return _Offer(mint, quote)
        raise failed

    async def _places(self) -> list[tuple[int, str, str]]:
        """What can be paid with, in msat, at which mint, in which unit; most first."""
        found = []
        for mint, unit in await self._world.purse.balance():
            if unit not in UNIT_MSAT:
                continue
            try:
                units = await self._world.purse.spendable(mint, unit)
            except (RemoteError, WorldError) as error:
                log.info("mint_not_asked", mint=mint, code=error.code)
            else:
                found.append((units * unit_msat(unit), mint, unit))
        return sorted(found, reverse=True)

    async def _begin(
        self,
        melt_id: str,
        author: str,
        offer: _Offer,
        insert: Callable[[Plan, int], list[Write]],
    ) -> bool:
        """Commit a payment: row, hold, and the melt with its coins. False if it is there already.

        Raises RemoteError, WorldError.
        """

        def beside(plan: Plan) -> Sequence[Write]:
            held = (plan.amount + plan.fee) * unit_msat(plan.unit)
            hold = ledger.account_held(melt_id, author, held)
            return [
                *insert(plan, held),
                Write("account_take", {"pubkey": author, "msat": held}, rows=1),
                *post(f"held:{melt_id}", hold, self._world.now_s()),
            ]

        try:
            await self._world.purse.place_melt(melt_id, offer.mint, offer.quote, beside)
        except Conflict as conflict:
            if await self._world.store.read("melt_get", id=melt_id) and conflict.name != (
                "account_take"
            ):
                return False
            if conflict.name == "melt_insert":
                raise used_before() from None
            raise _too_little(await self._accounts.balance_msat(author)) from None
        except LocalError as error:  # others took the coins since they were counted
            raise WorldError("the provider has no coins at hand", code="busy") from error
        log.info("melt_begun", melt=melt_id[:16], mint=offer.mint)
        return True

    # until it is paid, or never will be

    async def run(self) -> None:
        """Finish what is open, for ever."""
        while True:
            self._wake.clear()
            waiting = await self.sweep()
            try:
                async with asyncio.timeout(LOOK_S if waiting else IDLE_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def wake(self) -> None:
        """There is an order whose change will go out by Lightning."""
        self._wake.set()

    def beside(self, letter: Letter, text: str) -> list[Write]:
        """The writes that go with an order whose change pays this invoice.

        Raises RemoteError `payment-invoice-invalid`.
        """
        now = self._world.now_s()
        return [melt_insert(letter.id, letter.address, taken(text, now), now)]

    async def sweep(self) -> int:
        """Take those that are due a step further. Returns how many are open."""
        rows = await self._world.store.read("melts_open")
        now = self._world.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for row in rows:
                _, due = self._next.get(row["id"], (0.0, 0.0))
                if due <= now and row["id"] not in self._running:
                    group.create_task(self._guarded(row))
        ids = {row["id"] for row in rows}
        self._next = {key: at for key, at in self._next.items() if key in ids}
        return len(rows)

    async def _guarded(self, row: Row) -> None:
        async with self._at_once:
            self._running.add(row["id"])
            begun = True
            try:
                begun = row["state"] != "waiting" or await self._begin_change(row)
                if begun:
                    await self._finish(row["id"])
            except WorldError as error:
                log.warning("melt_waits", melt=str(row["id"])[:16], code=error.code)
            except Exception:  # the supervisor of one payment: the others must not wait for it
                log.exception("melt_failed", melt=str(row["id"])[:16])
            finally:
                self._running.discard(row["id"])
        pause_s, _ = self._next.get(row["id"], (LOOK_S / 2, 0.0))
        pause_s = min(2 * pause_s, LOOK_S_MAX) if begun else LOOK_S
        self._next[row["id"]] = (pause_s, self._world.clock.monotonic() + pause_s)

    async def _finish(self, melt_id: str) -> None:
        """Run a stored payment, and tell its author once it has ended."""
        try:
            row = (await self._world.store.read("melt_get", id=melt_id))[0]
            if row["state"] == "pending":
                outcome = await self._world.purse.run(melt_id, self._ended(row))
                if outcome.state == "PREPARED":
                    log.warning("melt_pending", melt=melt_id[:16])
                    self._wake.set()
                    return
            await self._tell(melt_id)
        except NostrllmError as error:
            log.warning("melt_waits", melt=melt_id[:16], code=error.code)
            self._wake.set()

    def _ended(self, row: Row) -> Callable[[Outcome], Sequence[Write]]:
        def then(outcome: Outcome) -> Sequence[Write]:
            coin, held = unit_msat(row["unit"]), int(row["held_msat"])
            done = outcome.state == "DONE"
            paid, fee = (outcome.amount * coin, outcome.fee * coin) if done else (0, 0)
            back = max(0, held - paid - fee)
            place = ledger.coins(row["mint"], row["unit"])
            lines = ledger.invoice_paid(row["id"], row["author"], place, held, paid, fee)
            writes = [_end(row, "done" if done else "refused", paid, fee, outcome.code)]
            if back:
                writes.append(Write("account_add", {"pubkey": row["author"], "msat": back}))
            return [*writes, *post(f"refund:{row['id']}", lines, self._world.now_s())]

        return then

    # change of an order

    async def _begin_change(self, row: Row) -> bool:
        """Pay an order's change out, once there is any. False while the order is not over.

        Raises WorldError while no mint says what that costs; the row is then as it was.
        """
        orders = await self._world.store.read("order_get", id=row["message"])
        state = orders[0]["state"] if orders else "refused"
        if state in ("paying", "paid"):
            return False
        if state == "refused":  # its author knows
            told = Write("melt_told", {"id": row["id"]})
            await self._world.store.commit(_end(row, "refused", 0, 0, "cancelled"), told)
            return True
        try:
            await self._pay_change(row, int(orders[0]["credit_msat"]))
        except (RemoteError, MintRefused) as error:
            log.info("change_not_paid_out", melt=str(row["id"])[:16], code=error.code)
            await self._world.store.commit(_end(row, "refused", 0, 0, error.code))
        return True

    async def _pay_change(self, row: Row, credit_msat: int) -> None:
        check_left(int(row["expires_at"]), self._world.now_s(), LEFT_S_AT_END)
        if int(row["msat"]) > credit_msat:
            raise _too_little(credit_msat)
        offer = await self._offer(row["invoice"], int(row["msat"]))

        def begin(plan: Plan, held_msat: int) -> list[Write]:
            if held_msat > credit_msat:
                raise _too_little(credit_msat, held_msat)
            begun = {"mint": plan.mint, "unit": plan.unit, "held_msat": held_msat}
            return [Write("melt_begin", {"id": row["id"], **begun}, rows=1)]

        await self._begin(row["id"], row["author"], offer, begin)

    # in words

    async def _tell(self, melt_id: str) -> None:
        """Say how it ended, once."""
        row = (await self._world.store.read("melt_get", id=melt_id))[0]
        if row["told"] or row["state"] in ("waiting", "pending"):
            return
        outgoing = await self._letterbox.seal(address_of(row), await self._reply(row))
        told = Write("melt_told", {"id": melt_id}, rows=1)
        try:
            await self._world.store.commit(told, *self._letterbox.store(melt_id, outgoing))
        except Conflict as conflict:
            if conflict.name != "melt_told":
                raise
            return
        self._letterbox.wake()

    async def _reply(self, row: Row) -> Wire | list[str]:
        refused, problem = row["state"] == "refused", None
        if refused:
            problem = Problem(
                code=row["code"] or "payment-lightning-failed",
                message="the invoice was not paid, and all of it is in your account",
            )
        balance = await self._accounts.balance_msat(row["author"])
        cost = int(row["paid_msat"]) + int(row["fee_msat"])
        if row["dialect"] == "client":
            statement = await self._accounts.statement(row["author"])
            return Answer(
                to=row["message"],
                balance_msat=balance,
                statement=statement.as_dict(),
                state=row["state"],
                paid_msat=0 if refused else cost,
                problem=problem,
            )
        if problem is not None:
            return [f"Sorry, {problem.message}: {sats(balance)}. [{problem.code}]"]
        fee = cost - int(row["msat"])
        return [
            f"Your invoice of {sats(row['msat'])} is paid, for a fee of {sats(fee)}; "
            f"{sats(balance)} stay here."
        ]


def _end(row: Row, state: str, paid_msat: int, fee_msat: int, code: str) -> Write:
    values: dict[str, Any] = {"id": row["id"], "state": state, "code": code}
    return Write("melt_end", {**values, "paid_msat": paid_msat, "fee_msat": fee_msat}, rows=1)


def _too_little(balance_msat: int, most_msat: int | None = None) -> RemoteError:
    said = f"your {sats(balance_msat)} do not cover the invoice"
    if most_msat is not None:
        said += f" and what paying it may cost: {sats(most_msat)}"
    return RemoteError(said, code="account-insufficient")
