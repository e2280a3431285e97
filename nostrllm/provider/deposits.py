"""Invoices that fill an account (NUT-04): asked of a mint, told, watched, credited once.

The mint's quote is stored before its invoice is told. Its coins, the credit and the end of the
quote are one commit. Whether it is paid is asked ever more rarely while it can be paid, across
restarts, and once more after it has ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.money import unit_msat
from nostrllm.errors import NostrllmError, RemoteError, WorldError
from nostrllm.ports import Conflict, MintQuote, Row, Write
from nostrllm.provider.accounts import Accounts
from nostrllm.provider.admit import Letter
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.reply import Letterbox, Outgoing
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import address_of, post
from nostrllm.purse import Outcome
from nostrllm.wire.amount import sats
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Answer, Problem

UNIT: Final = "sat"

#: Invoices of one author, and of all, that wait for their payment. Keys cost nothing, so those that
#: have paid for nothing yet leave room for the others.
OWN_MAX: Final = 4
ALL_MAX: Final = 512
STRANGERS_MAX: Final = 256

#: An invoice is looked at every two seconds at first, then after a tenth of its age.
LOOK_S: Final = 2.0
LOOK_S_MAX: Final = 300.0
#: With none that waits, how long before the store is asked again.
IDLE_S: Final = 60.0
#: The last look is so long after the end, for a payment that was on its way.
LAST_LOOK_S: Final = 600
AT_ONCE: Final = 4

log = structlog.get_logger()


class Deposits:
    """Lightning into accounts."""

    def __init__(
        self,
        world: World,
        shop: Shop,
        accounts: Accounts,
        letterbox: Letterbox,
        conduct: Conduct,
    ) -> None:
        self._world = world
        self._shop = shop
        self._accounts = accounts
        self._letterbox = letterbox
        self._conduct = conduct
        self._wake = asyncio.Event()
        self._next: dict[str, float] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def ask(self, letter: Letter, msat: int) -> None:
        """Tell the author an invoice of so many msat, whole sats, that fills his account.

        Raises RemoteError (message-invalid, payment-amount-high, rate-limited), WorldError.
        """
        await self._conduct.check(letter.author)
        await self._check(letter.author, msat)
        quote, mint = await self._quote(msat // unit_msat(UNIT))
        expires_at = self._end(quote)
        values = {
            "id": letter.id,
            "author": letter.author,
            "dialect": letter.address.dialect,
            "reply_key": letter.address.key,
            "reply_relays": json.dumps(letter.address.relays),
            "mint": mint,
            "unit": UNIT,
            "quote": quote.quote,
            "msat": msat,
            "expires_at": expires_at,
            "at": self._world.now_s(),
        }
        told = await self._invoice(letter, quote, msat, expires_at)
        heard = {"id": letter.id, "wrap": letter.wrap, "at": self._world.now_s()}
        try:
            await self._world.store.commit(
                Write("deposit_insert", values),
                Write("heard_note", heard),
                *self._letterbox.store(letter.id, told),
            )
        except Conflict as conflict:
            if conflict.name != "deposit_insert":
                raise
            return
        log.info("invoice_made", deposit=letter.id[:16], mint=mint)
        self._letterbox.wake()
        self._wake.set()

    async def _check(self, author: str, msat: int) -> None:
        if msat < unit_msat(UNIT) or msat % unit_msat(UNIT):
            raise RemoteError("name an amount of whole sats, at least one")
        if await self._accounts.balance_msat(author) + msat > self._shop.balance_msat_max:
            raise RemoteError(
                f"an account may hold {sats(self._shop.balance_msat_max)} at most",
                code="payment-amount-high",
            )
        [open_now] = await self._world.store.read("deposits_waiting", author=author)
        most = STRANGERS_MAX if not open_now["known"] else ALL_MAX
        if int(open_now["own"]) >= OWN_MAX or int(open_now["n"]) >= most:
            raise RemoteError("so many invoices are unpaid already", code="rate-limited")

    async def _quote(self, amount: int) -> tuple[MintQuote, str]:
        """A stored quote of the first of our mints that gives one. Raises NostrllmError."""
        failed: NostrllmError = WorldError("no mint gives an invoice", code="busy")
        for mint in self._shop.filling(UNIT):
            try:
                quote = await self._world.purse.fund(mint, amount, UNIT)
                asked = parse_invoice(quote.request).amount_msat
            except (RemoteError, WorldError) as error:
                failed = error
                continue
            if asked == amount * unit_msat(UNIT):
                return quote, mint
            log.warning("invoice_wrong", mint=mint)
        raise failed

    def _end(self, quote: MintQuote) -> int:
        """When it can be paid no more: the invoice says so, whatever the mint says of its quote."""
        return min(parse_invoice(quote.request).expires_at, self._world.now_s() + 86_400)

    async def _invoice(
        self, letter: Letter, quote: MintQuote, msat: int, expires_at: int
    ) -> list[Outgoing]:
        said: Wire | list[str]
        if letter.address.dialect == "client":
            said = Answer(
                to=letter.id, state="waiting", invoice=quote.request, expires_at=expires_at
            )
        else:
            minutes = max(1, (expires_at - self._world.now_s()) // 60)
            said = [
                f"Pay this invoice within {minutes} minutes and {sats(msat)} are added to your "
                "account; I tell you then.",
                quote.request,
            ]
        return await self._letterbox.seal(letter.address, said)

    # until it is paid

    async def run(self) -> None:
        """Look at the invoices that wait, for ever."""
        while True:
            self._wake.clear()
            waiting = await self.sweep()
            try:
                async with asyncio.timeout(LOOK_S if waiting else IDLE_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def soon(self, deposit_id: str) -> None:
        """Somebody asks how this one stands: look at it now."""
        self._next.pop(deposit_id, None)
        self._wake.set()

    async def sweep(self) -> int:
        """Look at those that are due. Returns how many are open."""
        rows = await self._world.store.read("deposits_open")
        now = self._world.clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for row in rows:
                if self._next.get(row["id"], 0.0) <= now:
                    group.create_task(self._guarded(row))
        ids = {row["id"] for row in rows}
        self._next = {key: at for key, at in self._next.items() if key in ids}
        return len(rows)

    async def _guarded(self, row: Row) -> None:
        age_s = max(0.0, self._world.clock.now() - int(row["created_at"]))
        pause_s = min(LOOK_S_MAX, max(LOOK_S, age_s / 10))
        self._next[row["id"]] = self._world.clock.monotonic() + pause_s
        async with self._at_once:
            try:
                await self.look(row["id"])
            except WorldError as error:
                log.info("invoice_not_seen", deposit=str(row["id"])[:16], code=error.code)
            except Exception:  # the supervisor of one invoice: the others must not wait for it
                log.exception("invoice_failed", deposit=str(row["id"])[:16])

    async def look(self, deposit_id: str) -> bool:
        """Ask the mint about one, and take it to its end if it is paid, or over. Is it at its end?

        Raises MintRefused, OutcomeUnknown.
        """
        rows = await self._world.store.read("deposit_get", id=deposit_id)
        if not rows:
            return True
        row = rows[0]
        if row["state"] == "waiting":
            asked_at = self._world.now_s()
            outcome = await self._world.purse.claim_quote(row["quote"], self._credited(row))
            if outcome.state == "PREPARED":
                unpaid = outcome.code == "payment-pending"
                if not unpaid or asked_at < int(row["expires_at"]) + LAST_LOOK_S:
                    return False
                await self._world.store.commit(_moved(row, "expired", told=1))
                log.info("invoice_expired", deposit=deposit_id[:16])
                return True
            if outcome.state == "REJECTED":  # its coins went to a past that we lost
                await self._world.store.commit(_moved(row, "refused", rows=None))
        await self._tell(deposit_id)
        return True

    def _credited(self, row: Row) -> Callable[[Outcome], Sequence[Write]]:
        def then(outcome: Outcome) -> Sequence[Write]:
            if outcome.state != "DONE":
                return [_moved(row, "refused")]
            net = outcome.net * unit_msat(row["unit"])
            lines = ledger.topped_up(row["author"], ledger.coins(row["mint"], row["unit"]), net)
            return [
                _moved(row, "done"),
                Write("account_add", {"pubkey": row["author"], "msat": net}),
                *post(f"topup:{row['id']}", lines, self._world.now_s()),
            ]

        return then

    async def _tell(self, deposit_id: str) -> None:
        """Say that it was paid, once."""
        row = (await self._world.store.read("deposit_get", id=deposit_id))[0]
        if row["told"]:
            return
        outgoing = await self._letterbox.seal(address_of(row), await self._ended(row))
        told = Write("deposit_told", {"id": deposit_id}, rows=1)
        try:
            await self._world.store.commit(told, *self._letterbox.store(deposit_id, outgoing))
        except Conflict as conflict:
            if conflict.name != "deposit_told":
                raise
            return
        self._letterbox.wake()

    async def _ended(self, row: Row) -> Wire | list[str]:
        problem = None
        if row["state"] != "done":
            problem = Problem(
                code="payment-mint-unreachable", message="the mint gave no coins for it"
            )
        balance = await self._accounts.balance_msat(row["author"])
        if row["dialect"] == "client":
            statement = await self._accounts.statement(row["author"])
            return Answer(
                to=row["id"],
                balance_msat=balance,
                statement=statement.as_dict(),
                state=row["state"],
                problem=problem,
            )
        if problem is not None:
            return [f"{problem.message}. Your balance is {sats(balance)}. [{problem.code}]"]
        return [f"Paid: {sats(row['msat'])} added. Your balance is {sats(balance)}."]


def _moved(row: Row, state: str, *, told: int = 0, rows: int | None = 1) -> Write:
    return Write("deposit_move", {"id": row["id"], "state": state, "told": told}, rows=rows)
