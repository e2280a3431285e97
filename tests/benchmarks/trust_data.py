"""Ratings, labels and follow graphs from files, and the product's own scores of what they say.

Ratings (`source,target,rating,time`; -10 to 10, never 0) become opinions of value rating/10, all as
if with receipts; a rating above 0 is also a follow, standing as often in the list as its height.
Whoever is scored is scored as a provider: its own ratings lend no trust, so its list is cut.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrllm.core.follow_graph import FollowGraph
from nostrllm.core.opinion import Opinion
from nostrllm.core.trust import Eyes, Standing, standing
from nostrllm.core.walk import ALPHA, Walk, scale_of

SEEDS: Final = 10

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratings:
    """Columns in order of time; users are numbered from 0, `names` are the file's."""

    names: Sequence[str]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    rating: Array
    time: NDArray[np.int64]

    @property
    def users(self) -> int:
        return len(self.names)

    def where(self, keep: NDArray[np.bool_]) -> Ratings:
        """Only these rows; the numbering stays."""
        return Ratings(
            self.names, self.source[keep], self.target[keep], self.rating[keep], self.time[keep]
        )

    def first(self, rows: int) -> Ratings:
        """The oldest rows."""
        return self.where(np.arange(self.time.size) < rows)

    def plus(self, users: int, rows: Iterable[tuple[int, int, float]], time: int) -> Ratings:
        """With so many more users, and ratings given at one time."""
        source, target, rating = np.array(list(rows), np.float64).reshape(-1, 3).T
        return Ratings(
            [*self.names, *(f"new {n}" for n in range(users))],
            np.concatenate([self.source, source.astype(np.int64)]),
            np.concatenate([self.target, target.astype(np.int64)]),
            np.concatenate([self.rating, rating]),
            np.concatenate([self.time, np.full(source.size, time)]),
        )


def _rows(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.DictReader(text.splitlines()))


def read_ratings(path: Path) -> Ratings:
    """`.csv` or `.csv.gz`; of several ratings of a pair the last."""
    last = {(row["source"], row["target"]): row for row in _rows(path)}
    rows = sorted(last.values(), key=lambda row: float(row["time"]))
    names = sorted({name for pair in last for name in pair}, key=lambda name: (len(name), name))
    number = {name: place for place, name in enumerate(names)}
    return Ratings(
        names,
        np.array([number[row["source"]] for row in rows]),
        np.array([number[row["target"]] for row in rows]),
        np.array([float(row["rating"]) for row in rows]),
        np.array([int(float(row["time"])) for row in rows]),
    )


def read_labels(path: Path, ratings: Ratings) -> dict[int, bool]:
    """User: is he benign? Those without a rating in the file are left out."""
    number = {name: place for place, name in enumerate(ratings.names)}
    rows = _rows(path)
    return {number[r["node"]]: int(r["label"]) > 0 for r in rows if r["node"] in number}


def graph_of(ratings: Ratings) -> FollowGraph:
    """Ratings above 0 as follows."""
    good = ratings.rating > 0
    times = np.maximum(1, np.round(ratings.rating[good])).astype(np.int64)
    source = np.repeat(ratings.source[good], times)
    target = np.repeat(ratings.target[good], times).astype(np.int32)
    return FollowGraph.from_edges(ratings.users, source, target)


def opinions_of(ratings: Ratings, only: Iterable[int] | None = None) -> dict[int, list[Opinion]]:
    """What is held of each user (or of some), ids being rows."""
    wanted = None if only is None else set(only)
    found: dict[int, list[Opinion]] = {user: [] for user in wanted or ()}
    columns = (ratings.source, ratings.target, ratings.rating, ratings.time)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for row, (source, target, rating, time) in enumerate(rows):
        if wanted is None or target in wanted:
            held = Opinion(str(row), str(source), rating / 10, time, "receipt")
            found.setdefault(target, []).append(held)
    return found


def seeds_of(ratings: Ratings, but: Iterable[int] = ()) -> list[int]:
    """The earliest raters: what an operator who was there at the beginning would name."""
    known = dict.fromkeys(ratings.source.tolist())
    return [user for user in known if user not in set(but)][:SEEDS]


class Panel:
    """Viewers and a seed set on one graph: the rows of `seen`, the seeds last.

    What each sees while the target follows nobody is worked out from a walk that starts there:
    take away what went through it, seen(target) / its own return to itself, times that walk.
    """

    def __init__(self, graph: FollowGraph, seeds: Sequence[int], viewers: Sequence[int]) -> None:
        self.graph = graph
        starts: list[Mapping[int, float]] = [{viewer: 1.0} for viewer in viewers]
        starts.append({seed: 1 / len(seeds) for seed in seeds})
        self.seen = np.stack([Walk(graph, start).seen() for start in starts])
        self._weights = _clipped(self.seen, np.arange(graph.nodes))

    def stopping(self, target: int) -> Array:
        """What each would see if the target followed nobody."""
        if not self.graph.count[target]:
            return self.seen
        tour = Walk(self.graph, {target: 1.0}).seen()
        through = self.seen[:, target] / tour[target]
        seen: Array = self.seen - through[:, None] * tour
        seen[:, target] = through * (1 - ALPHA)
        return seen

    def standings(
        self, target: int, held: Sequence[Opinion], now_s: int, cut: bool = True
    ) -> list[Standing]:
        """The target in each viewer's eyes, and last in those of the seeds alone.

        Without `cut`, its own list lends trust on: quicker, and good enough for a crowd.
        """
        keys = [int(opinion.author) for opinion in held]
        if cut:
            weights = _clipped(self.stopping(target), np.array(keys, np.int64))
        else:
            weights = self._weights[:, keys]
        rows = weights.tolist()
        rows.insert(-1, [0.0] * len(held))
        return [_standing(held, row, rows[-1], now_s) for row in (*rows[:-2], rows[-2])]

    def standing(self, viewer: int, held: Sequence[Opinion], now_s: int) -> Standing:
        """A target in the eyes of the viewer of that place, nothing cut."""
        keys = [int(opinion.author) for opinion in held]
        row, seeds = self._weights[viewer, keys].tolist(), self._weights[-1, keys].tolist()
        return _standing(held, row, seeds, now_s)


def _standing(
    held: Sequence[Opinion], viewer: Sequence[float], seeds: Sequence[float], now_s: int
) -> Standing:
    """From the weights of the opinions' authors."""
    authors = [opinion.author for opinion in held]
    by_viewer = dict(zip(authors, viewer, strict=True))
    by_seeds = dict(zip(authors, seeds, strict=True))
    return standing(held, Eyes(by_viewer.__getitem__, by_seeds.__getitem__), now_s)


def _clipped(seen: Array, keys: NDArray[np.int64]) -> Array:
    scales = [scale_of(row) for row in seen]
    rows = [row[keys] / scale for row, scale in zip(seen, scales, strict=True)]
    found: Array = np.clip(np.stack(rows), 0.0, 1.0)
    return found


def auc(good: Array, bad: Array) -> float:
    """Probability that a good one scores above a bad one, ties counting half."""
    above = (good[:, None] > bad).sum() + 0.5 * (good[:, None] == bad).sum()
    return float(above / (good.size * bad.size))
