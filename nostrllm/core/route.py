"""Which back-end is asked for an answer, and which one if that fails.

A model may be had by several routes. They are tried in the order of what an answer is expected to
cost until one has come:

    (cost price + SECOND_MSAT × (wait + time to the first token + tokens ÷ tokens per second)) ÷ p

where p is the route's rate of success: a route that fails is tried 1/p times on average, and each
time costs its delay. So price, load and failures are on one scale. The shortest line is known
exactly here, in one process; two random choices (Mitzenmacher 2001) are for those who only sample.

Where two versions of a model are compared the version is drawn first, by weight; the others are
what is left when it fails. A route of weight 0 is a spare: tried when nothing else is left. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nostrllm.core.decayed import UNSEEN, Decayed
from nostrllm.core.money import cost_msat
from nostrllm.wire.announcement import Price
from nostrllm.wire.order import Usage

#: What a second of a client's time is worth against the operator's cost, in msat.
SECOND_MSAT: Final = 10.0
#: What is believed of a route before it has shown anything, and how many answers outweigh it.
FIRST_S: Final = 1.0
TOKENS_S: Final = 30.0
SUCCESS: Final = 0.98
PRIOR: Final = 5.0
#: However often it failed, a route is worth at most 1/SUCCESS_MIN tries.
SUCCESS_MIN: Final = 0.01

HISTORY_S: Final = 3_600
HISTORY_MAX: Final = 168


@dataclass(frozen=True, slots=True)
class Route:
    """A way to have a model written: a back-end and what it calls the model.

    `cost`: what it costs the operator, like a price. `version` and `weight`: see the module.
    """

    backend: str
    upstream: str
    cost: Price = field(default_factory=lambda: Price(input=0, output=0))
    version: str = ""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """What a route has shown: `served` of its answers came (1 or 0), `first_s` until the first
    token, `tokens_s`, and `quality`, 0 to 1, with a mean per hour that was rated."""

    served: Decayed = UNSEEN
    first_s: Decayed = UNSEEN
    tokens_s: Decayed = UNSEEN
    quality: Decayed = UNSEEN
    history: tuple[tuple[int, float], ...] = ()

    def success(self, now_s: float) -> float:
        """The rate of success that is expected of it."""
        return max(SUCCESS_MIN, self.served.mean(SUCCESS, now_s, prior=PRIOR))

    def began(self, first_s: float, now_s: float) -> Record:
        """The first token came after so long."""
        return replace(self, first_s=self.first_s.after(first_s, now_s))

    def ended(self, now_s: float, tokens: int, took_s: float) -> Record:
        """An answer came whole, `took_s` from its first token to its last."""
        done = replace(self, served=self.served.after(1.0, now_s))
        if tokens < 2 or took_s <= 0:
            return done
        return replace(done, tokens_s=self.tokens_s.after((tokens - 1) / took_s, now_s))

    def failed(self, now_s: float) -> Record:
        """It broke off, or did not begin."""
        return replace(self, served=self.served.after(0.0, now_s))

    def rated(self, score: float, now_s: float) -> Record:
        """An answer was judged: 0 useless, 1 perfect."""
        quality = self.quality.after(min(1.0, max(0.0, score)), now_s)
        hour = int(now_s) // HISTORY_S * HISTORY_S
        earlier = tuple(point for point in self.history if point[0] != hour)
        point = (hour, round(quality.mean(0.0, now_s), 4))
        return replace(self, quality=quality, history=(*earlier, point)[-HISTORY_MAX:])


@dataclass(frozen=True, slots=True)
class Choice:
    """A route as it stands: may it be asked, and how long would an order wait there?"""

    route: Route
    record: Record = field(default_factory=Record)
    well: bool = True
    wait_s: float = 0.0

    def expected_msat(self, prompt: int, answer: int, now_s: float) -> float:
        """What an answer of so many tokens is expected to cost until one has come."""
        first_s = self.record.first_s.mean(FIRST_S, now_s)
        tokens_s = max(1e-3, self.record.tokens_s.mean(TOKENS_S, now_s))
        delay_s = self.wait_s + first_s + answer / tokens_s
        asked = cost_msat(self.route.cost, Usage(prompt=prompt, completion=answer))
        return (asked + SECOND_MSAT * delay_s) / self.record.success(now_s)


def in_order(
    choices: Sequence[Choice], *, prompt: int, answer: int, draw: float, now_s: float
) -> list[Route]:
    """The routes to try, the first one first; empty when none is well. `draw`, in [0, 1), is the
    order's own number: the same one gives the same version again."""
    well = [choice for choice in choices if choice.well]
    version = _drawn([choice.route for choice in well], draw)

    def place(choice: Choice) -> tuple[bool, bool, float, str, str]:
        route = choice.route
        expected = choice.expected_msat(prompt, answer, now_s)
        return (not route.weight, route.version != version, expected, route.backend, route.upstream)

    return [choice.route for choice in sorted(well, key=place)]


def _drawn(routes: Sequence[Route], draw: float) -> str:
    """A version by weight; "" where only spares are left."""
    left = draw * sum(route.weight for route in routes)
    weighted = [route for route in routes if route.weight]
    for route in sorted(weighted, key=lambda route: route.version):
        left -= route.weight
        if left < 0:
            return route.version
    return ""
