"""The books in the store: no write unbalances them, and those of an older version are kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core import ledger
from nostrllm.ports import Conflict, Write
from nostrllm.provider.shop import STORE_PARTS
from nostrllm.provider.ticket import post

#: What the first version wrote: single postings, coins named by their mint alone.
OLD = """
INSERT INTO operation VALUES
    ('o', 'receive', 'm', 'sat', 'DONE', 0, 0, '', '', '', '', 0, 0),
    ('r', 'send', 'm', 'sat', 'DONE', 0, 0, '', '', '', '', 0, 0),
    ('t', 'receive', 'm', 'msat', 'DONE', 0, 0, '', '', '', '', 0, 0),
    ('withdraw-1', 'send', 'm', 'sat', 'DONE', 0, 0, '', '', '', '', 0, 0);
INSERT INTO posting VALUES
    ('paid:o', 'coins:m', 9000, 1), ('paid:o', 'order:o', -9000, 1),
    ('settled:o', 'order:o', 9000, 2), ('settled:o', 'income', -2500, 2),
    ('settled:o', 'change:o', -6000, 2), ('settled:o', 'account:a', -500, 2),
    ('spent:o', 'change:o', 6000, 3), ('spent:o', 'coins:m', -6000, 3),
    ('topup:t', 'coins:m', 5000, 4), ('topup:t', 'account:a', -5000, 4),
    ('held:r', 'account:a', 5000, 5), ('held:r', 'order:r', -5000, 5),
    ('refund:r', 'order:r', 5000, 6), ('refund:r', 'change:r', -4000, 6),
    ('refund:r', 'coins:m', -2000, 6), ('refund:r', 'fees', 1000, 6),
    ('withdrawn:withdraw-1', 'coins:m', -600, 7), ('withdrawn:withdraw-1', 'owner', 600, 7);
"""


async def balances(store: SqliteStore) -> dict[str, int]:
    rows = await store.read("posting_balances")
    return {row["account"]: row["msat"] for row in rows if row["msat"]}


async def test_the_books_of_the_first_version_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "provider.db"
    async with SqliteStore.open(path, ("purse", "provider")):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD)
    async with SqliteStore.open(path, STORE_PARTS) as store:
        assert await balances(store) == {
            "coins:sat:m": 9_000 - 6_000 - 2_000 - 600,
            "coins:msat:m": 5_000,
            "income": -2_500,
            "account:a": -500,
            "change:r": -4_000,
            "fees": 1_000,
            "owner": 600,
        }
        rows = await store.read("postings_all")
        assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


async def test_no_write_unbalances_the_books(tmp_path: Path) -> None:
    path = tmp_path / "provider.db"
    async with SqliteStore.open(path, STORE_PARTS) as store:
        lines = ledger.balanced(("order:o", 7), ("income", -4), ("account:a", -3))
        await store.commit(*post("settled:o", lines, 1))
        for again in (lines, ledger.balanced(("fees", 1), ("owner", -1))):
            with pytest.raises(Conflict, match="entry_insert"):
                await store.commit(*post("settled:o", again, 2))
        good = post("held:o", lines, 3)[0].values
        for bad in ({"msat": 0}, {"msat": -5}, {"credit": good["debit"]}):
            with pytest.raises(Conflict, match="entry_insert"):
                await store.commit(Write("entry_insert", {**good, **bad}))
        assert await balances(store) == {"order:o": 7, "income": -4, "account:a": -3}
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("INSERT INTO posting VALUES ('gift', 'income', -5, 0)")
