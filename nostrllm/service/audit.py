"""A provider's books while he does not run: audited, exported, and the earnings taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core.money import RATED, UNIT_MSAT
from nostrllm.errors import ConfigError, LocalError, RemoteError
from nostrllm.ports import Row
from nostrllm.provider import payout
from nostrllm.provider.audit import Check, audit
from nostrllm.provider.books import Summary, read_books, summary
from nostrllm.provider.payout import Paid, PayOrder, Wish, Withdrawal
from nostrllm.provider.quarantine import read_restore, restore_write
from nostrllm.provider.reconcile import reconcile
from nostrllm.provider.shop import STORE_PARTS
from nostrllm.purse import Outcome, Purse
from nostrllm.service.config import ProviderConfig
from nostrllm.service.secrets import seed_made_once
from nostrllm.wire.token import normal_url, parse_token

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    checks: list[Check]
    summary: Summary

    @property
    def ok(self) -> bool:
        """Did every check hold?"""
        return all(check.ok for check in self.checks)


@asynccontextmanager
async def stopped(config: ProviderConfig) -> AsyncIterator[SqliteStore]:
    """The store of a provider that does not run.

    Raises ConfigError if none ever ran there, LocalError `busy` while one does.
    """
    path = config.provider.state / "provider.db"
    if not path.is_file():
        raise ConfigError(f"no provider has run on {config.provider.state} yet")
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(SqliteStore.open(path, STORE_PARTS))
        except LocalError as error:
            if error.code != "busy":
                raise
            raise LocalError("the provider is running: stop it first", code="busy") from None
        yield store


async def audit_provider(config: ProviderConfig, *, offline: bool = False) -> Audit:
    """Every check of the rows and, unless `offline`, of the mints. Raises as `stopped`."""
    async with stopped(config) as store:
        books = await read_books(store)
        checks = audit(books)
        if not offline:
            async with CashuMints() as mints:
                checks += await reconcile(books, mints)
    return Audit(checks, summary(books))


async def restored(config: ProviderConfig) -> int:
    """Say that the store is an old copy; until when it is quarantined. Raises as `stopped`."""
    async with stopped(config) as store:
        await store.commit(restore_write(_now_s()))
        found = await read_restore(store)
    assert found is not None
    return found.until


async def postings(config: ProviderConfig) -> list[Row]:
    """Every posting, oldest first: at, set_id, account, msat. Raises as `stopped`."""
    async with stopped(config) as store:
        return await store.read("postings_all")


@asynccontextmanager
async def purse_of(config: ProviderConfig) -> AsyncIterator[tuple[SqliteStore, Purse]]:
    """The coins of a provider that does not run. Raises as `stopped`, ConfigError."""
    async with stopped(config) as store, CashuMints() as mints:
        seed = config.provider.state / "seed"
        if not seed.exists():
            raise ConfigError(f"{seed} is missing: without it no coin can be made")
        yield store, Purse(store, mints, _CLOCK, seed_made_once(seed))


async def withdraw(config: ProviderConfig, name: str, wish: Wish) -> Withdrawal:
    """Take a token out under this name. Raises as `purse_of` and payout.withdraw."""
    wish = _normal(wish)
    async with purse_of(config) as (store, purse):
        return await payout.withdraw(await read_books(store), purse, name, wish, _now_s)


async def deposit(config: ProviderConfig, text: str) -> Outcome:
    """Take a token of the owner's in. Raises as `stopped` and payout.deposit, RemoteError."""
    token = parse_token(text)
    if token.mint not in config.shop("").mints:
        raise ConfigError(f"{token.mint} is not a mint of this provider")
    async with stopped(config) as store, CashuMints() as mints:
        purse = Purse(store, mints, _CLOCK, seed_made_once(config.provider.state / "seed"))
        return await payout.deposit(purse, token, _now_s)


async def withdraw_again(config: ProviderConfig, name: str) -> Withdrawal | Paid:
    """What was begun under this name. Raises as `purse_of` and payout.again."""
    async with purse_of(config) as (_, purse):
        return await payout.again(purse, name, _now_s)


async def pay(config: ProviderConfig, name: str, order: PayOrder) -> Paid:
    """Have an invoice paid under this name. Raises as `purse_of` and payout.pay."""
    order = replace(order, wish=_normal(order.wish))
    async with purse_of(config) as (store, purse):
        return await payout.pay(await read_books(store), purse, name, order, _now_s)


def _normal(wish: Wish) -> Wish:
    units = (*UNIT_MSAT, *RATED)
    if wish.unit not in units:
        raise ConfigError(f"coins are of unit {' or '.join(units)}")
    if wish.mint is None:
        return wish
    try:
        return replace(wish, mint=normal_url(wish.mint))
    except RemoteError as error:
        raise ConfigError(error.message) from None


def _now_s() -> int:
    return int(_CLOCK.now())
