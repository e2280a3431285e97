"""When work is asked of strangers, how much, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.flood import BITS_FIRST, CALM_S, STEP_S, TOLD_PER_MINUTE, Flood


def pressed(flood: Flood, work: int, now_s: float, count: int) -> list[str]:
    """So many messages at once."""
    return [flood.count(work, now_s) for _ in range(count)]


def test_nothing_is_asked_while_there_is_room() -> None:
    flood = Flood(60, 20)
    assert pressed(flood, 0, 0.0, 60) == ["pass"] * 60
    assert flood.count(0, 1.0) == "pass"
    assert flood.bits == 0


def test_work_is_asked_when_there_is_none_and_lets_in() -> None:
    flood = Flood(60, 20)
    assert pressed(flood, 0, 0.0, 61)[-1] == "tell"
    assert flood.bits == BITS_FIRST
    assert flood.count(BITS_FIRST, 1.0) == "pass"
    assert flood.count(0, 2.0) == "tell"


def test_more_is_asked_as_long_as_those_with_work_are_too_many() -> None:
    flood = Flood(60, 17)
    pressed(flood, 0, 0.0, 61)
    assert set(pressed(flood, 20, 1.0, 90)) == {"pass", "tell"}
    assert flood.bits == BITS_FIRST  # the demand was not heard yet
    for n in range(1, 5):
        pressed(flood, 20, n * STEP_S, 120)
    assert flood.bits == 17


def test_those_who_hear_nothing_cost_nothing() -> None:
    flood = Flood(1, 20)
    said = pressed(flood, 0, 0.0, 1_000)
    assert said.count("tell") == TOLD_PER_MINUTE
    assert said[-1] == "drop"


def test_when_it_is_calm_nothing_is_asked() -> None:
    flood = Flood(1, 20)
    pressed(flood, 0, 0.0, 2)
    flood.calm(CALM_S - 1)
    assert flood.bits
    assert flood.count(0, CALM_S - 1) == "tell"
    flood.calm(CALM_S)
    assert flood.bits
    flood.calm(2 * CALM_S)
    assert flood.bits == 0


@given(st.lists(st.tuples(st.integers(0, 24), st.floats(0, 10))), st.integers(1, 100))
def test_never_more_pass_than_may(seen: list[tuple[int, float]], per_minute: int) -> None:
    flood, now, passed = Flood(per_minute, 20), 0.0, 0
    for work, later in seen:
        now += later
        passed += flood.count(work, now) == "pass"
        assert flood.bits <= 20
    assert passed <= per_minute + now * per_minute / 60 + 1e-6
