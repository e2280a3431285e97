"""Balances foretold: changes that are under way together each know of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.ports import Conflict, Store, Write
from nostrllm.provider.balances import Balance, Balances, committed, expected
from nostrllm.provider.shop import STORE_PARTS

WHO = "ab" * 32


def add(msat: int) -> Write:
    return Write("account_add", {"pubkey": WHO, "msat": msat})


def take(msat: int) -> Write:
    return Write("account_take", {"pubkey": WHO, "msat": msat}, rows=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SqliteStore.open(tmp_path / "store.db", STORE_PARTS) as opened:
        yield opened


async def change(store: Store, balances: Balances, msat: int) -> Balance:
    """A change that is right about what it leaves, or is a Conflict."""
    before = await balances.of(WHO)
    after = before.moved(msat)
    with balances.moving(WHO, after):
        await store.commit(expected(WHO, before), add(msat) if msat > 0 else take(-msat))
    return after


async def test_changes_that_are_under_way_together_each_hold_at_once(store: Store) -> None:
    balances = Balances(store)
    changes = [change(store, balances, msat) for msat in (100, -30, 7, -50, 3)]
    told = await asyncio.gather(*changes)
    assert told == [(1, 100), (2, 70), (3, 77), (4, 27), (5, 30)]
    assert await committed(store, WHO) == await balances.of(WHO) == (5, 30)


async def test_a_change_that_nobody_told_of_is_a_conflict_and_then_known(store: Store) -> None:
    balances = Balances(store)
    first, *rest = await asyncio.gather(
        change(store, balances, 100),
        store.commit(add(5)),
        change(store, balances, 1),
        change(store, balances, 2),
        return_exceptions=True,
    )
    assert first == (1, 100)
    assert [type(each) for each in rest] == [list, Conflict, Conflict]
    assert await change(store, balances, 1) == (3, 106)


async def test_those_behind_one_that_failed_fail_too(store: Store) -> None:
    balances = Balances(store)
    await change(store, balances, 100)
    told = await asyncio.gather(
        change(store, balances, 1),
        change(store, balances, -500),
        change(store, balances, 2),
        return_exceptions=True,
    )
    assert told[0] == (2, 101)
    assert [type(each) for each in told[1:]] == [Conflict, Conflict]
    assert await change(store, balances, 2) == (3, 103)


async def test_a_balance_is_not_mistaken_for_another_of_the_same_number(store: Store) -> None:
    """A foretold take that failed and an untold top-up are one change each."""
    balances = Balances(store)
    await change(store, balances, 100)
    told = await asyncio.gather(
        store.commit(take(90)),
        change_unguarded(store, balances, -50),
        change(store, balances, 2),
        return_exceptions=True,
    )
    assert [type(each) for each in told] == [list, Conflict, Conflict]
    assert await committed(store, WHO) == (2, 10)


async def change_unguarded(store: Store, balances: Balances, msat: int) -> None:
    """As an order's hold is made: it need not know the balance, it must only reach."""
    with balances.moving(WHO, (await balances.of(WHO)).moved(msat)):
        await store.commit(take(-msat))


async def test_an_account_of_a_person_who_chose_a_model_and_paid_nothing(store: Store) -> None:
    balances = Balances(store)
    await store.commit(Write("account_model", {"pubkey": WHO, "model": "small"}))
    assert await balances.of(WHO) == Balance()
    assert await change(store, balances, 100) == (1, 100)
    with pytest.raises(Conflict, match="account_moved"):
        await store.commit(expected(WHO, Balance()))


async def test_no_change_moves_nothing() -> None:
    assert Balance(3, 7).moved(0) == (3, 7)
