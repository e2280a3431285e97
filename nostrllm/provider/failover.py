"""One order's way through the routes: when one fails, the next one writes.

Before the first token the client does not notice: the same order, the same deadline, the slot of
the route that failed is free for others. After it the order is free, unless the client allowed that
another route goes on with the text (`core.carry_on`); then each token is counted once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import structlog

from nostrllm.core.carry_on import Prefix, can_go_on, rest_of, usage_of
from nostrllm.core.queue import Asked
from nostrllm.core.route import Route
from nostrllm.errors import EngineError, RemoteError
from nostrllm.ports import Clock, Delta, Task
from nostrllm.provider.backend import FAULTS
from nostrllm.provider.backends import Backends
from nostrllm.provider.ticket import Job

#: While another route is left, one that is silent may use this part of the time that is left.
SILENCE_SHARE: Final = 0.5

log = structlog.get_logger()


class _Silent(EngineError):
    """The model server took too long for this order; how long it may take the client chose."""


class Passage:
    """An order, the route that it is on, and its seat there. Raises RemoteError `busy`,
    `model-unavailable` when no route has a place."""

    def __init__(
        self, backends: Backends, clock: Clock, job: Job, prefixes: Mapping[str, Prefix]
    ) -> None:
        self._backends = backends
        self._clock = clock
        self._job = job
        self._prefixes = prefixes
        self._asked = Asked(job.id, job.ticket.author, job.prompt_tokens, job.priority, job.known)
        self._tried: list[Route] = []
        self._stopped = False
        self._texts: list[str] = []
        self._spent = 0
        self._pieces = 0
        self._is_text = can_go_on(job.body, job.request.task)
        self.route, self.seat = backends.seat(job, self._asked)

    @property
    def carried_on(self) -> bool:
        """Did more than one route write of the answer?"""
        return self._spent > 0

    def give_up(self) -> None:
        """Wait in no line any longer."""
        self._stopped = True
        self.seat.give_up()

    def leave(self) -> None:
        """The order is served, or never will be."""
        self.seat.leave()

    async def stream(
        self, body: Mapping[str, Any], task: Task = "chat"
    ) -> AsyncGenerator[Delta, None]:
        """See ports.Engine; the turn on the first route has come."""
        asked: Mapping[str, Any] | None = body
        while asked is not None:
            try:
                async with contextlib.aclosing(self._write(asked, task)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except EngineError as error:
                asked = await self._after(error, body, task)
                if asked is None:
                    raise

    async def _after(
        self, error: EngineError, body: Mapping[str, Any], task: Task
    ) -> Mapping[str, Any] | None:
        """What to ask of the next route, once its turn has come; None: there is no way on."""
        if error.code not in FAULTS or (self._pieces and not self._may_go_on):
            return None
        text = "".join(self._texts)
        self._spent = max(self._pieces, len(text) // 4)
        while await self._next():
            if not self._pieces:
                return body
            rest = rest_of(body, task, text, self._spent, self._prefix)
            if rest is not None:
                return rest
        return None

    @property
    def _prefix(self) -> Prefix:
        return self._prefixes.get(self.route.backend, "none")

    @property
    def _may_go_on(self) -> bool:
        return self._job.carry_on and self._is_text

    async def _next(self) -> bool:
        """Leave this route for the next one and wait for the turn there; False: there is none."""
        self.seat.leave()
        self._tried.append(self.route)
        try:
            self.route, self.seat = self._backends.seat(self._job, self._asked, self._tried)
        except RemoteError:
            return False
        log.info("order_moved", order=self._job.id[:16], backend=self.route.backend)
        if self._stopped:
            self.seat.give_up()
        return await self.seat.turn(self._patience_s)

    @property
    def _patience_s(self) -> float:
        return self._job.ticket.deadline - self._clock.now()

    async def _write(self, body: Mapping[str, Any], task: Task) -> AsyncGenerator[Delta, None]:
        """What the route writes, measured."""
        registry, model = self._backends.registry, self._job.offer.id
        began_at = first_at = self._clock.monotonic()
        pieces = 0
        sent = {**body, "model": self.route.upstream}
        try:
            engine = self._backends.at(self.route)
            async with contextlib.aclosing(self.seat.stream(engine, sent, task)) as deltas:
                async for delta in self._impatient(deltas):
                    if delta.text or delta.reasoning or delta.tool_calls:
                        if not pieces:
                            first_at = self._clock.monotonic()
                            first_s = first_at - began_at
                            registry.began(model, self.route, first_s, self._clock.now())
                        pieces += delta.pieces
                    yield self._counted(delta)
        except EngineError as error:
            if error.code in FAULTS and not isinstance(error, _Silent):
                registry.failed(model, self.route, self._clock.now())
            raise
        took_s = self._clock.monotonic() - first_at
        registry.ended(model, self.route, self._clock.now(), pieces, took_s)

    async def _impatient(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """The deltas; a route that is silent for too long is left while there is another."""
        others = self._backends.routes(self._job, [*self._tried, self.route])
        if others and not self._pieces:
            try:
                async with asyncio.timeout(max(0.0, self._patience_s * SILENCE_SHARE)):
                    first = await anext(deltas, None)
            except TimeoutError:
                raise _Silent from None
            if first is None:
                return
            yield first
        async for delta in deltas:
            yield delta

    def _counted(self, delta: Delta) -> Delta:
        """The delta, as a part of the whole answer."""
        if delta.reasoning or delta.tool_calls:
            self._is_text = False
        if delta.text or delta.reasoning or delta.tool_calls:
            self._pieces += delta.pieces
            self._texts.append(delta.text)
        if delta.usage is None or not self._spent:
            return delta
        usage = usage_of(delta.usage, self._spent, self._job.prompt_tokens)
        return Delta(
            delta.text, delta.reasoning, delta.tool_calls, delta.finish_reason, usage, delta.pieces
        )
