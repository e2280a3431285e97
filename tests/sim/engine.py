"""A model server that answers, fails, stays empty, dies in the middle, is slow, or hangs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from nostrllm.errors import EngineError
from nostrllm.ports import Delta, Load, Task
from nostrllm.provider.backend import PROBE
from nostrllm.wire.order import Usage
from tests.sim.life import Life
from tests.sim.weather import Weather

#: An answer with this in it is sent in parts.
LONG = "long " * 8_000


def answer(question: str) -> list[str]:
    """The words of the answer to a question."""
    return [f"{word} " for word in ("The", "answer", "to", question, "is", "yes.")]


class SimEngine:
    """ports.Engine; `runs` counts how often each question was asked of the model."""

    def __init__(
        self, life: Life, weather: Weather, rng: random.Random, runs: Counter[str]
    ) -> None:
        self._life = life
        self._weather = weather
        self._rng = rng
        self._runs = runs

    async def models(self) -> list[str]:
        """See ports.Engine."""
        return ["m"]

    async def health(self) -> None:
        """See ports.Engine."""

    async def load(self) -> Load:
        """See ports.Engine."""
        return Load()

    async def stream(
        self, body: Mapping[str, Any], task: Task = "chat"
    ) -> AsyncGenerator[Delta, None]:
        """See ports.Engine."""
        self._life.boundary("before engine")
        question = str(body["messages"][-1]["content"])
        if question != PROBE:
            self._runs[question] += 1
        draw = self._weather.draw
        pause_s = 20.0 if draw("engine_slow") else 0.3
        await asyncio.sleep(self._rng.uniform(0.0, pause_s))
        if draw("engine_hangs"):
            await asyncio.sleep(100_000)
        if draw("engine_fails"):
            raise EngineError
        if draw("engine_empty"):
            yield Delta(finish_reason="stop", usage=Usage(prompt=10))
            return
        words = answer(question)
        if draw("engine_long"):
            words = [*words, LONG]
        for word in words:
            await asyncio.sleep(self._rng.uniform(0.0, pause_s))
            yield Delta(text=word)
            if draw("engine_dies"):
                raise EngineError
        usage = None
        if not draw("engine_uncounted"):
            most = 4_000 if draw("engine_verbose") else 60
            usage = Usage(prompt=20, completion=self._rng.randrange(len(words), most))
        self._life.boundary("after engine")
        yield Delta(finish_reason="stop", usage=usage)
