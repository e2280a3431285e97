"""How fast one author may write: a token bucket each, for a bounded number of authors."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

AUTHORS_MAX: Final = 4_096

Verdict = Literal["pass", "tell", "drop"]


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float
    told: bool = False


class Pace:
    """Counts letters; who is too fast is told once, then ignored until he slows down."""

    def __init__(self, per_minute: int, authors_max: int = AUTHORS_MAX) -> None:
        self._per_minute = per_minute
        self._authors_max = authors_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def count(self, author: str, now_s: float) -> Verdict:
        """Count a letter that came at `now_s`, on a clock that never runs backwards."""
        bucket = self._buckets.pop(author, None) or _Bucket(self._per_minute, now_s)
        refilled = bucket.left + (now_s - bucket.at_s) * self._per_minute / 60
        bucket.left, bucket.at_s = min(self._per_minute, refilled), now_s
        self._buckets[author] = bucket
        if len(self._buckets) > self._authors_max:
            self._buckets.popitem(last=False)
        if bucket.left >= 1:
            bucket.left -= 1
            bucket.told = False
            return "pass"
        verdict: Verdict = "drop" if bucket.told else "tell"
        bucket.told = True
        return verdict
