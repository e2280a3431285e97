"""How far a viewer can trust a provider: a mean of opinions, weighted by trust in their authors.

    score = (good - bad) / (good + bad + NEUTRAL)         from -1 to 1, 0 for the unknown

`good` and `bad` are sums of evidence. An opinion of value x (-1 to 1) by an author of weight w
gives w · strength · age · (x if x > 0, else BLAME). Blame counts whole and praise by its height:
how low a bad rating is says nothing more, while a lukewarm good one is what politeness gives. Age:
part of the evidence fades with a half-life; praise has to ripen, blame counts at once.

The operator's seeds see every provider too. Their view is one more opinion, split into good and bad
as theirs is, and so decides for a viewer who follows nobody. It is carried through to the opinions
it comes from: every score is the sum of the shares of its `reasons`.

Weights come from `walk` (numpy); nothing here needs it. A weight of 0 leaves no trace: authors
whom no walk reaches change nothing, however many they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nostrllm.core.opinion import STRENGTH, Basis, Opinion

DAY_S: Final = 86_400

NEUTRAL: Final = 0.1  # evidence for neither side that everybody starts with
BLAME: Final = 1.5
SEEDS: Final = 1.0  # the seeds' view counts as one full opinion
OWN: Final = 20.0  # the viewer's own opinion, as all of his twenty best together
HALF_LIFE_DAYS: Final = 60.0
KEPT: Final = 0.6  # of the evidence never fades: a fraud does not sit its reviews out
RIPE_DAYS: Final = 30.0  # half of what praise lacks when new comes in this time
RAW: Final = 0.2  # what praise counts when new

ORDER: Final = 0.25  # evidence of one own order
ORDER_HALF_LIFE_DAYS: Final = 7.0

Weight = Callable[[str], float]
Override = Literal["muted", "listed"]


@dataclass(frozen=True, slots=True)
class Eyes:
    """Through whose eyes: weights (0 to 1) of authors for the viewer and for the seeds.

    `own`: the viewer's own keys. A viewer without follows weighs everybody 0.
    """

    viewer: Weight
    seeds: Weight
    own: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Own:
    """What the viewer knows himself. `orders`: when, and whether it was answered as promised."""

    orders: Sequence[tuple[int, bool]] = ()
    listed: bool = False
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """One opinion's share of a score; `weight` is the author's in the viewer's eyes."""

    id: str
    author: str
    value: float
    basis: Basis
    at_s: int
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Aspect:
    """Mean of an aspect, 0 to 1, and the weight of those who spoke of it."""

    name: str
    mean: float
    weight: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A provider in a viewer's eyes. `score` = the shares of `reasons` + `own_share`.

    `low`: lower bound of what its next reviews will say, for whoever has much to lose.
    `override`: the viewer's own word, which goes before any score. `newest_s`: time of the newest
    opinion that counted, 0 if none did; `as_of_s`: when this was worked out.
    """

    score: float
    low: float
    evidence: float
    reasons: tuple[Reason, ...]
    own_share: float
    aspects: tuple[Aspect, ...]
    override: Override | None
    newest_s: int
    as_of_s: int

    @property
    def rank(self) -> int:
        """0 to 100, as NIP-85 publishes it; 50 is the unknown."""
        return round(50 * (1 + self.score))

    def top(self, count: int) -> tuple[tuple[Reason, ...], float]:
        """The weightiest reasons, and what the rest and the viewer's own orders add up to."""
        head = self.reasons[:count]
        return head, math.fsum([self.own_share, *(r.share for r in self.reasons[count:])])


def age_factor(age_s: float, good: bool) -> float:
    """What is left of an opinion's evidence, and of praise what has ripened; both 0 to 1."""
    days = max(0.0, age_s) / DAY_S
    fresh = KEPT + (1 - KEPT) * math.exp2(-days / HALF_LIFE_DAYS)
    if not good:
        return fresh
    return fresh * (1 - (1 - RAW) * math.exp2(-days / RIPE_DAYS))


