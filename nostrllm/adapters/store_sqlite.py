"""The store in one SQLite file: durable, one process at a time, many small units per fsync.

A single writer takes the units that wait, runs each in a savepoint of its own and commits them
together, so that the cost of one fsync is shared (group commit). A group is one call in the
writer's thread, because going there and back costs more than most statements do. Reads run on
connections of their own and see what is committed (WAL): what an index answers, at once in the
loop's thread, for it takes microseconds and waits for nobody; what has to look through a table, in
a thread (aiosqlite).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite

from nostrllm.adapters.sql_file import VERSION_TABLE, Part, Statement, read_part, statements_of
from nostrllm.errors import ConfigError, LocalError, StoreError
from nostrllm.ports import Conflict, Row, Write

_T = TypeVar("_T")

UNITS_MAX: Final = 64  # units in one commit
WAITING_MAX: Final = 1_024
#: More than there are statements, so that each is compiled once.
COMPILED_MAX: Final = 512
PRAGMAS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "wal_autocheckpoint = 4000",  # in pages: an order changes the same ones several times
    "temp_store = MEMORY",  # savepoints would make a file each for what they may have to undo
)

#: A value SQLite cannot hold: the fault of one unit, not of the disk.
_BAD_VALUE = (sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, UnicodeEncodeError)


@dataclass(frozen=True, slots=True, eq=False)
class _Unit:
    """Writes that go together, and who waits for them."""

    writes: tuple[tuple[Statement, Write], ...]
    done: asyncio.Future[list[list[Row]]]


@dataclass(slots=True)
class _Result:
    """What became of a unit inside its savepoint."""

    rows: list[list[Row]] = field(default_factory=list)
    error: Exception | None = None


class _Writer:
    """The connection that writes, in a thread of its own."""

    def __init__(self, path: Path | str) -> None:
        self._thread = ThreadPoolExecutor(1, "store")
        self._path = path
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> _Writer:
        await self._call(self._connect)
        return self

    async def __aexit__(self, *_: object) -> None:
        # Waits for a commit that is under way; nothing else can be in the thread.
        self._thread.submit(self._close)
        self._thread.shutdown()

    async def commit(self, group: Sequence[_Unit]) -> list[_Result]:
        """All units in one transaction, each in a savepoint; a result for each."""
        return await self._call(self._commit, group)

    async def _call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _connect(self) -> None:
        try:
            self._connection = _connection(self._path)
        except sqlite3.Error as error:
            self._close()
            raise StoreError(f"{self._path} is not a store: {error}") from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _commit(self, group: Sequence[_Unit]) -> list[_Result]:
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [_run(connection, unit) for unit in group]
            connection.commit()
        except sqlite3.Error as error:
            # If this fails, so does the next BEGIN: nothing is ever half written.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.rollback()
            return [_Result(error=StoreError(f"not written: {error}")) for _ in group]
        return results


def _connection(path: Path | str) -> sqlite3.Connection:
    """A connection for the thread that makes it."""
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=COMPILED_MAX)
    connection.row_factory = sqlite3.Row
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _run(connection: sqlite3.Connection, unit: _Unit) -> _Result:
    """The unit in its savepoint, undone to there if one of its writes does not hold."""
    connection.execute("SAVEPOINT unit")
    result = _Result()
    for statement, write in unit.writes:
        try:
            result.rows.append(_execute(connection, statement, write))
        except (sqlite3.IntegrityError, Conflict):
            result.error = Conflict(write.name)
        except _BAD_VALUE as error:
            result.error = LocalError(f"{write.name} has a value that cannot be stored")
            result.error.__cause__ = error
        if result.error is not None:
            connection.execute("ROLLBACK TO unit")
            break
    connection.execute("RELEASE unit")
    return result


def _execute(connection: sqlite3.Connection, statement: Statement, write: Write) -> list[Row]:
    cursor = connection.execute(statement.sql, dict(write.values))
    rows: list[Row] = [dict(row) for row in cursor.fetchall()] if statement.gives_rows else []
    count = len(rows) if statement.gives_rows else cursor.rowcount
    if write.rows not in (None, count):
        raise Conflict(write.name)
    return rows


class SqliteStore:
    """ports.Store on a file; made by `open`."""

    def __init__(
        self,
        writer: _Writer,
        near: sqlite3.Connection,
        far: aiosqlite.Connection,
        statements: Mapping[str, Statement],
    ) -> None:
        self._writer = writer
        self._near = near
        self._far = far
        self._statements = statements
        self._searches = frozenset(
            each.name for each in statements.values() if _is_search(near, each)
        )
        self._waiting: asyncio.Queue[_Unit | None] = asyncio.Queue(WAITING_MAX)
        self._open = True

    @staticmethod
    @asynccontextmanager
    async def open(path: Path | str, parts: Sequence[str]) -> AsyncIterator[SqliteStore]:
        """The store at `path`, made or migrated; `parts` name the files of its tables.

        Leaving the block commits what still waits. Raises LocalError while another process has it
        open, ConfigError when it was written by a newer version, StoreError when it cannot be read.
        """
        found = [read_part(part) for part in parts]
        statements = statements_of(found)
        with _alone(Path(path)):
            async with _connect(path) as reader, _Writer(path) as writer:
                try:
                    for part in found:
                        await _migrate(reader, part)
                    await reader.execute("PRAGMA query_only = 1")
                except sqlite3.Error as error:
                    raise StoreError(f"the store cannot be opened: {error}") from error
                with closing(_connection(path)) as near:
                    near.execute("PRAGMA query_only = 1")
                    async with SqliteStore(writer, near, reader, statements)._writing() as store:
                        yield store

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[SqliteStore]:
        failure: BaseException | None = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            try:
                yield self
            # Whatever ended the block, a cancellation too, is raised as itself: a task group would
            # wrap it, and cancel the writer before it has committed what is waiting.
            except BaseException as error:  # noqa: BLE001 - raised below
                failure = error
            self._open = False
            await self._waiting.put(None)
        if failure is not None:
            raise failure

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """See ports.Store. Cancelled while it waits, it may have been written or not."""
        unit = _Unit(
            tuple((self._statement(write.name, write.values), write) for write in writes),
            asyncio.get_running_loop().create_future(),
        )
        if not self._open:
            raise StoreError("the store is closed")
        await self._waiting.put(unit)
        return await unit.done

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """See ports.Store."""
        statement = self._statement(name, values)
        try:
            if name in self._searches:
                found: Iterable[sqlite3.Row] = self._near.execute(statement.sql, values).fetchall()
            else:
                found = await self._far.execute_fetchall(statement.sql, values)
            return [dict(row) for row in found]
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"{name} cannot be read: {error}") from error

    def _statement(self, name: str, values: Mapping[str, Any]) -> Statement:
        statement = self._statements.get(name)
        if statement is None:
            raise LocalError(f"no SQL statement is called {name!r}")
        if missing := statement.parameters - values.keys():
            raise LocalError(f"{name} lacks {', '.join(sorted(missing))}")
        return statement

    async def _write(self) -> None:
        """Commit group after group until the store closes."""
        going = True
        while going:
            units = [await self._waiting.get()]
            while len(units) < UNITS_MAX and not self._waiting.empty():
                units.append(self._waiting.get_nowait())
            going = None not in units
            group = [unit for unit in units if unit is not None]
            if group:
                await self._commit_group(group)

    async def _commit_group(self, group: Sequence[_Unit]) -> None:
        results = await self._writer.commit(group)
        for unit, result in zip(group, results, strict=True):
            if unit.done.done():
                continue  # whoever waited was cancelled
            if result.error is None:
                unit.done.set_result(result.rows)
            else:
                unit.done.set_exception(result.error)


def _is_search(connection: sqlite3.Connection, statement: Statement) -> bool:
    """Does the statement read, and only rows that an index leads to?"""
    if not statement.is_read:
        return False
    nothing = dict.fromkeys(statement.parameters)
    steps = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", nothing).fetchall()
    return not any(str(step["detail"]).startswith("SCAN") for step in steps)


@asynccontextmanager
async def _connect(path: Path | str) -> AsyncIterator[aiosqlite.Connection]:
    connection = aiosqlite.connect(path, isolation_level=None)
    try:
        await _to_its_end(_opened(connection))
        connection.row_factory = aiosqlite.Row
        try:
            for pragma in PRAGMAS:
                await connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise StoreError(f"{path} is not a store: {error}") from error
        yield connection
    finally:
        await _to_its_end(connection.close())


async def _opened(connection: aiosqlite.Connection) -> None:
    await connection


async def _to_its_end(work: Coroutine[None, None, None]) -> None:
    """Await `work` to its end even when cancelled.

    A thread does it: it would answer into a loop that is closed, and if nobody took the connection
    it opened, it would keep the process from ending.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock file beside the store, and give the store a mode nobody else can read."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(f"{path} is open in another process", code="busy") from None
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        yield
    finally:
        os.close(lock)


async def _migrate(connection: aiosqlite.Connection, part: Part) -> None:
    """Bring the part's tables to its newest version, in one transaction."""
    await connection.execute("BEGIN IMMEDIATE")
    try:
        await connection.execute(VERSION_TABLE)
        query = "SELECT version FROM schema_version WHERE part = :part"
        rows = list(await connection.execute_fetchall(query, {"part": part.name}))
        version, newest = (rows[0][0] if rows else 0), len(part.migrations)
        if version > newest:
            raise ConfigError(
                f"the store's {part.name} tables have version {version}, this program knows "
                f"{newest}: a newer nostrllm wrote it"
            )
        for sql in (sql for migration in part.migrations[version:] for sql in migration):
            await connection.execute(sql)
        await connection.execute(
            "INSERT INTO schema_version (part, version) VALUES (:part, :version)"
            " ON CONFLICT (part) DO UPDATE SET version = excluded.version",
            {"part": part.name, "version": newest},
        )
        await connection.commit()
    except BaseException:  # cancelled half way, the tables must not stay half made either
        await connection.rollback()
        raise
