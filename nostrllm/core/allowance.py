"""Allowances: the owner of an account lets another key spend from it, up to a limit.

The limit is for ever, or for each period, which begins with the first use after the one before has
ended. The store takes a use in one statement by the same rule, so that no two orders pass it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """What `child` may spend of `owner`'s; amounts in msat, times in unix seconds.

    `period_s` 0: the limit is for ever. `expires_at` 0: it does not end.
    """

    owner: str
    child: str
    limit_msat: int
    used_msat: int = 0
    period_s: int = 0
    period_at: int = 0
    expires_at: int = 0

    def left_msat(self, now_s: int) -> int:
        """What may be spent now."""
        if self.expires_at and now_s >= self.expires_at:
            return 0
        return max(0, self.limit_msat - self.used_msat_at(now_s))

    def used_msat_at(self, now_s: int) -> int:
        """What was spent in the period that is open now."""
        over = self.period_s and now_s >= self.period_at + self.period_s
        return 0 if over else self.used_msat
