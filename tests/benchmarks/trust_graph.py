"""Personalised PageRank on a synthetic follow graph: CPU and memory.

    python -m tests.benchmarks.trust_graph [--nodes N] [--edges M]

A tenth of the keys publish lists (log-normal lengths); seven follows in ten go to publishers, the
popular ones more often, so that walks go on; the others to anybody. The floor is one product of
the graph's matrix with a vector: a look at every edge once, by numpy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import process_time
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nostrllm.core.follow_graph import Floats, FollowGraph, Ids
from nostrllm.core.walk import Reach, Walk, exact
from tests.benchmarks.figures import RUNS, Figure, load, show

T = TypeVar("T")

FLOOR: Final = "matrix × vector"
CHANGES: Final = 20
MIB: Final = 1 << 20


def synthetic(nodes: int, edges: int, dice: np.random.Generator) -> tuple[FollowGraph, Ids]:
    """The graph, and who publishes in it."""
    authors = dice.permutation(nodes)[: nodes // 10].astype(np.int32)
    lengths = np.minimum(dice.lognormal(4.8, 1.0, authors.size), 2_000)
    counts = np.maximum(1, lengths * (edges / lengths.sum())).astype(np.int64)
    source = np.repeat(authors, counts)
    target = authors[(authors.size * dice.random(source.size) ** 2.5).astype(np.int64)]
    anybody = dice.random(source.size) < 0.3
    target[anybody] = dice.integers(0, nodes, int(anybody.sum()))
    return FollowGraph.from_edges(nodes, source, target), authors


def cpu_ms(work: Callable[[], T]) -> tuple[float, T]:
    """Processor time of one call, and what it returned."""
    begun = process_time()
    result = work()
    return (process_time() - begun) * 1e3, result


def product(vector: Floats, pool: Ids, starts: NDArray[np.int64]) -> Floats:
    """The floor."""
    sums: Floats = np.add.reduceat(vector[pool], starts)
    return sums


def cold_viewer(graph: FollowGraph, viewer: int) -> Reach:
    """From nothing to weights."""
    return Reach(Walk(graph, {viewer: 1.0}))


def run(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=20_000_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    args = parser.parse_args(argv)
    before, dice = load(), np.random.default_rng(1)
    graph, authors = synthetic(args.nodes, args.edges, dice)
    filled = np.flatnonzero(graph.count)
    starts, pool = np.sort(graph.start[filled]), graph.pool[: graph.edges].copy()
    vector = dice.random(args.nodes)
    viewers = dice.choice(authors, args.runs, replace=False).tolist()
    floors, cold, one, full = [], [], [], []
    overlap, gone = [], []
    for viewer in viewers:
        floors.append(cpu_ms(partial(product, vector, pool, starts))[0])
        took, reach = cpu_ms(partial(cold_viewer, graph, viewer))
        cold.append(took)
        took, truth = cpu_ms(partial(exact, graph, {viewer: 1.0}, within=1e-6))
        full.append(took)
        seen = reach.walk.seen()
        best = [set(np.argpartition(-each, 100)[:100].tolist()) for each in (truth, seen)]
        overlap.append(float(len(best[0] & best[1])))
        gone.append(float(np.abs(truth - seen).sum()))
        changed = np.concatenate([graph.follows(viewer)[:1], dice.choice(authors, CHANGES - 1)])
        one.append(float(np.median([change(graph, reach, int(u), dice) for u in changed])))
    figures = [
        Figure("cold viewer, weights ready", "ms", cold, FLOOR, floors),
        Figure("one list changed, weights ready", "ms", one, FLOOR, floors),
        Figure("full PageRank, 10⁻⁶ still moving", "ms", full, FLOOR, floors),
        Figure("cold viewer's best 100 also in full's", "", overlap),
        Figure("cold viewer, L1 distance from full", "", gone),
        Figure("graph", "MiB", [graph.memory / MIB]),
        Figure("a kept viewer", "MiB", [reach.walk.memory / MIB]),
    ]
    show(f"{graph.nodes:,} keys, {graph.edges:,} follows", figures, before)


def change(graph: FollowGraph, reach: Reach, author: int, dice: np.random.Generator) -> float:
    """CPU ms from a tenth of a list replaced to the viewer's weights ready again."""
    new = graph.follows(author)
    some = max(1, new.size // 10)
    new[:some] = dice.integers(0, graph.nodes, some)

    def repair() -> None:
        reach.walk.changed(author, graph.replace(author, new), new)
        reach.refresh()

    return cpu_ms(repair)[0]


if __name__ == "__main__":
    run()
