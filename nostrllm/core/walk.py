"""Personalised PageRank of one viewer by forward push, kept correct while follow lists change.

A walk starts at the viewer, goes on with probability α along a random follow, and is lost where
nobody is followed. `seen(u)` = (1-α) · the expected number of its visits to u. Mass is pushed from
the viewer outwards (Andersen, Chung, Lang 2006) in rounds: all keys whose residual is above
ε · (number of their follows) at once. A changed list is a correction of the residuals of its old
and new entries (Zhang, Lofgren, Goel 2016), after which the same push goes on, negative mass too.

With residual r and settled part p: seen = p + (1-α) Σ_{k≥0} α^k (P^T)^k r. What is read here is
p + (1-α) r, so that keys that follow nobody are exact as far as the mass has come.

Only local parts of the graph are touched, and only in an order set by the viewer's reach: keys that
no walk can reach change nothing, not even a last bit.

Memory: two float64 per key and walk (16 MB at a million keys); strangers are served by a walk made
cold and thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrllm.core.follow_graph import Floats, FollowGraph, Ids, positions

ALPHA: Final = 0.85
EPSILON: Final = 2e-7
BEST: Final = 20  # whose weight is 1: the reach of the twentieth best
# A pass bounds its temporary arrays to this many edges (some 50 MB); a hub alone may exceed it.
EDGES_AT_ONCE: Final = 1 << 20

Nodes = NDArray[np.int64]


class Walk:
    """One viewer's (or seed set's) trust in every key, on a graph that others may share.

    `sources`: where walks start, with what probability; they should sum to 1.
    """

    def __init__(
        self,
        graph: FollowGraph,
        sources: Mapping[int, float],
        alpha: float = ALPHA,
        epsilon: float = EPSILON,
        edges_at_once: int = EDGES_AT_ONCE,
    ) -> None:
        self.graph = graph
        self.alpha = alpha
        self.epsilon = epsilon
        self._edges_at_once = edges_at_once
        self.settled: Floats = np.zeros(graph.nodes)
        self.residual: Floats = np.zeros(graph.nodes)
        starts = np.fromiter(sources, np.int64, len(sources))
        self.residual[starts] = np.fromiter(sources.values(), np.float64, len(sources))
        self._push(self._hot(starts))

    @property
    def memory(self) -> int:
        """Bytes of its arrays."""
        return self.settled.nbytes + self.residual.nbytes

    @property
    def error(self) -> float:
        """No key's `seen` is further from the truth than this: the residual that can still move."""
        moving = np.abs(self.residual[self.graph.count > 0]).sum()
        return float(self.alpha * moving)

    def seen(self, keys: NDArray[np.integer] | None = None) -> Floats:
        """The estimate for these keys, or for all."""
        where = slice(None) if keys is None else keys
        return self.settled[where] + (1 - self.alpha) * self.residual[where]

    def grow(self) -> None:
        """Follow the graph after it numbered more keys."""
        more = np.zeros(self.graph.nodes - self.settled.size)
        self.settled = np.concatenate([self.settled, more])
        self.residual = np.concatenate([self.residual, more])

    def changed(self, author: int, old: Ids, new: Ids) -> None:
        """Account for a list that `graph.replace` put in the place of `old`.

        Every walk that was pushed through the author is sent along the new list instead.
        """
        mass = self.alpha / (1 - self.alpha) * self.settled[author]
        if mass:
            if old.size:
                np.subtract.at(self.residual, old, mass / old.size)
            if new.size:
                np.add.at(self.residual, new, mass / new.size)
        touched = np.concatenate([old, new, np.array([author], np.int32)])
        self._push(self._hot(touched.astype(np.int64)))

    def _hot(self, keys: Nodes) -> Nodes:
        """Those of the keys whose residual is to be pushed, each once, ascending."""
        # Most fail already as if they followed one key, which spares looking their counts up.
        keys = keys[np.abs(self.residual[keys]) > self.epsilon]
        follows = self.graph.count[keys]
        above = np.abs(self.residual[keys]) > self.epsilon * follows
        return self._once(keys[above & (follows > 0)])

    def _once(self, keys: Nodes) -> Nodes:
        """Each key once, ascending: of equal ones, the one whose place was written last is kept.

        np.unique hashes or sorts all of them, which took most of a push's time.
        """
        slot = np.empty(self.graph.nodes, np.int32)  # memory is taken only where it is written
        places = np.arange(keys.size, dtype=np.int32)
        slot[keys] = places
        return np.sort(keys[slot[keys] == places])

    def _push(self, hot: Nodes) -> None:
        graph, residual = self.graph, self.residual
        while hot.size:
            counts = graph.count[hot].astype(np.int64)
            within = max(1, int(np.searchsorted(np.cumsum(counts), self._edges_at_once)))
            later, hot, counts = hot[within:], hot[:within], counts[:within]
            mass = residual[hot]
            residual[hot] = 0.0
            self.settled[hot] += (1 - self.alpha) * mass
            targets = graph.pool[positions(graph.start[hot], counts)].astype(np.int64)
            np.add.at(residual, targets, np.repeat(self.alpha * mass / counts, counts))
            hot = self._hot(targets)
            if later.size:
                hot = self._once(np.concatenate([later, hot]))


