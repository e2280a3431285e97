"""From which score on the strong model is called: never a fixed number.

Scores of one user's prompts cluster wherever his work lies, so the share of strong calls is held by
the rank of a score among the latest ones; or prices say what a gain is worth.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from typing import Final

WINDOW: Final = 500


class Recent:
    """The latest scores, oldest first; begins with those of prompts seen in training, if given."""

    def __init__(self, scores: Iterable[float] = (), window: int = WINDOW) -> None:
        self._window = window
        self._latest: deque[float] = deque()
        self._sorted: list[float] = []
        for score in scores:
            self.add(score)

    def add(self, score: float) -> None:
        """Remember a score, forget the oldest."""
        self._latest.append(score)
        insort(self._sorted, score)
        if len(self._latest) > self._window:
            del self._sorted[bisect_left(self._sorted, self._latest.popleft())]

    def rank(self, score: float, draw: float) -> float:
        """Share of the latest scores below this one, 0..1; equal ones count by `draw`, 0..1.

        Without the draw a stream of equal scores would be all strong or all weak. 0.5 when nothing
        is known.
        """
        if not self._sorted:
            return 0.5
        below, upto = bisect_left(self._sorted, score), bisect_right(self._sorted, score)
        return (below + draw * (upto - below)) / len(self._sorted)

    def is_strong(self, score: float, share: float, draw: float) -> bool:
        """Does this score belong to the `share` (0..1) of prompts that go to the strong model?"""
        return share > 0.0 and self.rank(score, draw) >= 1.0 - share

    def snapshot(self) -> list[float]:
        """What the constructor takes."""
        return list(self._latest)


def share_for_budget(budget: float, weak: float, strong: float) -> float:
    """The share of strong calls that spends `budget` per request; all three in one unit.

    `weak` and `strong` are the expected costs of a request. All go to strong where it is no dearer.
    """
    if strong <= weak:
        return 1.0
    return max(0.0, min(1.0, (budget - weak) / (strong - weak)))


def is_worth(score: float, weak: float, strong: float, right_answer: float) -> bool:
    """Is the expected gain worth the dearer price, if a right answer is worth `right_answer`?"""
    return score * right_answer > strong - weak
