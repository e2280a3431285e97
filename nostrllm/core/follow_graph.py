"""Who follows whom, as a compressed sparse row matrix whose rows can be replaced.

Keys are numbered from 0. All lists lie in one pool of int32; a row is a start and a count. A
changed list goes to the pool's end, and the pool is packed when more than half of it is dead: a
change costs the length of its list, and now and then one copy of the pool. Memory: 4 bytes an edge
(some 9 at most between two packings) and 12 a key.

Needs numpy, of the extra `trust`; nothing that a client without an aggregator runs imports it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]

_SPARE: Final = 1_024


def positions(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start+1, … start+count-1 of each range, one after the other. No count may be 0."""
    ends = np.cumsum(counts)
    steps = np.ones(ends[-1] if ends.size else 0, np.int64)
    if ends.size:
        steps[0] = starts[0]
        steps[ends[:-1]] = starts[1:] - starts[:-1] - counts[:-1] + 1
    return np.cumsum(steps, out=steps)


class FollowGraph:
    """A directed graph on `nodes` keys. An entry that stands twice in a list counts double."""

    def __init__(self, nodes: int = 0) -> None:
        self.start: NDArray[np.int64] = np.zeros(nodes, np.int64)
        self.count: NDArray[np.int32] = np.zeros(nodes, np.int32)
        self.pool: Ids = np.zeros(_SPARE, np.int32)
        self._used = 0
        self._dead = 0

    @classmethod
    def from_edges(cls, nodes: int, source: NDArray[np.integer], target: Ids) -> FollowGraph:
        """From two arrays of the same length; the order within a list is the arrays'."""
        graph = cls(nodes)
        order = np.argsort(source, kind="stable")
        graph.pool = np.ascontiguousarray(target[order], np.int32)
        graph.count = np.bincount(source, minlength=nodes).astype(np.int32)
        graph.start = np.cumsum(graph.count, dtype=np.int64) - graph.count
        graph._used = graph.pool.size
        return graph

    @classmethod
    def from_blobs(cls, nodes: int, blobs: Iterable[tuple[int, bytes]]) -> FollowGraph:
        """From the stored blobs of `follows.pack`, one per author."""
        graph = cls(nodes)
        rows = list(blobs)
        graph.pool = np.frombuffer(b"".join(blob for _, blob in rows), "<i4").astype(np.int32)
        authors = np.array([author for author, _ in rows], np.int64)
        counts = np.array([len(blob) // 4 for _, blob in rows], np.int32)
        graph.count[authors] = counts
        graph.start[authors] = np.cumsum(counts, dtype=np.int64) - counts
        graph._used = graph.pool.size
        return graph

    @property
    def nodes(self) -> int:
        """How many keys are numbered."""
        return self.count.size

    @property
    def edges(self) -> int:
        """How many entries all lists have."""
        return self._used - self._dead

    @property
    def memory(self) -> int:
        """Bytes of all arrays."""
        return self.start.nbytes + self.count.nbytes + self.pool.nbytes

    def follows(self, author: int) -> Ids:
        """The author's list as it stands now."""
        start = self.start[author]
        return self.pool[start : start + self.count[author]].copy()

    def grow(self, nodes: int) -> None:
        """Number more keys; they follow nobody yet. Walks must be grown too."""
        more = nodes - self.nodes
        self.start = np.concatenate([self.start, np.zeros(more, np.int64)])
        self.count = np.concatenate([self.count, np.zeros(more, np.int32)])

    def replace(self, author: int, follows: Ids) -> Ids:
        """Put another list in the place of the author's; returns what it was.

        An empty one makes the author a dead end. That is what a provider's key should be: trust
        ends there, so what it follows cannot send any back to its own reviewers.
        """
        old = self.follows(author)
        self._dead += old.size
        if self._used + follows.size > self.pool.size:
            self._repack(author, follows.size)
        self.start[author] = self._used
        self.count[author] = follows.size
        self.pool[self._used : self._used + follows.size] = follows
        self._used += follows.size
        return old

    def _repack(self, without: int, room: int) -> None:
        """Make room at the end: dead rows go when they are the half."""
        self.count[without] = 0
        if self._dead * 2 > self._used:
            alive = np.flatnonzero(self.count)
            counts = self.count[alive].astype(np.int64)
            kept = self.pool[positions(self.start[alive], counts)]
            self.start[alive] = np.cumsum(counts) - counts
            self._used, self._dead = kept.size, 0
        else:
            kept = self.pool[: self._used]
        spare = max(_SPARE, room, self._used // 8)
        self.pool = np.concatenate([kept, np.zeros(spare, np.int32)])