def scale_of(seen: Floats, best: int = BEST, above: float = 0.0) -> float:
    """What the 20th best is seen; with fewer in reach, the least of them; 0 if there is none.

    `above`: a guess below which the answer does not lie, to leave few to sort.
    """
    reached = seen[seen > above]
    if above and reached.size < best:
        reached = seen[seen > 0]
    rank = min(best, reached.size)
    return float(np.partition(reached, -rank)[-rank]) if rank else 0.0


class Reach:
    """How much a walk's owner lets each key count, 0 to 1: min(seen / seen of the 20th best, 1).

    Nobody counts for more than one, and how many others there are does not matter to those near by.
    """

    def __init__(self, walk: Walk, best: int = BEST) -> None:
        self.walk = walk
        self.best = best
        self.scale = scale_of(walk.seen(), best)

    def refresh(self) -> None:
        """Find the measure again after the walk changed."""
        self.scale = scale_of(self.walk.seen(), self.best, self.scale / 2)

    def weights(self, keys: NDArray[np.integer]) -> Floats:
        """One weight per key."""
        if not self.scale:
            return np.zeros(keys.size)
        found: Floats = np.clip(self.walk.seen(keys) / self.scale, 0.0, 1.0)
        return found


def exact(
    graph: FollowGraph, sources: Mapping[int, float], alpha: float = ALPHA, within: float = 1e-9
) -> Floats:
    """`seen` of all keys by power iteration, until less than `within` of the mass is still moving.

    Only keys that follow somebody pass anything on, so the iteration runs on the edges between
    those; one last product spreads their visits to all the others.
    """
    active = np.flatnonzero(graph.count)
    counts = graph.count[active].astype(np.int64)
    place = np.full(graph.nodes, -1, np.int64)
    place[active] = np.arange(active.size)
    target = graph.pool[positions(graph.start[active], counts)]
    row = np.repeat(np.arange(active.size), counts)
    inside = place[target] >= 0
    inner_row, inner_to = row[inside], place[target[inside]]
    start: Floats = np.zeros(graph.nodes)
    start[list(sources)] = list(sources.values())
    mass: Floats = start[active]
    visits = mass.copy()
    while mass.sum() > within:
        passed = alpha * mass / counts
        mass = np.bincount(inner_to, passed[inner_row], active.size).astype(np.float64)
        visits += mass
    outside = np.bincount(target[~inside], (alpha * visits / counts)[row[~inside]], graph.nodes)
    start += outside
    start[active] = visits
    return (1 - alpha) * start
