"""The SQLite store: units whole or not at all, on disk before the answer, one process at a time."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.store_sqlite import UNITS_MAX, SqliteStore
from nostrllm.errors import ConfigError, LocalError, StoreError
from nostrllm.ports import Conflict, Write


def claim(y: str, **changes: Any) -> Write:
    return Write("claim_insert", {"mint": "m", "y": y, "owner": "o"} | changes)


def take(count: object) -> Write:
    return Write("counter_take", {"keyset_id": "k", "count": count})


async def owner(store: SqliteStore, y: str) -> list[Any]:
    return [row["owner"] for row in await store.read("claim_owner", mint="m", y=y)]


async def test_rows_come_back_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore.open(path, ["purse"]) as store:
        assert await store.commit(claim("a"), take(5), take(2)) == [[], [{"n": 5}], [{"n": 7}]]
        assert await store.commit() == []
    async with SqliteStore.open(path, ["purse"]) as store:
        assert await owner(store, "a") == ["o"]
        assert await store.commit(take(1)) == [[{"n": 8}]]


async def test_a_conflict_undoes_its_unit_only(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db", ["purse"]) as store:
        await store.commit(claim("a"))
        results = await asyncio.gather(
            store.commit(claim("b")),
            store.commit(claim("c"), claim("a"), claim("d")),
            store.commit(claim("e")),
            return_exceptions=True,
        )
        assert results[0] == results[2] == [[]]
        assert isinstance(results[1], Conflict)
        assert results[1].name == "claim_insert"
        for y, there in (("b", True), ("c", False), ("d", False), ("e", True)):
            assert bool(await owner(store, y)) is there


async def test_another_number_of_rows_is_a_conflict(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db", ["purse"]) as store:
        mark = Write("quote_mark", {"id": "q", "state": "PAID"}, rows=1)
        with pytest.raises(Conflict, match="quote_mark"):
            await store.commit(claim("a"), mark)
        select = Write("claim_owner", {"mint": "m", "y": "a"}, rows=0)
        assert await store.commit(select, claim("a")) == [[], []]
        with pytest.raises(Conflict, match="claim_owner"):
            await store.commit(select)


async def test_many_units_at_once(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db", ["purse"]) as store:
        async with asyncio.TaskGroup() as tasks:
            for number in range(5 * UNITS_MAX):
                tasks.create_task(store.commit(claim(str(number)), take(1)))
        assert await store.commit(take(0)) == [[{"n": 5 * UNITS_MAX}]]


async def test_a_cancelled_caller_harms_nobody(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db", ["purse"]) as store:
        async with asyncio.TaskGroup() as tasks:
            gone = tasks.create_task(store.commit(claim("a")))
            tasks.create_task(store.commit(claim("b")))
            await asyncio.sleep(0)
            gone.cancel()
        assert await owner(store, "b") == ["o"]


async def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with asyncio.TaskGroup() as tasks:  # noqa: SIM117 - the store closes first
        async with SqliteStore.open(path, ["purse"]) as store:
            late = [tasks.create_task(store.commit(claim(str(n)))) for n in range(100)]
            await asyncio.sleep(0)
    assert all(task.done() for task in late)
    async with SqliteStore.open(path, ["purse"]) as again:
        assert [await owner(again, str(n)) for n in range(100)] == [["o"]] * 100
    with pytest.raises(StoreError, match="closed"):
        await store.commit(claim("z"))


async def test_wrong_use_is_our_fault_and_hurts_nobody_else(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "store.db", ["purse"]) as store:
        with pytest.raises(LocalError, match="no SQL statement"):
            await store.commit(Write("nothing"))
        with pytest.raises(LocalError, match="lacks mint"):
            await store.read("claim_owner", y="y")
        results = await asyncio.gather(
            store.commit(take(1 << 63)),
            store.commit(take([])),
            store.commit(claim("\ud800")),
            store.commit(claim("good")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [LocalError, LocalError, LocalError, list]
        with pytest.raises(StoreError):
            await store.read("claim_owner", mint="m", y="\ud800")


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond `size_bytes`: what the kernel says then is what a full disk says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_refuses_the_whole_group_and_mends(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore.open(path, ["purse"]) as store:
        await store.commit(claim("before"))
        with full_disk(os.stat(f"{path}-wal").st_size + 10):
            results = await asyncio.gather(
                *(store.commit(claim(str(n) * 2_000)) for n in range(8)), return_exceptions=True
            )
        assert {type(result) for result in results} == {StoreError}
        await store.commit(claim("after"))
        assert await owner(store, "before") == await owner(store, "after") == ["o"]
        assert await owner(store, "0" * 2_000) == []


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore.open(path, ["purse"]):
        pass
    with sqlite3.connect(path) as direct:
        direct.execute("UPDATE schema_version SET version = 99")
    direct.close()
    with pytest.raises(ConfigError, match="newer nostrllm"):
        async with SqliteStore.open(path, ["purse"]):
            pass


async def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("this is not a database, but it is long enough to be looked at as one" * 20)
    with pytest.raises(StoreError):
        async with SqliteStore.open(path, ["purse"]):
            pass
    with pytest.raises(StoreError, match="cannot be opened"):
        async with SqliteStore.open(tmp_path / "no" / "such" / "folder", ["purse"]):
            pass


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore.open(path, ["purse"]):
        with pytest.raises(LocalError, match="open in another process"):
            async with SqliteStore.open(path, ["purse"]):
                pass
    async with SqliteStore.open(path, ["purse"]):
        pass


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch(mode=0o644)
    async with SqliteStore.open(path, ["purse"]) as store:
        await store.commit(claim("a"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in os.scandir(tmp_path)}
    assert modes == dict.fromkeys(
        ("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 0o600
    )


async def test_an_error_in_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with SqliteStore.open(tmp_path / "store.db", ["purse"]):
            raise KeyError("mine")


KILLED = """
import asyncio, os, sys
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.ports import Write
async def main():
    async with SqliteStore.open(sys.argv[1], ["purse"]) as store:
        for n in range(50):
            await store.commit(Write("claim_insert", {"mint": "m", "y": str(n), "owner": "o"}))
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_a_store_given_up_while_it_opens_or_closes_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    """However many steps it had gone: no thread that would outlive the loop, and no lock."""
    await asyncio.to_thread(os.getpid)  # the loop's own threads are there from now on
    before = set(threading.enumerate())
    for steps in range(60):
        opened = asyncio.create_task(_open_and_close(tmp_path / "store.db"))
        for _ in range(steps):
            await asyncio.sleep(0.0002)
        opened.cancel()
        with suppress(asyncio.CancelledError):
            await opened
        for thread in set(threading.enumerate()) - before:
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


async def _open_and_close(path: Path) -> None:
    async with SqliteStore.open(path, ["purse"]):
        pass


async def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    command = [sys.executable, "-c", KILLED, str(path)]
    assert subprocess.run(command, check=False).returncode == -9  # noqa: ASYNC221 - nothing else runs
    async with SqliteStore.open(path, ["purse"]) as store:
        assert [await owner(store, str(n)) for n in range(50)] == [["o"]] * 50
