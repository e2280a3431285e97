"""Who is next when a slot is free."""

from __future__ import annotations

import asyncio

import pytest

from nostrllm.provider.slots import Slots


async def test_the_highest_priority_is_next_and_then_who_waited_longest() -> None:
    slots, had, go_on = Slots(1), list[str](), asyncio.Event()

    async def work(name: str, priority: int) -> None:
        async with slots.taken(priority):
            had.append(name)
            await go_on.wait()

    async with asyncio.TaskGroup() as group:
        for name, priority in (("first", 0), ("a", 0), ("b", 0), ("gold", 5), ("c", 0), ("top", 9)):
            group.create_task(work(name, priority))
            await asyncio.sleep(0)
        go_on.set()
    assert had == ["first", "top", "gold", "a", "b", "c"]


async def test_no_slot_is_lost_by_those_who_go_away() -> None:
    slots, go_on = Slots(1), asyncio.Event()

    async def work() -> None:
        async with slots.taken():
            await go_on.wait()

    first, waits, given = (asyncio.ensure_future(work()) for _ in range(3))
    for _ in range(3):
        await asyncio.sleep(0)
    waits.cancel()
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)  # `given` has its turn now, and goes away in the same moment
    given.cancel()
    for task in (first, waits, given):
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(1), slots.taken():
        pass
