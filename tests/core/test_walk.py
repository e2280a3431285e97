"""Push, power iteration and repair agree; whom no walk reaches changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrllm.core.follow_graph import Floats, FollowGraph
from nostrllm.core.walk import ALPHA, Reach, Walk, exact, scale_of
from tests.core.test_follow_graph import NODES, Lists, graph_of, lists

SOURCES = {0: 0.75, 3: 0.25}
keys = st.integers(0, NODES - 1)
untimed = settings(deadline=None)  # a busy machine makes any pause long


def mass(graph: FollowGraph, walk: Walk) -> float:
    """Stopped, lost at a dead end, and still moving."""
    lost = walk.settled[graph.count == 0].sum()
    return float(walk.settled.sum() + ALPHA / (1 - ALPHA) * lost + walk.residual.sum())


@untimed
@given(lists)
def test_probabilities_sum_to_one(follows: Lists) -> None:
    graph = graph_of(follows)
    assert mass(graph, Walk(graph, SOURCES, epsilon=1e-3)) == pytest.approx(1, abs=1e-12)
    seen = exact(graph, SOURCES)
    dead = seen[graph.count == 0].sum()
    assert seen.sum() + ALPHA / (1 - ALPHA) * dead == pytest.approx(1, abs=1e-8)


@untimed
@given(lists, st.sampled_from([1e-2, 1e-4, 1e-9]))
def test_push_is_as_near_to_power_iteration_as_it_says(follows: Lists, epsilon: float) -> None:
    graph = graph_of(follows)
    walk = Walk(graph, SOURCES, epsilon=epsilon)
    assert np.abs(walk.seen() - exact(graph, SOURCES, within=1e-12)).sum() <= walk.error + 1e-11
    assert walk.error <= epsilon * graph.edges
    assert walk.memory == 2 * 8 * NODES


@untimed
@given(lists, st.lists(st.tuples(keys, st.lists(keys, max_size=8)), max_size=6))
def test_a_repaired_walk_is_a_new_one(follows: Lists, changes: list[tuple[int, list[int]]]) -> None:
    graph = graph_of(follows)
    walk = Walk(graph, SOURCES, epsilon=1e-9)
    for author, row in changes:
        new = np.array(row, np.int32)
        walk.changed(author, graph.replace(author, new), new)
    fresh = Walk(graph, SOURCES, epsilon=1e-9)
    assert np.abs(walk.seen() - fresh.seen()).max() <= walk.error + fresh.error + 1e-12


@untimed
@given(lists, st.permutations(range(NODES)))
def test_numbers_of_keys_do_not_matter(follows: Lists, other: list[int]) -> None:
    renamed = {other[author]: [other[key] for key in row] for author, row in follows.items()}
    one = Walk(graph_of(follows), {0: 1.0}, epsilon=1e-12)
    two = Walk(graph_of(renamed), {other[0]: 1.0}, epsilon=1e-12)
    assert two.seen(np.array(other)) == pytest.approx(one.seen(), abs=1e-9)


@untimed
@given(lists, st.integers(1, 40), st.data())
def test_sybils_without_an_honest_edge_change_no_bit(
    follows: Lists, sybils: int, data: st.DataObject
) -> None:
    honest = graph_of(follows)
    every = st.integers(0, NODES + sybils - 1)
    ring = {NODES + n: data.draw(st.lists(every, max_size=5)) for n in range(sybils)}
    # A dead end, as a provider is, may follow them all: its list is not in the graph.
    attacked = graph_of(follows | ring, NODES + sybils)
    before, after = Walk(honest, SOURCES), Walk(attacked, SOURCES)
    assert after.seen(np.arange(NODES)).tolist() == before.seen().tolist()
    assert not after.seen(np.arange(NODES, NODES + sybils)).any()
    assert Reach(after).scale == Reach(before).scale


def test_a_key_numbered_later_is_reached_once_it_is_followed() -> None:
    graph = graph_of({0: [1]})
    walk = Walk(graph, {0: 1.0})
    graph.grow(NODES + 1)
    walk.grow()
    new = np.array([1, NODES], np.int32)
    walk.changed(0, graph.replace(0, new), new)
    assert walk.seen(np.array([1, NODES])) == pytest.approx([0.15 * 0.425] * 2)


@untimed
@given(lists)
def test_passes_may_be_small(follows: Lists) -> None:
    graph = graph_of(follows)
    whole = Walk(graph, SOURCES, epsilon=1e-6)
    parts = Walk(graph, SOURCES, epsilon=1e-6, edges_at_once=3)
    assert np.abs(whole.seen() - parts.seen()).max() <= whole.error + parts.error + 1e-12


def test_an_emptied_list_sends_nobody_on() -> None:
    graph = graph_of({0: [1], 1: [2]})
    walk = Walk(graph, {0: 1.0})
    nobody = np.zeros(0, np.int32)
    old = graph.replace(0, nobody)
    walk.changed(0, old, nobody)
    assert walk.seen()[:3] == pytest.approx([0.15, 0, 0])
    walk.changed(0, graph.replace(0, old), old)
    assert walk.seen()[:3] == pytest.approx([0.15, 0.1275, 0.108375])


def test_the_twentieth_best_is_the_measure() -> None:
    seen: Floats = np.array([0.0, 1, 2, 3, 4, 5])
    assert scale_of(seen, best=2) == 4
    assert scale_of(seen, best=2, above=3) == 4
    assert scale_of(seen, best=2, above=4.5) == 4
    assert scale_of(seen, best=20) == 1
    assert scale_of(np.zeros(3)) == 0


def test_weights_follow_the_walk() -> None:
    graph = graph_of({0: [1, 2], 1: [3]})
    reach = Reach(Walk(graph, {0: 1.0}), best=3)
    some = np.array([0, 1, 2, 3, 4])
    assert reach.weights(some) == pytest.approx([1, 1, 1, 0.85, 0])
    new = np.array([1, 2, 4], np.int32)
    reach.walk.changed(0, graph.replace(0, new), new)
    reach.refresh()
    assert reach.weights(some) == pytest.approx([1, 1, 1, 0.85, 1])
    nobody = Reach(Walk(graph, {}))
    assert not nobody.weights(some).any()
