"""A mean that forgets by elapsed time."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.decayed import TAU_S, UNSEEN

EVENTS = st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1)), max_size=40)


def test_nothing_seen_is_what_is_believed() -> None:
    assert UNSEEN.mean(0.7, 100.0) == 0.7
    assert UNSEEN.mean(0.7, 100.0, prior=5) == pytest.approx(0.7)


def test_what_is_old_counts_less() -> None:
    seen = UNSEEN.after(0.0, 0.0).after(1.0, TAU_S)
    assert seen.mean(0.5, TAU_S) == pytest.approx(1 / (1 + exp(-1)))
    assert seen.mean(0.5, 1e9, prior=1) == pytest.approx(0.5)


def test_a_clock_that_runs_backwards_forgets_nothing() -> None:
    seen = UNSEEN.after(1.0, 1_000.0)
    assert seen.after(1.0, 500.0).weight == 2.0
    assert seen.mean(0.0, 0.0) == 1.0


@given(EVENTS, st.floats(0, 1e5))
def test_a_mean_lies_among_what_was_seen(events: list[tuple[float, float]], now_s: float) -> None:
    seen = UNSEEN
    for at_s, value in events:
        seen = seen.after(value, at_s)
    assert -1e-9 <= seen.mean(0.5, now_s, prior=1) <= 1 + 1e-9
