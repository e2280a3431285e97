"""Learning from what came of one's own requests, on top of the weights that ship.

Only the model that was asked shows how good it is, so each tier has a model of its own: the
quality that the router's gain foretells, corrected by a linear model on words and kind, updated by
normalised least mean squares. Some prompts go the other way on purpose, or nothing new would ever
be seen, and count for more as they are rarer (importance weighting). Outcomes may come late and
from others; those count by trust, and together less than one's own judgement.

Kept is no prompt, but of the latest ones which buckets their words fall into.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal

from nostrllm.core.prompt import BUCKETS, KINDS, Prompt, hashed

Tier = Literal["weak", "strong"]

#: The share of prompts that go the other way.
EXPLORE: Final = 0.05
#: Requests whose outcome may still come; the oldest is forgotten first.
PENDING_MAX: Final = 512
#: What others say of a request, together, weighs no more than this share of one's own judgement.
OTHERS_MAX: Final = 0.3
_RATE: Final = 0.1
_IMPORTANCE_MAX: Final = 5.0
#: The quality that both tiers have where neither gains.
_MIDDLE: Final = 0.6
_KIND_WEIGHT: Final = 0.7

Features = Mapping[int, float]


@dataclass(slots=True)
class _Pending:
    tier: Tier
    probability: float
    gain: float
    features: Features
    heard: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The tier to ask, and with which probability it was to be this one."""

    tier: Tier
    probability: float


def features(prompt: Prompt) -> dict[int, float]:
    """Bucket → weight: the words, and the kind in a bucket of its own."""
    found = hashed(prompt)
    found[BUCKETS + KINDS.index(prompt.kind)] = _KIND_WEIGHT
    return found


class Learner:
    """Corrects expected gains; the caller keeps its snapshot."""

    def __init__(self) -> None:
        self._weights: dict[Tier, dict[int, float]] = {"weak": {}, "strong": {}}
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    def gain(self, gain: float, found: Features) -> float:
        """The router's gain, corrected."""
        return gain + self._correction("strong", found) - self._correction("weak", found)

    def choose(
        self, request: str, found: Features, *, gain: float, strong: bool, draw: float
    ) -> Choice:
        """Follow the policy, or explore when `draw`, evenly from 0..1, says so; remember both.

        `gain` is the router's, uncorrected; `request` names the outcome that will be learned from.
        """
        policy: Tier = "strong" if strong else "weak"
        other: Tier = "weak" if strong else "strong"
        explores = draw < EXPLORE
        choice = Choice(other, EXPLORE) if explores else Choice(policy, 1.0 - EXPLORE)
        self._pending[request] = _Pending(choice.tier, choice.probability, gain, found)
        if len(self._pending) > PENDING_MAX:
            self._pending.popitem(last=False)
        return choice

    def learn(self, request: str, quality: float, *, trust: float | None = None) -> bool:
        """Take in a quality in 0..1; `trust` in 0..1 is set when somebody else judged.

        False when the request is not known any more, or nothing is left to be heard of it.
        """
        pending = self._pending.get(request)
        if pending is None:
            return False
        most = 1.0 if trust is None else OTHERS_MAX
        asked = 1.0 if trust is None else OTHERS_MAX * max(0.0, min(1.0, trust))
        weight = min(asked, most - pending.heard)
        if weight <= 0.0:
            return False
        pending.heard += weight
        if trust is None:
            del self._pending[request]
        self._update(pending, max(0.0, min(1.0, quality)), weight)
        return True

    def _update(self, pending: _Pending, quality: float, weight: float) -> None:
        half = pending.gain / 2 if pending.tier == "strong" else -pending.gain / 2
        expected = _MIDDLE + half + self._correction(pending.tier, pending.features)
        importance = min(_IMPORTANCE_MAX, 1.0 / pending.probability)
        size = sum(value * value for value in pending.features.values()) or 1.0
        step = _RATE * weight * importance * (quality - expected) / size
        weights = self._weights[pending.tier]
        for bucket, value in pending.features.items():
            weights[bucket] = weights.get(bucket, 0.0) + step * value

    def _correction(self, tier: Tier, found: Features) -> float:
        weights = self._weights[tier]
        return sum([weights.get(bucket, 0.0) * value for bucket, value in found.items()])

    def snapshot(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "weights": {tier: _listed(weights) for tier, weights in self._weights.items()},
            "pending": [
                [name, one.tier, one.probability, one.gain, one.heard, _listed(one.features)]
                for name, one in self._pending.items()
            ],
        }

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Learner:
        """From a snapshot; ValueError, KeyError or TypeError when it is none."""
        learner = cls()
        for tier, weights in learner._weights.items():
            weights.update(_read(document["weights"][tier]))
        for name, tier, probability, gain, heard, found in document["pending"]:
            if tier not in learner._weights or not 0.0 < probability <= 1.0:
                raise ValueError("a request of a snapshot was asked of nobody")
            pending = _Pending(tier, probability, _finite(gain), _read(found), _finite(heard))
            learner._pending[str(name)] = pending
        return learner


def _listed(weights: Features) -> list[list[float]]:
    return [[bucket, value] for bucket, value in weights.items()]


def _read(listed: list[list[float]]) -> dict[int, float]:
    found = {int(bucket): _finite(value) for bucket, value in listed}
    if any(not 0 <= bucket < BUCKETS + len(KINDS) for bucket in found):
        raise ValueError("a bucket of a snapshot does not exist")
    return found


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError("a number of a snapshot is not finite")
    return float(value)
