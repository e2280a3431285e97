"""Locked tokens of orders that are over become coins, many in one swap (payment B).

due rows → one swap per mint and unit → signatures stored → `settled` messages

A mint's work is mostly per swap and per change coin, and what goes wrong with one token goes wrong
with its whole swap. So tokens are gathered for a moment and swapped together; a swap that a mint
refuses is cut in halves until the culprit is alone, and who spoiled his own change has it credited.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.money import unit_msat
from nostrllm.errors import RemoteError, WorldError
from nostrllm.ports import Conflict, Row, Write
from nostrllm.provider.handout import Handout, change_msat, chosen
from nostrllm.provider.locked import Locks, proofs_of
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import post
from nostrllm.purse import Outcome
from nostrllm.purse.settle import Part
from nostrllm.purse.till import keyset_in_use

#: Orders and coins in one swap, and how long the first waits for others.
ORDERS_MAX: Final = 50
COINS_MAX: Final = 150
GATHER_S: Final = 0.25

#: Everything that is locked to us is settled so long before its locktime.
MARGIN_S: Final = 1_800

#: What a mint did not answer is looked at again after a second, then after twice as long, …
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 60.0
LOOK_S: Final = 30.0

#: A mint's keysets are asked for again no more often than this.
KEYSETS_S: Final = 5.0

#: Operations of this prefix are swaps of locked tokens.
SETTLE: Final = "settle-"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Breaker:
    """A mint that does not answer is left alone until `until_s`, each time for longer."""

    pause_s: float = PAUSE_S
    until_s: float = 0.0


class Redeemer:
    """Swaps what is due, for ever; `wake` it when there is something new."""

    def __init__(self, world: World, locks: Locks, handout: Handout) -> None:
        self._world = world
        self._locks = locks
        self._handout = handout
        self._wake = asyncio.Event()
        self._sweeping = asyncio.Lock()
        #: Of mints, and of single orders whose token a mint refuses.
        self._breakers: dict[str, _Breaker] = {}
        self.stop_order: Callable[[str], object] = lambda order_id: None
        self.doubt: Callable[[str], Awaitable[None]] = _nothing

    def wake(self) -> None:
        """A token is due."""
        self._wake.set()

    def answers(self, mint: str) -> bool:
        """Is nothing known to wait for this mint? Else no token of it is taken."""
        return mint not in self._breakers

    def _is_due(self, name: str) -> bool:
        """May this mint, or this order's token, be tried now?"""
        breaker = self._breakers.get(name)
        return breaker is None or breaker.until_s <= self._world.clock.monotonic()

    async def run(self) -> None:
        """Settle for ever: at once when woken, else what is left over."""
        while True:
            self._wake.clear()
            await self.sweep()
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await self._world.clock.sleep(GATHER_S)

    def _pause_s(self) -> float:
        now = self._world.clock.monotonic()
        waits = [breaker.until_s - now for breaker in self._breakers.values()]
        return max(0.05, min([LOOK_S, *waits]))

    async def sweep(self) -> int:
        """Take every token one step further. Returns how many are not at their end."""
        async with self._sweeping:
            return await self._sweep()

    async def _sweep(self) -> int:
        store = self._world.store
        await self._stop_late()
        batches: dict[str, list[str]] = {}
        for row in await store.read("locked_batches"):
            batches.setdefault(row["mint"], []).append(row["batch"])
        due: dict[str, list[Row]] = {}
        for row in await store.read("locked_all_due"):
            due.setdefault(row["mint"], []).append(row)
        async with asyncio.TaskGroup() as group:
            for mint in sorted(batches.keys() | due.keys()):
                group.create_task(self._at(mint, batches.get(mint, []), due.get(mint, [])))
        await self.tell()
        left = await store.read("locked_all_due")
        begun = await store.read("locked_batches")
        names = {row["mint"] for row in begun} | {row["mint"] for row in left}
        self._forget(names | {row["id"] for row in left})
        return len(left) + len(begun)

    def _forget(self, names: set[str]) -> None:
        """Of what nothing is left, a breaker is gone once its time is over."""
        self._breakers = {
            name: breaker
            for name, breaker in self._breakers.items()
            if name in names or not self._is_due(name)
        }

    async def _at(self, mint: str, batches: Sequence[str], due: Sequence[Row]) -> None:
        """One mint: swaps that were begun come first, for if it does not answer nothing is new."""
        for batch in batches:
            if self._is_due(mint) and (await self._run(batch)).state == "REJECTED":
                self.wake()
        groups: dict[str, list[Row]] = {}
        for row in due:
            if self._is_due(row["id"]):
                groups.setdefault(row["unit"], []).append(row)
        for unit, rows in groups.items():
            if self._is_due(mint):
                await self._settle_all((mint, unit), rows)

    async def _stop_late(self) -> None:
        """Whatever runs so near its locktime is stopped, and charged as far as it came."""
        before = self._world.now_s() + MARGIN_S
        for row in await self._world.store.read("locked_late", before=before):
            if row["state"] == "accepted":
                self.stop_order(row["id"])
            elif row["locktime"] < self._world.now_s():
                log.error("lock_overdue", order=row["id"][:16], mint=row["mint"])

    # one mint and unit

    async def _settle_all(self, where: tuple[str, str], due: Sequence[Row]) -> None:
        try:
            ready = await self._ready(where, due)
            for batch in _batches(ready):
                await self._settle(where, batch)
        except (WorldError, RemoteError) as error:
            self._trip(where[0], error.code)

    def _trip(self, name: str, code: str) -> None:
        last = self._breakers.get(name, _Breaker())
        pause = min(PAUSE_S_MAX, last.pause_s * 2)
        until = self._world.clock.monotonic() + last.pause_s
        self._breakers[name] = replace(last, pause_s=pause, until_s=until)
        log.warning("settling_waits", what=name, code=code)

    async def _ready(self, where: tuple[str, str], due: Sequence[Row]) -> list[Row]:
        """Those whose change the mint can sign; of the others new outputs are asked for."""
        refused = any(row["id"] in self._breakers for row in due)
        keysets = await self._world.mints.at(where[0]).keysets(refresh=refused)
        keyset = keyset_in_use(keysets, where[1], ())
        ready = []
        for row in due:
            stale = any(output.id != keyset.id for output in chosen(row))
            if not stale:
                ready.append(row)
            elif row["locktime"] - MARGIN_S < self._world.now_s():
                ready.append(await self._handout.credit(row))
            else:
                await self._handout.ask(row)
        return ready

    async def _settle(self, where: tuple[str, str], rows: Sequence[Row]) -> None:
        """Swap these together; halves of them if the mint refuses."""
        if not rows or not self._is_due(where[0]):
            return
        batch = f"{SETTLE}{secrets.token_hex(12)}"
        try:
            plan = await self._world.purse.plan_settle(batch, *where, list(map(self._part, rows)))
        except RemoteError as error:
            await self._apart(where, rows, error.code, "")
            return
        begun = [Write("locked_begin", {"id": row["id"], "batch": batch}, rows=1) for row in rows]
        try:
            await self._world.store.commit(*plan.writes, *begun)
        except Conflict:
            return  # one of them went elsewhere; the next sweep sees how they are
        outcome = await self._run(batch)
        if outcome.state == "REJECTED" and not outcome.suspect:
            await self._apart(where, rows, outcome.code, outcome.note)

    def _part(self, row: Row) -> Part:
        ready = (
            replace(proof, witness=self._locks.unlock(proof.secret)) for proof in proofs_of(row)
        )
        return Part(row["id"], tuple(ready), chosen(row))

    async def _apart(
        self, where: tuple[str, str], rows: Sequence[Row], code: str, note: str
    ) -> None:
        """A swap was refused: try its halves, or find what is wrong with the one that is left."""
        poisoned = [row for row in rows if row["id"] in note.split()]
        if code == "payment-outputs-stale":
            self.wake()  # the next sweep knows the mint's keysets, and asks for new outputs
        elif code == "payment-outputs-wrong" and poisoned:
            rest = [row for row in rows if row not in poisoned]
            credited = [await self._handout.credit(row, spoiled=True) for row in poisoned]
            await self._settle(where, [*rest, *credited])
        elif len(rows) > 1:
            half = len(rows) // 2
            await self._settle(where, rows[:half])
            await self._settle(where, rows[half:])
        else:
            await self._alone(where, rows[0], code)

    async def _alone(self, where: tuple[str, str], row: Row, code: str) -> None:
        """One token that the mint does not take together with its client's outputs, or at all."""
        if code == "payment-token-spent":
            await self._lost(row)
        elif chosen(row) and not self._is_long_refused(row):
            self._trip(row["id"], code)  # perhaps the mint has other keys now, and we do not know
        elif chosen(row):
            spoiled = code != "payment-amount-low"  # the mint's fee rose: that is our loss
            await self._settle(where, [await self._handout.credit(row, spoiled=spoiled)])
        else:
            log.error("locked_token_refused", order=row["id"][:16], mint=row["mint"], code=code)
            self._trip(row["id"], code or "payment-token-invalid")

    def _is_long_refused(self, row: Row) -> bool:
        """Was a token refused alone until the mint's keysets, which we ask for again, were new?"""
        breaker = self._breakers.get(row["id"])
        return breaker is not None and breaker.pause_s > KEYSETS_S

    async def _lost(self, row: Row) -> None:
        """The mint says the coins are spent, and not by this swap: they were never ours to take."""
        await self._world.store.commit(*self._loss(row))
        log.error("locked_token_lost", order=row["id"][:16], mint=row["mint"])
        await self._handout.accuse(row)
        await self.doubt(row["mint"])

    def _credited(self, row: Row) -> list[Write]:
        """Change that the mint did not sign goes into the account, now that the token is ours."""
        msat = int(row["credit_units"]) * unit_msat(row["unit"])
        if not msat:
            return []
        lines = ledger.change_credited(row["id"], row["author"], msat)
        return [
            Write("account_add", {"pubkey": row["author"], "msat": msat}),
            *post(f"credited:{row['id']}", lines, self._world.now_s()),
        ]

    def _loss(self, row: Row) -> list[Write]:
        worth, place = int(row["worth_msat"]), ledger.locked(row["mint"], row["unit"])
        lines = ledger.lock_lost(row["id"], place, worth, change_msat(row))
        return [
            Write("locked_lost", {"id": row["id"]}, rows=1),
            *post(f"lost:{row['id']}", lines, self._world.now_s()),
        ]

    async def _run(self, batch: str) -> Outcome:
        rows = await self._world.store.read("locked_of_batch", batch=batch)
        outcome = await self._world.purse.run(batch, self._booked(batch, rows))
        if outcome.state == "PREPARED":
            self._trip(outcome.mint, "payment-pending")
        elif outcome.suspect:
            log.error("mint_suspect", order=batch, mint=outcome.mint)
            await self.doubt(outcome.mint)
        else:
            self._breakers.pop(outcome.mint, None)
        return outcome

    def _booked(self, batch: str, rows: Sequence[Row]) -> Callable[[Outcome], Sequence[Write]]:
        """What is committed with the swap's end."""

        def then(outcome: Outcome) -> Sequence[Write]:
            if outcome.suspect and not outcome.proofs:  # it took the coins and gave us nothing
                return [write for row in rows for write in self._loss(row)]
            if outcome.state != "DONE" and not outcome.suspect:
                return [Write("locked_back", {"batch": batch})]
            coin = unit_msat(outcome.unit)
            parts = [
                ledger.Redeemed(row["id"], int(row["worth_msat"]), int(row["change_units"]) * coin)
                for row in rows
            ]
            place = ledger.locked(outcome.mint, outcome.unit)
            to = ledger.coins(outcome.mint, outcome.unit)
            lines = ledger.redeemed(place, to, parts, outcome.fee * coin)
            done = [Write("locked_settled", {"id": row["id"]}, rows=1) for row in rows]
            done += [write for row in rows for write in self._credited(row)]
            lost = outcome.amount - sum(proof.amount for proof in outcome.proofs)
            if lost:
                spoiled = ledger.spoiled(to, lost * coin)
                done += post(f"spoiled:{batch}", spoiled, self._world.now_s())
            return [*done, *post(f"redeemed:{batch}", lines, self._world.now_s())]

        return then

    # the clients

    async def tell(self) -> None:
        """Send every client his signatures; once, and again when he asks."""
        rows = await self._world.store.read("locked_to_tell")
        for batch, group in groupby(sorted(rows, key=_batch), key=_batch):
            outcome = await self._world.purse.run(batch)
            await self._handout.hand_out(list(group), outcome)


async def _nothing(mint: str) -> None:
    """Nobody wants to know."""


def _batch(row: Row) -> str:
    return str(row["batch"])


def _batches(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in swaps of a size that a mint takes."""
    found: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        count = len(proofs_of(row))
        if found[-1] and (len(found[-1]) == ORDERS_MAX or size + count > COINS_MAX):
            found.append([])
            size = 0
        found[-1].append(row)
        size += count
    return found if rows else []
