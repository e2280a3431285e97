"""What the shop is asked for and how fast it works: the numbers that a pricing policy sees.

Work is counted in tokens decoded by the first priced model of a pool; other models, and prompts,
count as much as they cost in comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from nostrllm.core.money import prompt_estimate
from nostrllm.errors import RemoteError
from nostrllm.provider.admit import Wish
from nostrllm.wire.announcement import Price
from nostrllm.wire.order import Usage

#: Before any answer was written: tokens of an answer, and tokens per second of one stream.
ANSWER_TOKENS: Final = 256.0
STREAM_RATE: Final = 20.0
#: Answers count half after so many others; speed, after so many seconds of streaming.
ANSWERS: Final = 50
SPEED_S: Final = 600.0
#: What a token of the prompt counts where no price says it.
PROMPT_WEIGHT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted since the last one; work as in core/pricing_state.py.

    `utilisation` is the part of the slots' time in which they wrote.
    """

    orders: int
    work: float
    refused: int
    queue_work: float
    capacity: float
    utilisation: float


@dataclass(slots=True)
class Pool:
    """One back-end's numbers. `prices`: model → list price, as far as they are known."""

    slots: int
    prices: dict[str, Price] = field(default_factory=dict)
    orders: int = 0
    work: float = 0.0
    refused: int = 0
    open: dict[int, float] = field(default_factory=dict)  # work of orders that are not over
    begun: dict[int, float] = field(default_factory=dict)  # when streams began, monotonic
    busy_s: float = 0.0
    answer: float = ANSWER_TOKENS
    done_work: float = STREAM_RATE * SPEED_S
    done_s: float = SPEED_S

    def weigh(self, model_id: str, prompt: float, completion: float) -> float:
        """The work of an answer."""
        reference = next((price.output for price in self.prices.values() if price.output), 0)
        price = self.prices.get(model_id)
        if not reference or price is None or not price.output:
            return completion + PROMPT_WEIGHT * prompt
        millionths = completion * price.output + prompt * price.input + 1e6 * price.request
        return millionths / reference

    def tally(self, now: float, dt_s: float) -> Tally:
        """What came in the last `dt_s`; counted anew from here."""
        writing_s = sum(now - max(began, now - dt_s) for began in self.begun.values())
        waiting = max(0, len(self.open) - self.slots)
        last = sorted(self.open)[len(self.open) - waiting :]
        tally = Tally(
            orders=self.orders,
            work=self.work,
            refused=self.refused,
            queue_work=sum(self.open[number] for number in last),
            capacity=self.slots * self.done_work / self.done_s,
            utilisation=min(1.0, (self.busy_s + writing_s) / (dt_s * self.slots)),
        )
        self.orders, self.work, self.refused, self.busy_s = 0, 0.0, 0, 0.0
        return tally


class Meter:
    """Counts orders as they come and answers as they are written; `pool_of` a model's id."""

    def __init__(
        self, slots: dict[str, int], pool_of: Callable[[str], str], monotonic: Callable[[], float]
    ) -> None:
        self.pools = {name: Pool(count) for name, count in slots.items()}
        self._pool_of = pool_of
        self._now = monotonic
        self._last_at = {name: monotonic() for name in slots}
        self._number = 0

    @contextmanager
    def order(self, wish: Wish) -> Iterator[None]:
        """Count an order that came, also one that is refused now for want of room."""
        pool = self.pools[self._pool_of(wish.offer.id)]
        prompt = prompt_estimate(wish.request.size_bytes, wish.request.frames)
        most = min(wish.request.max_tokens or wish.offer.max_tokens, wish.offer.max_tokens)
        answer = 0.0 if wish.request.task == "embedding" else min(float(most), pool.answer)
        work = pool.weigh(wish.offer.id, prompt, answer)
        self._number += 1
        number = self._number
        pool.orders += 1
        pool.work += work
        pool.open[number] = work
        try:
            yield
        except RemoteError as error:
            if error.code == "busy":
                pool.refused += 1
            raise
        finally:
            del pool.open[number]

    @contextmanager
    def writing(self, model_id: str) -> Iterator[Callable[[Usage | None], None]]:
        """An answer is being written; tell how long it became."""
        pool = self.pools[self._pool_of(model_id)]
        self._number += 1
        number, began = self._number, self._now()
        pool.begun[number] = began

        def told(usage: Usage | None) -> None:
            took_s = self._now() - began
            if usage is None or not usage.completion or took_s <= 0:
                return
            pool.answer += (usage.completion - pool.answer) / ANSWERS
            kept = math.exp(-took_s / SPEED_S)
            pool.done_s = pool.done_s * kept + took_s
            work = pool.weigh(model_id, usage.prompt, usage.completion)
            pool.done_work = pool.done_work * kept + work

        try:
            yield told
        finally:
            since = max(began, self._last_at[self._pool_of(model_id)])
            pool.busy_s += self._now() - since
            del pool.begun[number]

    def tally(self, name: str) -> tuple[Tally, float]:
        """What a pool counted since the last time, and how long ago that was, s."""
        now = self._now()
        dt_s = max(1e-3, now - self._last_at[name])
        self._last_at[name] = now
        return self.pools[name].tally(now, dt_s), dt_s
