"""The slots of one back-end and the line in front of them: who may wait, who is next, how long.

An order takes its seat before anything is redeemed, or is refused then. It keeps its place while
its money is fetched, and is passed over until it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from nostrllm.core.limit import Gradient
from nostrllm.core.queue import Asked, FairQueue
from nostrllm.core.waits import ServiceTime, expected_s, retry_s
from nostrllm.errors import EngineError, RemoteError
from nostrllm.ports import Clock, Delta, Task
from nostrllm.provider.generate import Writer


class Slots:
    """So many at once, `bound` more wait. Where the back-end's capacity is not known (`adaptive`),
    `count` is the most that it is given, and how many it bears is found by its latency."""

    def __init__(self, count: int, bound: int, clock: Clock, *, adaptive: bool = False) -> None:
        self._clock = clock
        self._gradient = Gradient(count, min(count, 4)) if adaptive else None
        self._queue = FairQueue(self._gradient.limit if self._gradient else count, bound)
        self._seats: dict[str, Seat] = {}
        self._began: dict[str, float] = {}
        self._service = ServiceTime()
        self._first = ServiceTime(0.0)

    @property
    def limit(self) -> int:
        """How many may run at once now."""
        return self._queue.limit

    @property
    def waiting(self) -> int:
        """Orders in the line."""
        return self._queue.waiting

    @property
    def wait_s(self) -> float:
        """How long an order that comes now would wait."""
        return self._wait_s(self._queue.waiting)

    @property
    def service_s(self) -> float:
        """What an order takes in its slot, on the high side."""
        return self._service.likely_s(self._ages())

    def check(self, author: str) -> None:
        """Refuse early whom nothing could let in. Raises RemoteError `busy`."""
        if not self._queue.fits(Asked("", author)):
            raise self._full()

    def take(self, asked: Asked, patience_s: float) -> Seat:
        """A place in the line. Raises RemoteError `busy`: there is none, or the first token would
        come after `patience_s`."""
        ahead = self._queue.ahead_of(asked)
        wait_s = self._wait_s(ahead)
        # Orders of those who were served less may still come before it: so much as a round.
        late_s = wait_s + self.service_s + self._first.likely_s([]) - patience_s
        if wait_s and late_s > 0:
            raise RemoteError(
                f"the wait is about {retry_s(wait_s)} s, too long for your deadline",
                code="busy",
                retry_after_s=retry_s(late_s),
            )
        if not self._queue.enter(asked):
            raise self._full()
        self._seats[asked.id] = seat = Seat(self, asked.id, ahead if wait_s else 0, wait_s)
        return seat

    def _full(self) -> RemoteError:
        """Come back when half of the line will be gone."""
        wait_s = self._wait_s(self._queue.waiting // 2)
        message = "too many orders are waiting; try again soon"
        return RemoteError(message, code="busy", retry_after_s=retry_s(wait_s))

    def _wait_s(self, ahead: int) -> float:
        return expected_s(ahead, self._queue.limit, self._ages(), self.service_s)

    def _ages(self) -> list[float]:
        now = self._clock.monotonic()
        return [now - began for began in self._began.values()]

    # for seats and the back-end

    def ready(self, order_id: str) -> None:
        """An order is paid."""
        self._queue.ready(order_id)
        self._go_on()

    def wrote(self, order_id: str, tokens: int) -> None:
        """A running order got more tokens."""
        self._queue.wrote(order_id, tokens)

    def first_token(self, order_id: str) -> None:
        """The back-end began to answer."""
        latency_s = self._clock.monotonic() - self._began[order_id]
        self._first = self._first.after(latency_s)
        if self._gradient is not None:
            self._adapt(self._gradient.after(latency_s, self._queue.running))

    def turned_down(self) -> None:
        """The back-end itself said that it is busy."""
        if self._gradient is not None:
            self._adapt(self._gradient.turned_down())

    def _adapt(self, gradient: Gradient) -> None:
        self._gradient = gradient
        if gradient.limit != self._queue.limit:
            self._queue.limit = gradient.limit
            self._go_on()

    def leave(self, order_id: str) -> None:
        """An order needs its seat or slot no more."""
        began = self._began.pop(order_id, None)
        if began is not None:
            self._service = self._service.after(self._clock.monotonic() - began)
        if self._seats.pop(order_id, None) is not None:
            self._queue.leave(order_id)
            self._go_on()

    def _go_on(self) -> None:
        while (order_id := self._queue.next()) is not None:
            self._began[order_id] = self._clock.monotonic()
            self._seats[order_id].begin()


class Seat:
    """One order's place: `ahead` orders were before it, for about `wait_s`, when it came."""

    def __init__(self, slots: Slots, order_id: str, ahead: int, wait_s: float) -> None:
        self.ahead = ahead
        self.wait_s = wait_s
        self._slots = slots
        self._id = order_id
        self._turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def waits(self) -> bool:
        """Is its turn still to come?"""
        return not self._turn.done()

    async def turn(self, patience_s: float) -> bool:
        """Wait for the slot, now that the order is paid. False: it did not come in time, or the
        order was given up."""
        self._slots.ready(self._id)
        await asyncio.wait([self._turn], timeout=max(0.0, patience_s))
        return self._turn.done() and self._turn.result()

    def begin(self) -> None:
        """The slot is there. One that gives up in the same moment leaves it soon."""
        if self.waits:
            self._turn.set_result(True)

    def give_up(self) -> None:
        """Wait no longer; nothing if it runs."""
        if self.waits:
            self._turn.set_result(False)

    def leave(self) -> None:
        """The order is served, or never will be."""
        self._slots.leave(self._id)

    async def stream(
        self, engine: Writer, body: Mapping[str, Any], task: Task
    ) -> AsyncGenerator[Delta, None]:
        """What the engine writes, counted."""
        first = True
        try:
            async with contextlib.aclosing(engine.stream(body, task)) as deltas:
                async for delta in deltas:
                    if delta.text or delta.reasoning or delta.tool_calls:
                        self._slots.wrote(self._id, delta.pieces)
                        if first:
                            first = False
                            self._slots.first_token(self._id)
                    yield delta
        except EngineError as error:
            if error.code == "busy":
                self._slots.turned_down()
            raise
