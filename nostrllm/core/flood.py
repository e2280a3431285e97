"""When strangers write more than can be read: proof of work is asked of them, and of nobody else.

All keys that are not known share a bucket of messages a minute, for keys cost nothing. When it is
empty, messages need work (NIP-13): at first little, more as long as even those with work are too
many. A calm while later nothing is asked any more. Pure; times are on a clock that never runs back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: The first demand, a tenth of a second of one core; each further one takes four times as long.
BITS_FIRST: Final = 14
BITS_STEP: Final = 2
CALM_S: Final = 600.0
#: A demand holds for so long before a higher one: clients have to hear of it.
STEP_S: Final = 30.0
#: So many strangers a minute are told what is asked; the others hear it from the announcement.
TOLD_PER_MINUTE: Final = 120

Verdict = Literal["pass", "tell", "drop"]


@dataclass(slots=True)
class _Bucket:
    per_minute: float
    left: float
    at_s: float = 0.0

    def take(self, now_s: float) -> bool:
        self.left = min(self.per_minute, self.left + (now_s - self.at_s) * self.per_minute / 60)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Flood:
    """Counts strangers' messages; `bits` are asked of them now, 0 is none."""

    def __init__(self, per_minute: int, bits_max: int) -> None:
        self.bits = 0
        self._bits_max = bits_max
        self._letters = _Bucket(per_minute, per_minute)
        self._told = _Bucket(TOLD_PER_MINUTE, TOLD_PER_MINUTE)
        self._pressed_at = self._raised_at = 0.0

    def count(self, work: int, now_s: float) -> Verdict:
        """Count a stranger's message with so many bits of work."""
        self.calm(now_s)
        if work < self.bits:
            self._pressed_at = now_s
            return "tell" if self._told.take(now_s) else "drop"
        if self._letters.take(now_s):
            return "pass"
        self._pressed_at = now_s
        if not self.bits or now_s - self._raised_at >= STEP_S:
            self.bits = min(self._bits_max, self.bits + BITS_STEP if self.bits else BITS_FIRST)
            self._raised_at = now_s
        return "tell" if self._told.take(now_s) else "drop"

    def calm(self, now_s: float) -> None:
        """Ask nothing any more when nobody has pressed for a while."""
        if self.bits and now_s - self._pressed_at >= CALM_S:
            self.bits = 0
