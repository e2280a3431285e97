"""Rows are what was last put there, however often the pool was packed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.follow_graph import FollowGraph, positions
from nostrllm.core.follows import pack

Lists = dict[int, list[int]]
NODES = 12

lists = st.dictionaries(
    st.integers(0, NODES - 1), st.lists(st.integers(0, NODES - 1), max_size=8), max_size=NODES
)


def graph_of(follows: Lists, nodes: int = NODES) -> FollowGraph:
    edges = [(author, followed) for author, row in follows.items() for followed in row]
    source, target = np.array(edges, np.int64).reshape(-1, 2).T
    return FollowGraph.from_edges(nodes, source, target.astype(np.int32))


def rows(graph: FollowGraph) -> Lists:
    return {author: graph.follows(author).tolist() for author in range(graph.nodes)}


def test_positions_of_ranges() -> None:
    assert positions(np.array([5, 0, 9]), np.array([2, 1, 3])).tolist() == [5, 6, 0, 9, 10, 11]
    assert positions(np.zeros(0, np.int64), np.zeros(0, np.int64)).size == 0


@given(lists, st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, 900)), max_size=30))
def test_a_row_is_what_was_put_there_last(follows: Lists, changes: list[tuple[int, int]]) -> None:
    graph = graph_of(follows)
    known = {author: follows.get(author, []) for author in range(NODES)}
    for author, size in changes:
        new = np.arange(size, dtype=np.int32) % NODES
        assert graph.replace(author, new).tolist() == known[author]
        known[author] = new.tolist()
    assert rows(graph) == known
    assert graph.edges == sum(len(row) for row in known.values())
    assert graph.memory < 20 * NODES + 4 * (3 * graph.edges + 4_096)


@given(lists)
def test_blobs_and_edges_make_the_same_graph(follows: Lists) -> None:
    blobs = [(author, pack(author, row)) for author, row in follows.items()]
    once = {author: sorted(set(row) - {author}) for author, row in follows.items()}
    assert rows(FollowGraph.from_blobs(NODES, blobs)) == rows(graph_of(once))


def test_new_keys_follow_nobody() -> None:
    graph = graph_of({0: [1]})
    graph.grow(NODES + 2)
    assert graph.nodes == NODES + 2
    assert graph.follows(NODES + 1).size == 0
    graph.replace(NODES + 1, np.array([0], np.int32))
    assert graph.follows(NODES + 1).tolist() == [0]


def test_only_the_graph_needs_numpy() -> None:
    light = (
        "core.trust core.opinion core.follows cli client.discover service.client service.provider"
    )
    program = (
        "import importlib, sys\n"
        "sys.modules['numpy'] = None\n"
        f"for name in {light!r}.split(): importlib.import_module('nostrllm.' + name)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
