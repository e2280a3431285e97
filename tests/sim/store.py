"""ports.Store on a database in memory, which is the disk that survives a crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from nostrllm.adapters.sql_file import Statement, read_part, statements_of
from nostrllm.errors import LocalError, StoreError
from nostrllm.ports import Conflict, Row, Write
from nostrllm.provider.shop import STORE_PARTS
from tests.sim.life import Life
from tests.sim.weather import Weather


@cache
def _statements() -> Mapping[str, Statement]:
    return statements_of([read_part(part) for part in STORE_PARTS])


@cache
def _empty() -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for part in map(read_part, STORE_PARTS):
        for sql in (sql for migration in part.migrations for sql in migration):
            connection.execute(sql)
    image = connection.serialize()
    connection.close()
    return image


class Disk:
    """The rows, and the SQL to reach them; `sql` replaces statements by name.

    `late_units`: so many units are acknowledged before they are safe, which no store may do.
    """

    def __init__(self, sql: Mapping[str, str] | None = None, late_units: int = 0) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self._connection.deserialize(_empty())
        self._connection.row_factory = sqlite3.Row
        self._late_units = late_units
        self._unsafe = 0
        self.statements = dict(_statements())
        for name, text in (sql or {}).items():
            old = self.statements[name]
            self.statements[name] = replace(old, sql=text)

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()

    def crash(self) -> None:
        """What was not safe is gone."""
        if self._connection.in_transaction:
            self._connection.rollback()
        self._unsafe = 0

    def unit(self, writes: tuple[Write, ...]) -> list[list[Row]]:
        """All writes or none. Raises Conflict."""
        connection, is_late = self._connection, self._late_units > 0
        if not connection.in_transaction:
            connection.execute("BEGIN")
        if is_late:
            connection.execute("SAVEPOINT unit")
        try:
            rows = [self._run(write) for write in writes]
        except Exception:
            connection.execute("ROLLBACK TO unit" if is_late else "ROLLBACK")
            if is_late:
                connection.execute("RELEASE unit")
                self._make_safe(0)
            raise
        if is_late:
            connection.execute("RELEASE unit")
        self._make_safe(1)
        return rows

    def _make_safe(self, units: int) -> None:
        self._unsafe += units
        if self._unsafe > self._late_units:
            self._unsafe = 0
        if not self._unsafe:
            self._connection.commit()

    def _run(self, write: Write) -> list[Row]:
        statement = self.statements[write.name]
        try:
            cursor = self._connection.execute(statement.sql, write.values)
        except sqlite3.IntegrityError:
            raise Conflict(write.name) from None
        rows: list[Row] = list(map(dict, cursor)) if statement.gives_rows else []
        count = len(rows) if statement.gives_rows else cursor.rowcount
        if write.rows not in (None, count):
            raise Conflict(write.name)
        return rows

    def rows(self, name: str, /, **values: Any) -> list[Row]:
        """The rows of a named SELECT."""
        statement = self.statement(name, values)
        return list(map(dict, self._connection.execute(statement.sql, values)))

    def table(self, sql: str) -> list[Row]:
        """The rows of any SELECT; for the checks at the end."""
        return [dict(row) for row in self._connection.execute(sql)]

    def statement(self, name: str, values: Mapping[str, Any]) -> Statement:
        """The statement, all of whose parameters are there. Raises LocalError."""
        statement = self.statements.get(name)
        if statement is None:
            raise LocalError(f"no SQL statement is called {name!r}")
        if missing := statement.parameters - values.keys():
            raise LocalError(f"{name} lacks {', '.join(sorted(missing))}")
        return statement


class StoppedStore:
    """ports.Store to read only, while no process runs."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """Raises StoreError."""
        raise StoreError

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """See ports.Store."""
        return self._disk.rows(name, **values)


class SimStore:
    """ports.Store for one life of the process."""

    def __init__(self, disk: Disk, life: Life, weather: Weather) -> None:
        self._disk = disk
        self._life = life
        self._weather = weather

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """See ports.Store."""
        for write in writes:
            self._disk.statement(write.name, write.values)
        self._life.boundary("before commit")
        await self._life.pause(0.03)
        if self._weather.draw("store_fails"):
            raise StoreError
        rows = self._disk.unit(writes)
        self._life.boundary("after commit")
        await self._life.pause(0.01)
        return rows

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """See ports.Store."""
        self._life.check()
        await self._life.pause(0.002)
        return self._disk.rows(name, **values)
