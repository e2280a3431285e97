"""How often a price may change in public: relays and readers bear a few changes an hour."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nostrllm.core.pricing_state import Seen

HOUR_S: Final = 3_600.0
#: Log difference from which a change is worth telling, and how it grows as the hour's are used up.
THRESHOLD: Final = 0.05
SCARCE: Final = 0.10
#: A difference in the batch price counts so much: its buyers come back.
BATCH_WEIGHT: Final = 0.4


def difference(a: tuple[float, float], b: tuple[float, float]) -> float:
    """How different two pairs of prices (interactive, batch) are, log."""
    return max(abs(math.log(a[0] / b[0])), BATCH_WEIGHT * abs(math.log(a[1] / b[1])))


def threshold(left: int, of: int) -> float:
    """From which difference on one of the changes that are left is used."""
    return THRESHOLD + SCARCE * (1 - left / of)


@dataclass(slots=True)
class Threshold:
    """Holds the live price close to the published one until a change is worth it."""

    per_hour: int = 1

    def kept(self, seen: Seen, interactive: float, batch: float) -> tuple[float, float] | None:
        """The prices to stay with, or None to change."""
        left = seen.changes_left or 0
        self.per_hour = max(self.per_hour, left)
        published = (seen.price, seen.batch_price)
        if left > 0 and difference((interactive, batch), published) >= threshold(
            left, self.per_hour
        ):
            return None
        return _near(interactive, seen.price), _near(batch, seen.batch_price)


def _near(wanted: float, published: float) -> float:
    """As close to `wanted` as it can be without being a change."""
    least, most = published * math.exp(-0.9 * THRESHOLD), published * math.exp(0.9 * THRESHOLD)
    return min(max(wanted, least), most)


class ChangeLimiter:
    """Which of the live prices is published: no more than so many changes in any hour.

    The more of them are used, the larger a change has to be.
    """

    def __init__(self, per_hour: int = 6, changed_at_s: Iterable[float] = ()) -> None:
        """`changed_at_s`: when the changes before a restart were."""
        if per_hour < 1:
            raise ValueError("a limit of less than one change an hour")
        self._per_hour = per_hour
        self._changed_at_s = deque(sorted(changed_at_s), maxlen=per_hour)

    def left(self, now_s: float) -> int:
        """How many changes are left now."""
        while self._changed_at_s and now_s - self._changed_at_s[0] >= HOUR_S:
            self._changed_at_s.popleft()
        return self._per_hour - len(self._changed_at_s)

    def next_s(self, now_s: float) -> float:
        """From when on a change is left."""
        return now_s if self.left(now_s) else self._changed_at_s[0] + HOUR_S

    def change(
        self, now_s: float, published: tuple[float, float], live: tuple[float, float]
    ) -> bool:
        """Is it time to publish the live prices? If so, that counts as a change."""
        left = self.left(now_s)
        if left == 0 or difference(live, published) < threshold(left, self._per_hour):
            return False
        return self.use(now_s)

    def use(self, now_s: float) -> bool:
        """Change the list for another reason than these prices, if one is left."""
        if self.left(now_s) == 0:
            return False
        self._changed_at_s.append(now_s)
        return True

    def snapshot(self) -> list[float]:
        """When the changes were that still count, for the next start."""
        return list(self._changed_at_s)
