"""Two versions of a model side by side: how far apart are they, and how sure is that?

Means with Welch's interval (1947; degrees of freedom by Satterthwaite), rates of success with that
of Agresti and Caffo (2000), who add a success and a failure to each side, so that it holds for
small numbers too. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

#: The normal quantile of a 95 % interval.
Z: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Tally:
    """Count, mean and sum of squared deviations (Welford 1962)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def after(self, value: float) -> Tally:
        """One more."""
        n = self.n + 1
        mean = self.mean + (value - self.mean) / n
        return Tally(n, mean, self.squares + (value - self.mean) * (value - mean))

    @property
    def error(self) -> float:
        """The variance of the mean; needs two values."""
        return self.squares / (self.n - 1) / self.n


@dataclass(frozen=True, slots=True)
class Difference:
    """The second less the first, and where it lies with 95 % confidence."""

    by: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Is no difference at all out of the question?"""
        return self.low > 0 or self.high < 0


def difference(first: Tally, second: Tally) -> Difference | None:
    """Of two means; None while either has fewer than two values."""
    if min(first.n, second.n) < 2:
        return None
    by, error = second.mean - first.mean, first.error + second.error
    if not error:
        return Difference(by, by, by)
    freedom = error**2 / (first.error**2 / (first.n - 1) + second.error**2 / (second.n - 1))
    reach = _t(freedom) * sqrt(error)
    return Difference(by, by - reach, by + reach)


def rate_difference(first: Tally, second: Tally) -> Difference | None:
    """Of two rates, whose values were 0 or 1; None while either has none."""
    if not first.n or not second.n:
        return None
    rates = [((one.mean * one.n + 1) / (one.n + 2), one.n + 2) for one in (first, second)]
    reach = Z * sqrt(sum(rate * (1 - rate) / n for rate, n in rates))
    by = rates[1][0] - rates[0][0]
    return Difference(second.mean - first.mean, by - reach, by + reach)


def _t(freedom: float) -> float:
    """Student's quantile from the normal one (Abramowitz and Stegun 26.7.5); a little low below
    three degrees of freedom."""
    return (
        Z
        + (Z**3 + Z) / (4 * freedom)
        + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
        + (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * freedom**3)
    )
