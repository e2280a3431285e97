"""A seeded asyncio loop with a virtual clock: hours of a daemon's life in milliseconds.

- when nothing can run, time jumps to the next timer: sleep(3600) costs nothing
- what is ready together runs in an order drawn from the seed: races that wall clocks hide come out
- real I/O is refused: whatever needs a socket goes through a simulated port
- tasks remember the life (of a process) they belong to, so that a crash can end all of them
"""

from __future__ import annotations

import asyncio
import heapq
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context, ContextVar
from typing import IO, Any, Final, TypeVarTuple

START_S: Final = 1_700_000_000.0

Tasks = list["asyncio.Task[Any]"]

_Ts = TypeVarTuple("_Ts")

#: The tasks of the process that the running code belongs to; None outside of any.
PROCESS: ContextVar[Tasks | None] = ContextVar("process", default=None)


class Deadlock(Exception):
    """Nothing can ever run again."""


class _NoIO(selectors.BaseSelector):
    """Never waits and never polls; takes the loop's own wake-up pipe and no other file."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._keys:
            raise RuntimeError("real I/O inside a simulation")
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_key(self, fileobj: int | IO[Any] | Any) -> selectors.SelectorKey:
        return self._keys[fileobj]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def close(self) -> None:
        self._keys.clear()


class SimLoop(asyncio.SelectorEventLoop):
    """See the module. `ordered`: run what is ready first come, first served, as while crashing.

    What asyncio does for sockets, signals, threads and debugging is left out of the way of a
    callback: it is run some thousand times in a history.
    """

    def __init__(self, seed: str) -> None:
        self._now = START_S
        self._rng = random.Random(seed)
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self.ordered = False
        super().__init__(_NoIO())
        self._ready: deque[asyncio.Handle] = deque()
        self.set_task_factory(_task)
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        """Virtual unix seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Run after what is running now."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run after so many virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run when it is so late."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is thrown away when its time has come."""

    def _run_once(self) -> None:
        ready = self._ready
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            self._skip_to_next_timer()
        if len(ready) > 1 and not self.ordered:
            shuffled = list(ready)
            self._rng.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _skip_to_next_timer(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Deadlock("every task waits and no timer is set")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(timers)[2])


def _task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: Context | None = None,
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    tasks = PROCESS.get()
    if tasks is not None:
        tasks.append(task)
    return task


class SimClock:
    """ports.Clock on the loop's virtual time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
