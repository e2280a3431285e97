"""The line before a back-end: who sits down, whose turn it is, who is sent away and until when."""

from __future__ import annotations

import asyncio

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.core.queue import Asked
from nostrllm.errors import RemoteError
from nostrllm.provider.slots import Seat, Slots

CLOCK = SystemClock()


async def test_the_highest_priority_is_next_and_then_who_waited_longest() -> None:
    slots, had, go_on = Slots(1, 32, CLOCK), list[str](), asyncio.Event()

    async def work(name: str, priority: int) -> None:
        seat = slots.take(Asked(name, name, priority=priority), 30.0)
        assert await seat.turn(30.0)
        had.append(name)
        await go_on.wait()
        seat.leave()

    async with asyncio.TaskGroup() as group:
        for name, priority in (("first", 0), ("a", 0), ("b", 0), ("gold", 5), ("c", 0), ("top", 9)):
            group.create_task(work(name, priority))
            await asyncio.sleep(0)
        go_on.set()
    assert had == ["first", "top", "gold", "a", "b", "c"]


async def test_no_slot_is_lost_by_those_who_go_away() -> None:
    slots, go_on = Slots(1, 32, CLOCK), asyncio.Event()

    async def work(name: str) -> None:
        seat = slots.take(Asked(name, name), 30.0)
        try:
            assert await seat.turn(30.0)
            await go_on.wait()
        finally:
            seat.leave()

    first, waits, given = (asyncio.ensure_future(work(name)) for name in "abc")
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
    assert await slots.take(Asked("d", "d"), 30.0).turn(1.0)


async def test_who_gives_up_or_runs_out_of_patience_leaves_the_line() -> None:
    slots = Slots(1, 32, CLOCK)
    first = slots.take(Asked("first", "a"), 30.0)
    assert await first.turn(1.0)
    gives_up, impatient = (slots.take(Asked(name, name), 30.0) for name in ("b", "c"))
    waiting = asyncio.ensure_future(gives_up.turn(30.0))
    await asyncio.sleep(0)
    gives_up.give_up()
    gives_up.give_up()
    assert not await waiting
    assert not await impatient.turn(0.01)
    first.give_up()  # it runs: nothing
    for seat in (first, gives_up, impatient, first):
        seat.leave()
    assert await slots.take(Asked("d", "d"), 30.0).turn(1.0)


async def test_a_full_line_says_when_to_come_back() -> None:
    slots = Slots(1, 2, CLOCK)
    seats = list[Seat]()
    for name in "abc":
        slots.check(name)
        seats.append(slots.take(Asked(name, name), 30.0))
    for refused in (lambda: slots.check("d"), lambda: slots.take(Asked("d", "d"), 30.0)):
        with pytest.raises(RemoteError) as caught:
            refused()
        assert caught.value.code == "busy"
        assert caught.value.retry_after_s == 5
    assert slots.waiting == 3


async def test_an_order_that_would_come_too_late_is_refused_at_once() -> None:
    slots = Slots(1, 32, CLOCK)
    for n in range(2):  # an order takes 0.1 s or longer
        seat = slots.take(Asked(f"{n}", "a"), 0.01)
        assert await seat.turn(1.0)
        await asyncio.sleep(0.1)
        seat.leave()
    running = slots.take(Asked("running", "a"), 30.0)
    assert await running.turn(1.0)
    for n in range(9):
        slots.take(Asked(f"w{n}", f"w{n}"), 30.0)
    with pytest.raises(RemoteError) as caught:
        slots.take(Asked("late", "late"), 0.5)
    assert caught.value.code == "busy"
    assert "deadline" in caught.value.message
    seat = slots.take(Asked("patient", "patient"), 30.0)
    assert seat.ahead == 9
    assert seat.wait_s >= 0.9


async def test_a_back_end_of_unknown_capacity_is_given_no_more_than_it_bears() -> None:
    slots = Slots(64, 64, CLOCK, adaptive=True)
    began = slots.limit
    for n in range(100):
        seat = slots.take(Asked(f"{n}", f"{n}"), 30.0)
        assert await seat.turn(1.0)
        slots.first_token(f"{n}")
        seat.leave()
    assert slots.limit == began  # one at a time tells nothing
    slots.turned_down()
    assert slots.limit < began
