"""How much a strong model is expected to gain over a weak one on a prompt.

One head per kind of prompt predicts P(strong is right) − P(weak is right) from the prompt's
structure (linear, and radial basis functions around landmarks) and from its hashed words (linear).
The weights are data; `adapters/route_weights.py` loads those that ship, and
`tests/benchmarks/route_train.py` makes them.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import dist, exp, sqrt
from operator import mul
from struct import unpack
from typing import Any, Final

from nostrllm.core.prompt import BUCKETS, FEATURES, GENERAL, KINDS, Kind, Prompt, hashed, structure

#: A feature further than this from what was seen in training counts as this far.
DEVIATIONS_MAX: Final = 4.0
#: How softly a negative gain is bent to a score above 0.
SOFTNESS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Head:
    """The weights for one kind of prompt.

    mean, scale, linear: `FEATURES` numbers each; landmarks: points in the first `GENERAL`
    standardised features, each with its pull; words: `BUCKETS` numbers, or none.
    """

    bias: float
    mean: Sequence[float]
    scale: Sequence[float]
    linear: Sequence[float]
    landmarks: Sequence[Sequence[float]] = ()
    pulls: Sequence[float] = ()
    width: float = 1.0
    words: Sequence[float] = ()

    def gain(self, features: Sequence[float], words: Mapping[int, float]) -> float:
        """The expected gain, about −1..1, of a prompt with this structure and these words."""
        bound = DEVIATIONS_MAX
        z = [
            max(-bound, min(bound, (value - mean) * scale))
            for value, mean, scale in zip(features, self.mean, self.scale, strict=True)
        ]
        gain: float = self.bias + sum(map(mul, z, self.linear))
        if self.landmarks:
            general, width = z[:GENERAL], -1.0 / (self.width * GENERAL)
            squares = [dist(general, landmark) ** 2 for landmark in self.landmarks]
            near = [exp(width * square) for square in squares]
            gain += sum(map(mul, near, self.pulls), 0.0)
        if self.words:
            gain += sum([self.words[bucket] * value for bucket, value in words.items()])
        return gain


@dataclass(frozen=True, slots=True)
class Weights:
    """One head for every kind."""

    heads: Mapping[Kind, Head]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Weights:
        """From the JSON document that training writes; ValueError when a shape is wrong."""
        return cls({kind: _head(document["heads"][kind]) for kind in KINDS})


def _head(document: Mapping[str, Any]) -> Head:
    words: tuple[float, ...] = ()
    if packed := document.get("words"):
        step = float(document["words_step"])
        words = tuple(step * one for one in unpack(f"<{BUCKETS}h", b64decode(packed)))
    head = Head(
        bias=document["bias"],
        mean=document["mean"],
        scale=document["scale"],
        linear=document["linear"],
        landmarks=document.get("landmarks", ()),
        pulls=document.get("pulls", ()),
        width=document.get("width", 1.0),
        words=words,
    )
    if {len(head.mean), len(head.scale), len(head.linear)} != {FEATURES}:
        raise ValueError("a head has weights for other features")
    if len(head.landmarks) != len(head.pulls) or {len(one) for one in head.landmarks} - {GENERAL}:
        raise ValueError("a head has landmarks of another shape")
    return head


def expected_gain(prompt: Prompt, weights: Weights) -> float:
    """P(strong is right) − P(weak is right), as far as the prompt tells."""
    head = weights.heads[prompt.kind]
    return head.gain(structure(prompt), hashed(prompt) if head.words else {})


def score(gain: float) -> float:
    """A gain as a score in 0..1 of the same order: about the gain itself where it is positive."""
    gain = max(-1.0, min(1.0 - SOFTNESS, gain))
    return (gain + sqrt(gain * gain + SOFTNESS * SOFTNESS)) / 2
