"""When to stop asking a back-end that fails, and when to try it again: a circuit breaker.

Pure. Closed: requests pass, and FAILURES_MAX failures in a row open it. Open: nothing passes; after
a wait it is probed, by something that costs no client anything. A probe that succeeds puts it on
probation: requests pass, and a single failure opens it again, for twice as long. (Nygard,
"Release It!", 2nd edition, chapter 5.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

FAILURES_MAX: Final = 5
WAIT_S_MIN: Final = 5.0
WAIT_S_MAX: Final = 300.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` in a row since the last success, `probe_at` in the caller's seconds while open,
    `wait_s` before the next probe."""

    failures: int = 0
    probe_at: float | None = None
    wait_s: float = WAIT_S_MIN

    @property
    def passes(self) -> bool:
        """May a request be sent?"""
        return self.probe_at is None

    def is_due(self, now_s: float) -> bool:
        """Is it time for a probe?"""
        return self.probe_at is not None and now_s >= self.probe_at

    def succeeded(self) -> Breaker:
        """A request was answered; one that was sent before it opened proves nothing now."""
        return Breaker() if self.passes else self

    def failed(self, now_s: float) -> Breaker:
        """A request, or a probe, failed."""
        failures = self.failures + 1
        if self.passes and failures < FAILURES_MAX:
            return replace(self, failures=failures)
        if self.probe_at is not None and not self.is_due(now_s):
            return self  # it was under way when the others failed
        return Breaker(failures, now_s + self.wait_s, min(2 * self.wait_s, WAIT_S_MAX))

    def probed(self) -> Breaker:
        """A probe succeeded: on probation."""
        return Breaker(FAILURES_MAX - 1, None, self.wait_s)

    def hastened(self, now_s: float) -> Breaker:
        """There is news of it: probe now, and do not wait long after that."""
        return self if self.passes else replace(self, probe_at=now_s, wait_s=WAIT_S_MIN)
