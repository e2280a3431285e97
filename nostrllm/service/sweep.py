"""Earnings that leave by themselves: what is surely the owner's becomes tokens in files.

The books are read as they stood at one moment and proven before anything is taken; a token is
written down in the store before its file, and its file again until the store knows that it is
there. Whoever reads such a file has the money.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.store_reading import reading
from nostrllm.core.money import UNIT_MSAT, unit_msat
from nostrllm.errors import LocalError, NostrllmError
from nostrllm.ports import Store, Write
from nostrllm.provider import payout
from nostrllm.provider.books import SWEEP, Books, read_books
from nostrllm.provider.payout import Wish, Withdrawal
from nostrllm.provider.shop import STORE_PARTS
from nostrllm.provider.trial import COST_UNITS_MAX
from nostrllm.purse import Purse
from nostrllm.service.audit import purse_of
from nostrllm.service.config import ProviderConfig, SweepTable
from nostrllm.service.secrets import private_folder, write_private
from nostrllm.wire.token import encode_token

FOLDER: Final = "sweeps"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """A token in a file; amount and fee in coins of the unit."""

    path: Path
    mint: str
    unit: str
    amount: int
    fee: int


async def books_now(state: Path) -> Books:
    """The books of a provider that may be running, all of one moment. Raises StoreError."""
    async with reading(state / "provider.db", STORE_PARTS, at_once=True) as snapshot:
        return await read_books(snapshot)


async def sweep(
    store: Store, purse: Purse, state: Path, table: SweepTable, now_s: Callable[[], int]
) -> list[Swept]:
    """Take out what is the owner's at each mint, where that is worth it; finish what was begun.

    What the trial of a mint may cost stays there: one can begin, or be under way, at any time.

    Raises LocalError while the books do not agree, WorldError when a mint does not answer; what was
    taken before is in its file.
    """
    done = await _unwritten(store, purse, state, now_s)
    books = await books_now(state)
    for mint, unit in sorted({(coin.mint, coin.unit) for coin in books.coins}):
        if unit not in UNIT_MSAT:
            continue
        most = await payout.room(books, purse, mint, unit)
        amount = most - -(-(table.keep_sat + COST_UNITS_MAX) * 1_000 // unit_msat(unit))
        if amount * unit_msat(unit) < table.threshold_sat * 1_000:
            continue
        name = f"{SWEEP}{secrets.token_hex(8)}"
        taken = await payout.withdraw(books, purse, name, Wish(amount, unit, mint), now_s)
        done.append(await _write(store, state, taken))
        books = await books_now(state)
    return done


async def sweep_stopped(config: ProviderConfig, table: SweepTable) -> list[Swept]:
    """Sweep a provider that does not run. Raises as `sweep`, ConfigError, LocalError `busy`."""
    async with purse_of(config) as (store, purse):
        clock = SystemClock()
        return await sweep(store, purse, config.provider.state, table, lambda: int(clock.now()))


async def _unwritten(
    store: Store, purse: Purse, state: Path, now_s: Callable[[], int]
) -> list[Swept]:
    """Sweeps that a crash or a silent mint cut before their file was there."""
    done = []
    for row in await store.read("sweeps_unwritten"):
        try:
            taken = await payout.again(purse, row["id"], now_s)
        except LocalError as error:  # refused by the mint, or taken by its owner already
            log.warning("sweep_ended", name=row["id"], code=error.code)
            await store.commit(Write("meta_set", {"name": f"swept:{row['id']}", "value": ""}))
        else:
            assert isinstance(taken, Withdrawal)
            done.append(await _write(store, state, taken))
    return done


async def _write(store: Store, state: Path, taken: Withdrawal) -> Swept:
    path = private_folder(state / FOLDER) / f"{taken.id}.token"
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    write_private(part, encode_token(taken.token) + "\n")
    part.replace(path)
    await store.commit(Write("meta_set", {"name": f"swept:{taken.id}", "value": path.name}))
    log.info("swept", name=taken.id, amount=taken.amount, unit=taken.token.unit)
    return Swept(path, taken.token.mint, taken.token.unit, taken.amount, taken.fee)


async def sweep_for_ever(
    store: Store, purse: Purse, state: Path, table: SweepTable, now_s: Callable[[], int]
) -> None:
    """Sweep every `every_s`; what cannot be done now is tried the next time."""
    while True:
        try:
            await sweep(store, purse, state, table, now_s)
        except NostrllmError as error:
            log.warning("sweep_waits", code=error.code, reason=error.message)
        await asyncio.sleep(table.every_s)
