"""A fast author is told once; a patient one is never stopped; memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.pace import Pace


def test_too_fast_is_told_once_and_slow_enough_passes_again() -> None:
    pace = Pace(per_minute=2)
    assert [pace.count("a", 0.0) for _ in range(5)] == ["pass", "pass", "tell", "drop", "drop"]
    assert pace.count("b", 0.0) == "pass"
    assert pace.count("a", 29.0) == "drop"
    assert pace.count("a", 31.0) == "pass"
    assert pace.count("a", 31.0) == "tell"


def test_the_longest_silent_author_is_forgotten_first() -> None:
    pace = Pace(per_minute=1, authors_max=1)
    assert pace.count("a", 0.0) == "pass"
    assert pace.count("b", 0.0) == "pass"
    assert pace.count("a", 0.0) == "pass"


@given(st.integers(1, 60), st.lists(st.floats(0, 30), max_size=200))
def test_never_more_than_the_bucket_and_its_refill(per_minute: int, pauses: list[float]) -> None:
    pace, now, passed = Pace(per_minute), 0.0, 0
    for pause in pauses:
        now += pause
        passed += pace.count("a", now) == "pass"
    assert passed <= per_minute + now * per_minute / 60 + 1
