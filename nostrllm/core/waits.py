"""How long an order will wait, from how long orders took.

Mean and deviation follow as in TCP (Jacobson, "Congestion Avoidance and Control", 1988; RFC 6298):
1/8 and 1/4 of each new value. Pure; seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

#: What an order is taken to need before one has ended.
UNKNOWN_S: Final = 5.0

#: A wait that is told is not shorter than this, so that nobody comes back at once.
RETRY_S_MIN: Final = 1
RETRY_S_MAX: Final = 3_600


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """How long an order takes from its turn to its end; None while none has ended."""

    mean_s: float | None = None
    deviation_s: float = 0.0

    def after(self, took_s: float) -> ServiceTime:
        """After one more."""
        if self.mean_s is None:
            return ServiceTime(took_s, took_s / 2)
        error = took_s - self.mean_s
        deviation = self.deviation_s + (abs(error) - self.deviation_s) / 4
        return ServiceTime(self.mean_s + error / 8, deviation)

    def likely_s(self, ages_s: Sequence[float]) -> float:
        """What an order takes, on the high side; while none has ended, no less than those that run
        have taken (`ages_s`)."""
        if self.mean_s is None:
            return max([UNKNOWN_S, *ages_s])
        return self.mean_s + self.deviation_s


def expected_s(ahead: int, slots: int, ages_s: Sequence[float], service_s: float) -> float:
    """The wait behind those that run, since `ages_s`, and `ahead` more, at `slots` slots.

    Each free slot takes the next in line (list scheduling; Graham 1969).
    """
    free_at = [max(0.0, service_s - age) for age in ages_s]
    free_at += [0.0] * (slots - len(free_at))
    heapq.heapify(free_at)
    # More run than there are slots when a limit has shrunk: those have to end first.
    for _ in range(len(free_at) - slots):
        heapq.heappop(free_at)
    rounds, rest = divmod(ahead, slots)
    for _ in range(rest):
        heapq.heapreplace(free_at, free_at[0] + service_s)
    return free_at[0] + rounds * service_s


def retry_s(wait_s: float) -> int:
    """When to come back: whole seconds, bounded."""
    return max(RETRY_S_MIN, min(RETRY_S_MAX, ceil(wait_s)))
