"""One model server: its slots, whether it is well, and which models it has.

A back-end that fails again and again is asked no more until a probe finds it well. What a client
can bring about (a prompt that is too long, a request the server does not take, a cancel) is no
failure of the back-end. A server may list its models and yet fail every answer, so the probe writes
a token. One that listed its models before and does not any more is gone, and so is a model that
left the list; a server that never listed a model that it is said to have is believed to have it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from nostrllm.core.breaker import Breaker
from nostrllm.errors import EngineError
from nostrllm.ports import Clock, Delta, Engine, Task
from nostrllm.provider.slots import Slots

#: What an engine says when it is the engine that failed.
FAULTS: Final = {"generation-failed", "model-unavailable", "busy"}
#: A server that did not list its models so often is gone.
MISSED_MAX: Final = 2
#: How long a server may take to list its models, and to write the token of a probe.
LIST_S: Final = 10.0
PROBE_S: Final = 30.0
PROBE: Final = "Say yes."

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

    def __init__(
        self, name: str, engine: Engine, slots: Slots, clock: Clock, *, watch_s: float = 2.0
    ) -> None:
        self.name = name
        self.slots = slots
        self._engine = engine
        self._clock = clock
        self._watch_s = watch_s
        self._watched_at = 0.0
        self._breaker = Breaker()
        self._running = 0
        self._missed = 0
        self._listed: frozenset[str] = frozenset()
        self._seen: frozenset[str] = frozenset()
        self._failed_at: tuple[str, Task] = ("", "chat")

    @property
    def well(self) -> bool:
        """May it be asked?"""
        return self._breaker.passes and self._missed < MISSED_MAX

    def has(self, upstream: str) -> bool:
        """May it be asked for this model?"""
        return self.well and (upstream in self._listed or upstream not in self._seen)

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
                self._failed_at = (str(body["model"]), task)
                self._failed(error)
            raise
        finally:
            self._running -= 1

    # is it well?

    async def look(self) -> None:
        """Ask what has to be asked by now: its list, and a token where it was not well."""
        now = self._clock.monotonic()
        if now >= self._watched_at:
            self._watched_at = now + self._watch_s
            await self._list()
        if self._breaker.is_due(self._clock.monotonic()):
            await self._probe()

    async def _list(self) -> None:
        try:
            async with asyncio.timeout(LIST_S):
                listed = frozenset(await self._engine.models())
        except (EngineError, TimeoutError):
            self._miss()
            return
        if self._missed >= MISSED_MAX:
            log.info("backend_back", backend=self.name)
            self._breaker = self._breaker.hastened(self._clock.monotonic())
        self._missed = 0
        for name in (self._seen & listed) - self._listed:
            log.info("model_back", backend=self.name, model=name)
        for name in self._listed - listed:
            log.error("model_gone", backend=self.name, model=name)
        self._listed = listed
        self._seen |= listed

    def _miss(self) -> None:
        self._missed += bool(self._seen)
        if self._missed == MISSED_MAX:
            log.error("backend_gone", backend=self.name)

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                await self._engine.health()
                await self._write_a_token()
        except TimeoutError:
            self._failed(EngineError("the model server took too long"))
        except EngineError as error:
            self._failed(error)
        else:
            self._breaker = self._breaker.probed()
            log.info("backend_well", backend=self.name)

    async def _write_a_token(self) -> None:
        model, task = self._failed_at
        body: dict[str, Any] = {"model": model, "max_tokens": 1}
        if task == "embedding":
            body = {"model": model, "input": [PROBE]}
        elif task == "completion":
            body["prompt"] = PROBE
        else:
            body["messages"] = [{"role": "user", "content": PROBE}]
        try:
            async with contextlib.aclosing(self._engine.stream(body, task)) as deltas:
                async for _ in deltas:
                    return
        except EngineError as error:
            if error.code in FAULTS:
                raise

    def _failed(self, error: EngineError) -> None:
        before = self._breaker
        self._breaker = before.failed(self._clock.monotonic())
        if before.passes and not self._breaker.passes:
            log.error("backend_ill", backend=self.name, code=error.code, reason=error.message)
