"""The model servers behind the shop: how many answers each writes at once, and whether it is well.

A back-end that fails again and again is asked no more until a probe finds it well; orders for its
models are refused meanwhile, before anything is taken. What a client can bring about (a prompt that
is too long, a request the server does not take, a cancel) is no failure of the back-end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from nostrllm.core.breaker import Breaker
from nostrllm.errors import EngineError, RemoteError
from nostrllm.ports import Clock, Delta, Engine, Task
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.slots import Slots

#: What an engine says when it is the engine that failed.
FAULTS: Final = {"generation-failed", "model-unavailable", "busy"}
EVERY_S: Final = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One back-end at a glance; `failures` in a row, an order takes about `service_s`."""

    name: str
    well: bool
    slots: int
    running: int
    failures: int
    waiting: int = 0
    service_s: float = 0.0


class Backend:
    """An engine, the slots and the line before it, and its breaker."""

    def __init__(self, name: str, engine: Engine, slots: Slots, clock: Clock) -> None:
        self.name = name
        self.slots = slots
        self._engine = engine
        self._clock = clock
        self._breaker = Breaker()
        self._running = 0

    @property
    def well(self) -> bool:
        """May it be asked?"""
        return self._breaker.passes

    @property
    def status(self) -> BackendStatus:
        """How it stands."""
        return BackendStatus(
            self.name,
            self.well,
            slots=self.slots.limit,
            running=self._running,
            failures=self._breaker.failures,
            waiting=self.slots.waiting,
            service_s=round(self.slots.service_s, 1),
        )

    async def stream(
        self, body: Mapping[str, Any], task: Task = "chat"
    ) -> AsyncGenerator[Delta, None]:
        """See ports.Engine; how it ends is remembered."""
        self._running += 1
        try:
            async with contextlib.aclosing(self._engine.stream(body, task)) as deltas:
                async for delta in deltas:
                    yield delta
            self._breaker = self._breaker.succeeded()
        except EngineError as error:
            if error.code in FAULTS:
                self._failed(error)
            raise
        finally:
            self._running -= 1

    async def probe(self) -> None:
        """Ask it whether it is well, if it was not and it is time."""
        if not self._breaker.is_due(self._clock.monotonic()):
            return
        try:
            await self._engine.health()
        except EngineError as error:
            self._failed(error)
        else:
            self._breaker = self._breaker.probed()
            log.info("backend_well", backend=self.name)

    def _failed(self, error: EngineError) -> None:
        before = self._breaker
        self._breaker = before.failed(self._clock.monotonic())
        if before.passes and not self._breaker.passes:
            log.error("backend_ill", backend=self.name, code=error.code, reason=error.message)


class Backends:
    """Every back-end of the shop, by name."""

    def __init__(self, world: World, shop: Shop) -> None:
        self._clock = world.clock
        self._shop = shop
        self._backends = {
            name: Backend(name, world.engines[name], self._slots(name, count), world.clock)
            for name, count in shop.backends.items()
        }

    def _slots(self, name: str, count: int) -> Slots:
        adaptive = name in self._shop.adaptive
        return Slots(count, self._shop.queue_max, self._clock, adaptive=adaptive)

    def of(self, model_id: str) -> Backend:
        """The back-end that writes for a model. Raises RemoteError `model-unknown`."""
        return self._backends[self._shop.model(model_id).backend]

    def named(self, name: str) -> Backend:
        """The back-end of this name."""
        return self._backends[name]

    def check(self, model_id: str) -> None:
        """Refuse before anything is taken. Raises RemoteError `model-unknown`,
        `model-unavailable`."""
        if not self.of(model_id).well:
            raise RemoteError(
                "this model cannot be had at the moment; take another one, or try again soon",
                code="model-unavailable",
            )

    @property
    def status(self) -> list[BackendStatus]:
        """How each stands."""
        return [backend.status for backend in self._backends.values()]

    async def run(self) -> None:
        """Probe those that are not well, for ever."""
        while True:
            async with asyncio.TaskGroup() as group:
                for backend in self._backends.values():
                    group.create_task(backend.probe())
            await self._clock.sleep(EVERY_S)
