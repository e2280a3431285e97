"""A store that another process has open, to look at: what is committed there, and no more."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite

from nostrllm.adapters.sql_file import read_part, statements_of
from nostrllm.errors import LocalError, StoreError
from nostrllm.ports import Row, Write


class ReadingStore:
    """ports.Store without a way to write."""

    def __init__(self, connection: aiosqlite.Connection, parts: Sequence[str]) -> None:
        self._connection = connection
        self._statements = statements_of([read_part(part) for part in parts])

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """Raises LocalError."""
        raise LocalError("this store is only looked at")

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """See ports.Store."""
        if name not in self._statements:
            raise LocalError(f"no SQL statement is called {name!r}")
        sql = self._statements[name].sql
        try:
            return [dict(row) for row in await self._connection.execute_fetchall(sql, values)]
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"{name} cannot be read: {error}") from error


@asynccontextmanager
async def reading(
    path: Path, parts: Sequence[str], *, at_once: bool = False
) -> AsyncIterator[ReadingStore]:
    """The store at `path`, beside whoever writes it. `at_once`: as it stands at the first read.

    Raises StoreError.
    """
    uri = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = await aiosqlite.connect(uri, uri=True)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    try:
        connection.row_factory = aiosqlite.Row
        await connection.execute("PRAGMA busy_timeout = 5000")
        if at_once:
            await connection.execute("BEGIN")
        yield ReadingStore(connection, parts)
    finally:
        await connection.close()
