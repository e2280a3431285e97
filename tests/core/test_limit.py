"""A limit that finds the capacity of a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.limit import Gradient


def loaded(limit: Gradient, capacity: int, rounds: int) -> Gradient:
    """After so many first tokens of a server that queues beyond its capacity."""
    for _ in range(rounds):
        running = limit.limit
        limit = limit.after(0.2 * max(1.0, running / capacity), running)
    return limit


def test_it_grows_while_latency_does_not() -> None:
    assert loaded(Gradient(64, 1), 1_000, 200).limit == 64


def test_it_shrinks_when_the_server_slows_down() -> None:
    calm = loaded(Gradient(64, 8), 1_000, 300)
    slow = loaded(calm, 8, 40)
    assert slow.limit < 32
    assert slow.limit >= 8


def test_it_comes_back_when_the_server_does() -> None:
    calm = loaded(Gradient(64, 8), 1_000, 300)
    assert loaded(loaded(calm, 8, 200), 1_000, 400).limit > 32


def test_nothing_is_learned_while_nobody_asks() -> None:
    limit = Gradient(64, 20)
    assert limit.after(0.2, 3).estimate == 20
    assert limit.after(9.0, 3).estimate == 20


def test_a_refusal_shrinks_it_at_once() -> None:
    assert Gradient(64, 20).turned_down().estimate == 18
    assert Gradient(64, 1).turned_down().limit == 1


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 64), st.booleans())))
def test_it_stays_between_its_bounds(seen: list[tuple[float, int, bool]]) -> None:
    limit = Gradient(32, 4, least=2)
    for latency, running, refused in seen:
        limit = limit.turned_down() if refused else limit.after(latency, running)
        assert 2 <= limit.limit <= 32
