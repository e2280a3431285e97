"""A seeded asyncio loop with a virtual clock: hours of a daemon's life in milliseconds.

- when nothing can run, time jumps to the next timer: sleep(3600) costs nothing
- what is ready together runs in an order drawn from the seed: races that wall clocks hide come out
- real I/O is refused: whatever needs a socket goes through a simulated port
- tasks remember the life (of a process) they belong to, so that a crash can end all of them
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context, ContextVar
from typing import IO, Any, Final

START_S: Final = 1_700_000_000.0

Tasks = list["asyncio.Task[Any]"]

#: The tasks of the process that the running code belongs to; None outside of any.
PROCESS: ContextVar[Tasks | None] = ContextVar("process", default=None)


class Deadlock(Exception):
    """Nothing can ever run again."""


class _NoIO(selectors.BaseSelector):
    """Never waits and never polls; takes the loop's own wake-up pipe and no other file."""

    def __init__(self) -> None:
        self.skip: Callable[[], None] = lambda: None
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
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        if timeout:
            self.skip()
        return []

    def close(self) -> None:
        self._keys.clear()


class SimLoop(asyncio.SelectorEventLoop):
    """See the module. `ordered`: run what is ready first come, first served, as while crashing."""

    _ready: Any
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: str) -> None:
        self._now = START_S
        self._rng = random.Random(seed)
        self.ordered = False
        selector = _NoIO()
        super().__init__(selector)
        selector.skip = self._skip_to_next_timer
        # Above one ulp of epoch seconds, or a due timer never counts as due.
        self._clock_resolution = 1e-6
        self.set_task_factory(_task)
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        """Virtual unix seconds."""
        return self._now

    def _skip_to_next_timer(self) -> None:
        # Land on the timer itself: adding a difference can fall one ulp short for ever.
        self._now = max(self._now, self._scheduled[0].when())

    def _run_once(self) -> None:
        if len(self._ready) > 1 and not self.ordered:
            ready = list(self._ready)
            self._rng.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        super()._run_once()  # type: ignore[misc]


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
