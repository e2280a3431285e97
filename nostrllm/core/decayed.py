"""Means that forget: what happened `TAU_S` ago counts 1/e of what happens now.

By elapsed time, not by number: a burst of a thousand events is not soon forgotten, and a quiet hour
is no evidence. (An exponentially weighted moving average of irregular events; Eckner, "Algorithms
for Unevenly Spaced Time Series", 2019.) Pure; unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Final

TAU_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Decayed:
    """The sum of what was seen and how much evidence that is, both as they were at `at_s`."""

    total: float = 0.0
    weight: float = 0.0
    at_s: float = 0.0

    def after(self, value: float, now_s: float) -> Decayed:
        """One more; a clock that ran backwards forgets nothing."""
        kept = self._kept(now_s)
        return Decayed(self.total * kept + value, self.weight * kept + 1.0, max(now_s, self.at_s))

    def mean(self, otherwise: float, now_s: float, *, prior: float = 0.0) -> float:
        """The mean, drawn towards `otherwise` as if that had been seen `prior` times just now."""
        kept = self._kept(now_s)
        weight = self.weight * kept + prior
        return (self.total * kept + prior * otherwise) / weight if weight else otherwise

    def _kept(self, now_s: float) -> float:
        return exp(-max(0.0, now_s - self.at_s) / TAU_S)


UNSEEN: Final = Decayed()
