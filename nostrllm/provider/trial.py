"""Does a mint keep locks? Tried with a coin of our own, before anybody's is believed.

A mint that lists P2PK and does not enforce it would let the payer spend what he locked to us. So a
coin is locked to our own key: the refund key must not spend it before the locktime, and the payment
key must. The trial is a send and its reclaims in the purse, so a crash cuts it anywhere without a
loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.money import unit_msat
from nostrllm.errors import LocalError, MintRefused, NostrllmError
from nostrllm.ports import Write
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import post
from nostrllm.purse import Outcome

#: What a mint must know: checkstate, restore, P2PK, DLEQ.
NUTS: Final = ("7", "9", "11", "12")

#: Operations of this prefix are trials.
TRIAL: Final = "trial-"

AMOUNT: Final = 4

#: A trial's swaps cost no more than this; what is ours is in these accounts of the ledger.
COST_UNITS_MAX: Final = 4
OWN: Final = ("income", "fees", "lost", "owner")
UNIT: Final = "sat"
AGAIN_S: Final = 7 * 86_400

#: One that kept no locks, or signed wrongly, is tried again after a day: each trial costs its fees.
DOUBT_S: Final = 86_400
LOCK_S: Final = 3_600
#: A mint's clock may be so far ahead of ours.
SKEW_S: Final = 300.0
EVERY_S: Final = 60.0
COINLESS_S: Final = 1.0

log = structlog.get_logger()


class Trials:
    """Which mints were tried and found to keep locks."""

    def __init__(self, world: World, shop: Shop, key: PaymentKey) -> None:
        self._world = world
        self._shop = shop
        self._key = key
        self._due = asyncio.Event()
        self._at: dict[str, int] = {}
        self._doubted: dict[str, int] = {}
        self._next_s = 0.0

    async def passed(self, mint: str) -> bool:
        """Did this mint keep a lock, not too long ago?"""
        if mint not in self._at:
            rows = await self._world.store.read("meta_get", name=_name(mint))
            self._at[mint] = int(rows[0]["value"]) if rows else 0
        well = self._world.now_s() - self._at[mint] < AGAIN_S
        if not well and self._may_try(mint) and self._world.clock.monotonic() >= self._next_s:
            self._due.set()
        return well

    def _may_try(self, mint: str) -> bool:
        doubted = self._doubted.get(mint)
        return doubted is None or self._world.now_s() - doubted >= DOUBT_S

    async def doubt(self, mint: str) -> None:
        """Believe no locks there until the mint was tried again, which is not soon."""
        self._at[mint], self._doubted[mint] = 0, self._world.now_s()
        await self._world.store.commit(Write("meta_set", {"name": _name(mint), "value": "0"}))

    async def run(self) -> None:
        """Try each mint of ours when it is due, as soon as we have a coin there."""
        while True:
            for mint in (one.mint for one in self._shop.coins if one.unit == UNIT):
                if not await self.passed(mint) and self._may_try(mint):
                    await self._try(mint)
            self._due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._due.wait()

    async def _try(self, mint: str) -> None:
        try:
            kept = await self._keeps_locks(mint)
        except NostrllmError as error:
            coinless = error.code == "wallet-empty"
            if not coinless:
                log.warning("mint_not_tried", mint=mint, code=error.code)
            pause = COINLESS_S if coinless else EVERY_S
            self._next_s = self._world.clock.monotonic() + pause
            return
        if not kept:
            log.error("mint_keeps_no_locks", mint=mint)
            await self.doubt(mint)
            return
        now = self._world.now_s()
        await self._world.store.commit(Write("meta_set", {"name": _name(mint), "value": str(now)}))
        self._at[mint] = now
        log.info("mint_keeps_locks", mint=mint)

    async def _keeps_locks(self, mint: str) -> bool:
        """The trial itself. Raises NostrllmError when it could not be made."""
        purse, client = self._world.purse, self._world.mints.at(mint)
        if not _knows(await client.info()):
            return False
        name = await self._unfinished(mint)
        if not await self._world.purse.knows(name):
            await self._check_own()
        lock = (self._key.public, self._world.now_s() + LOCK_S)
        await purse.send(name, mint, UNIT, AMOUNT, then=self._booked, lock=lock)
        early = await purse.reclaim(name, self._booked)
        if early.state == "PREPARED" or (early.state == "DONE" and await self._is_old(name)):
            raise LocalError("the mint has not said", code="payment-pending")
        if early.state == "DONE":
            return False
        back = await purse.reclaim(name, self._booked, unlock=self._key.unlock)
        if back.state == "PREPARED":
            raise LocalError("the mint has not said", code="payment-pending")
        if back.state == "REJECTED":  # a trial that was cut and is old: its refund key is left
            await purse.reclaim(name, self._booked)
        return back.state == "DONE"

    async def _is_old(self, name: str) -> bool:
        """Was this trial cut, and is its lock over? Then the refund key proves nothing."""
        found = await self._world.purse.lock_of(name)
        return found is None or found.locktime <= self._world.now_s() + int(SKEW_S)

    async def _check_own(self) -> None:
        """A trial costs fees and takes coins for a moment: none of it is any client's.

        Raises LocalError `wallet-empty`.
        """
        rows = await self._world.store.read("posting_balances")
        ours = -sum(int(row["msat"]) for row in rows if row["account"] in OWN)
        if ours < (AMOUNT + COST_UNITS_MAX) * unit_msat(UNIT):
            raise LocalError("nothing was earned yet", code="wallet-empty")

    async def _unfinished(self, mint: str) -> str:
        """The name of a trial that a crash cut, else of a new one."""
        number = 0
        while True:
            name = f"{TRIAL}{number}:{mint}"
            if not await self._world.purse.knows(name):
                return name
            await self._finish(name)
            if await self._world.purse.token_of(name) is not None:
                return name
            number += 1

    async def _finish(self, name: str) -> None:
        """Take the swaps of a trial that a crash cut to their end."""
        for pending, _ in await self._world.purse.pending():
            if pending.startswith(name):
                outcome = await self._world.purse.run(pending, self._booked)
                if outcome.state == "PREPARED":
                    raise LocalError("the mint has not said", code="payment-pending")

    def _booked(self, outcome: Outcome) -> list[Write]:
        if outcome.state != "DONE":
            return []
        fee = outcome.fee * unit_msat(outcome.unit)
        lines = ledger.fee_borne(ledger.coins(outcome.mint, outcome.unit), fee)
        return post(f"fee:{outcome.op_id}", lines, self._world.now_s())


def _knows(info: Mapping[str, Any]) -> bool:
    """Does the mint list what we need (NUT-06)?"""
    nuts = info.get("nuts")
    if not isinstance(nuts, Mapping):
        raise MintRefused(0, "it does not say what it knows", code="payment-mint-unaccepted")
    listed = (nuts.get(number) for number in NUTS)
    return all(isinstance(one, Mapping) and one.get("supported") for one in listed)


def _name(mint: str) -> str:
    return f"keeps-locks:{mint}"