def evidence_of(opinion: Opinion, now_s: int) -> float:
    """Evidence for a weight of 1: positive for the provider, negative against it."""
    if opinion.value > 0:
        height = min(opinion.value, 1.0)
        return height * STRENGTH[opinion.basis] * age_factor(now_s - opinion.at_s, good=True)
    if opinion.value < 0:
        return -BLAME * STRENGTH[opinion.basis] * age_factor(now_s - opinion.at_s, good=False)
    return 0.0


def experience(orders: Iterable[tuple[int, bool]], now_s: int) -> tuple[float, float]:
    """Evidence of the viewer's own orders, for and against."""
    good = bad = 0.0
    for at_s, kept in orders:
        left = ORDER * math.exp2(-max(0, now_s - at_s) / DAY_S / ORDER_HALF_LIFE_DAYS)
        good, bad = (good + left, bad) if kept else (good, bad + BLAME * left)
    return good, bad


def low_bound(good: float, bad: float) -> float:
    """Wilson's lower bound (one standard error), as if there were one opinion more on each side.

    It never falls by evidence better than the mean is, and never rises by blame.
    """
    good, bad = good + 1, bad + 1
    total = good + bad
    middle = good + 0.5 - math.sqrt(good * bad / total + 0.25)
    return 2 * middle / (total + 1) - 1


def standing(
    opinions: Iterable[Opinion], eyes: Eyes, now_s: int, own: Own | None = None
) -> Standing:
    """A provider's standing from its opinions, of which there is at most one per author."""
    own = own or Own()
    said = [(o, _weight(o, eyes), eyes.seeds(o.author), evidence_of(o, now_s)) for o in opinions]
    heard = [item for item in said if item[1] > 0 or item[2] > 0]
    by_seeds = math.fsum(abs(seeds * each) for _, _, seeds, each in heard) + NEUTRAL
    parts = [(o, w, w * each + SEEDS * s * each / by_seeds) for o, w, s, each in heard]
    for_it, against = experience(own.orders, now_s)
    good = math.fsum([for_it, *(part for _, _, part in parts if part > 0)])
    bad = math.fsum([against, *(-part for _, _, part in parts if part < 0)])
    total = good + bad + NEUTRAL
    reasons = [
        Reason(o.id, o.author, o.value, o.basis, o.at_s, w, part / total) for o, w, part in parts
    ]
    override: Override | None = "muted" if own.muted else "listed" if own.listed else None
    return Standing(
        score=(good - bad) / total,
        low=low_bound(good, bad),
        evidence=good + bad,
        reasons=tuple(sorted(reasons, key=lambda r: (-abs(r.share), r.id))),
        own_share=(for_it - against) / total,
        aspects=_aspects((o, max(w, s)) for o, w, s, _ in heard),
        override=override,
        newest_s=max((o.at_s for o, _, _, _ in heard), default=0),
        as_of_s=now_s,
    )


def _weight(opinion: Opinion, eyes: Eyes) -> float:
    return OWN if opinion.author in eyes.own else eyes.viewer(opinion.author)


def _aspects(heard: Iterable[tuple[Opinion, float]]) -> tuple[Aspect, ...]:
    """Weighted mean of each aspect, an unverified word counting less, by name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for opinion, trusted in heard:
        weight = trusted * STRENGTH[opinion.basis]
        if weight > 0:  # trust so small that it is none
            for name, mark in opinion.aspects:
                found.setdefault(name, []).append((weight, mark))
    return tuple(_aspect(name, marks) for name, marks in sorted(found.items()))


def _aspect(name: str, marks: Sequence[tuple[float, float]]) -> Aspect:
    weight = math.fsum(weight for weight, _ in marks)
    return Aspect(name, math.fsum(weight * mark for weight, mark in marks) / weight, weight)


def turn(standing: Standing, alive: bool) -> tuple[int, float]:
    """Sort key, best first: the viewer's list, then by score, then the dead, then the muted."""
    if standing.override == "muted":
        place = 3
    elif not alive:
        place = 2
    else:
        place = 0 if standing.override == "listed" else 1
    return place, -standing.score
