"""What free keys and tricked friends buy an attacker. Prints JSON.

    python -m tests.benchmarks.trust_sybil --ratings FILE [--labels FILE]
    python -m tests.benchmarks.trust_sybil --follows FILE

Percentiles: the target's place among all real users in a viewer's eyes, ties in the middle, median
over targets and viewers; 100 is best. The users' own scores are those before the attack.

Ratings: N sybils rate the target and ten of each other 10, the target rates them 10 back, and k
honest raters were tricked into rating it 3, all of them fresh, or 90 days old ("patient"). Known
frauds have real bad ratings; those labelled so, or without labels, whoever got at least five
ratings below 0 and at most three in ten above it. New frauds have no other rating.

Follows: the target has one follower; N sybils follow it and ten of each other, it follows them
back, and of k tricked list owners one half follows the target, the other a sybil.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nostrllm.core.follow_graph import FollowGraph
from nostrllm.core.opinion import Opinion
from nostrllm.core.trust import DAY_S
from tests.benchmarks.trust_data import (
    Array,
    Panel,
    Ratings,
    graph_of,
    opinions_of,
    read_labels,
    read_ratings,
    seeds_of,
)

FRIENDS: Final = 10
PATIENT_S: Final = 90 * DAY_S
NEVER: Final = 0  # follows have no time here: all are as old as can be
NOW: Final = 10 * 365 * DAY_S


def percentile(score: float, crowd: Array) -> float:
    """Ties in the middle."""
    return float(100 * ((crowd < score).mean() + 0.5 * (crowd == score).mean()))


def bounds(rows: Sequence[Sequence[float]], crowd: Array) -> dict[str, float]:
    """Scores of targets (rows) for viewers (columns) → median percentile, and the worst tenth."""
    found = [percentile(x, crowd[:, at]) for row in rows for at, x in enumerate(row)]
    return {"median": float(np.median(found)), "ninetieth": float(np.quantile(found, 0.9))}


def known_frauds(ratings: Ratings, labels: dict[int, bool]) -> list[int]:
    """By label, or by what was said of them; only those who were rated at all."""
    given = np.bincount(ratings.target, minlength=ratings.users)
    if labels:
        return [user for user, benign in labels.items() if not benign and given[user] >= 3]
    bad = np.bincount(ratings.target[ratings.rating < 0], minlength=ratings.users)
    return np.flatnonzero((bad >= 5) & (bad >= 0.7 * given)).tolist()


def ring(target: int, first: int, sybils: int, dice: random.Random) -> Iterator[tuple[int, int]]:
    """Who points at whom in a cluster that starts at number `first`."""
    for sybil in range(first, first + sybils):
        yield sybil, target
        yield target, sybil
        for _ in range(FRIENDS):
            yield sybil, first + dice.randrange(sybils)


@dataclass(frozen=True, slots=True)
class Scale:
    """How many viewers look at how many targets, with how many free keys and tricked friends."""

    viewers: int
    targets: int
    sybils: int
    tricked: tuple[int, ...]

    @property
    def rings(self) -> tuple[int, int]:
        """Sizes of clusters without an honest edge."""
        return self.sybils // 10, self.sybils * 10


class RatingAttack:
    """Attacks on one file of ratings, seen by a few viewers."""

    def __init__(self, ratings: Ratings, labels: dict[int, bool], scale: Scale) -> None:
        gave = np.bincount(ratings.source[ratings.rating > 0], minlength=ratings.users)
        dice = random.Random(1)
        frauds = known_frauds(ratings, labels)
        self.ratings, self.scale = ratings, scale
        self.frauds = dice.sample(sorted(frauds), min(scale.targets, len(frauds)))
        self.viewers = dice.sample(np.flatnonzero(gave >= 3).tolist(), scale.viewers)
        self.seeds = seeds_of(ratings)
        self.raters = np.flatnonzero(gave).tolist()
        self.now_s = int(ratings.time[-1])
        panel = Panel(graph_of(ratings), self.seeds, self.viewers)
        held = opinions_of(ratings)
        rows = [panel.standings(user, said, self.now_s, cut=False) for user, said in held.items()]
        self.crowd = np.array([[each.score for each in row] for row in rows])

    def scores(
        self, target: int, sybils: int, tricked: int, ago_s: int = 0, both: bool = False
    ) -> list[float]:
        """Of the target after the attack, per viewer, the seeds' last.

        `both`: whoever was tricked rates a sybil 3 as well, which lends trust to all of them.
        """
        dice = random.Random(target)
        first = self.ratings.users + 1
        target = self.ratings.users if target < 0 else target
        friends = [user for user in dice.sample(self.raters, tricked + 1) if user != target]
        rows = [(user, target, 3.0) for user in friends[:tricked]]
        if both:
            rows += [(user, first + dice.randrange(sybils), 3.0) for user in friends[:tricked]]
        rows += [(a, b, 10.0) for a, b in ring(target, first, sybils, dice)]
        ratings = self.ratings.plus(1 + sybils, rows, self.now_s - ago_s)
        graph = graph_of(ratings.where(ratings.source != target))  # a provider lends no trust
        panel = Panel(graph, self.seeds, self.viewers)
        held = opinions_of(ratings, [target])[target]
        return [each.score for each in panel.standings(target, held, self.now_s)]

    def table(
        self, targets: Sequence[int], sybils: int, ago_s: int = 0, both: bool = False
    ) -> dict[str, Any]:
        """Percentiles by how many were tricked."""
        return {
            f"tricked {tricked}": bounds(
                [self.scores(target, sybils, tricked, ago_s, both) for target in targets],
                self.crowd,
            )
            for tricked in self.scale.tricked
        }

    def result(self) -> dict[str, Any]:
        """All of it."""
        new = [-1 - number for number in range(len(self.frauds))]
        bare = np.array([self.scores(target, 0, 0) for target in self.frauds])
        drift = {
            str(sybils): float(
                np.abs(
                    np.array([self.scores(target, sybils, 0) for target in self.frauds]) - bare
                ).max()
            )
            for sybils in self.scale.rings
        }
        return {
            "frauds": len(self.frauds),
            "before": bounds(bare.tolist(), self.crowd),
            "score_change_without_honest_edge": drift,
            "known": self.table(self.frauds, self.scale.sybils),
            "known_both": self.table(self.frauds, self.scale.sybils, both=True),
            "new": self.table(new, self.scale.sybils),
            "new_patient": self.table(new, self.scale.sybils, PATIENT_S),
            "new_both": self.table(new, self.scale.sybils, both=True),
            "new_without_sybils": self.table(new, 0),
        }


class FollowAttack:
    """Attacks on a graph of follows, each of which is an opinion as a list entry is."""

    def __init__(self, path: Path, scale: Scale) -> None:
        self.scale = scale
        with np.load(path) as file:
            self.nodes = int(file["n"])
            self.source, self.target = file["src"].astype(np.int64), file["dst"].astype(np.int64)
        dice = random.Random(1)
        lists = np.bincount(self.source, minlength=self.nodes)
        followers = np.bincount(self.target, minlength=self.nodes)
        self.owners = np.flatnonzero(lists).tolist()
        self.targets = dice.sample(
            np.flatnonzero((followers == 1) & (lists == 0)).tolist(), scale.targets
        )
        self.viewers = dice.sample(np.flatnonzero(lists >= 20).tolist(), scale.viewers)
        self.seeds = dice.sample(self.owners, min(10, len(self.owners)))
        panel = Panel(self._graph(self.source, self.target, self.nodes), self.seeds, self.viewers)
        held = self._held(self.source, self.target)
        rows = [panel.standings(user, said, NOW, cut=False) for user, said in held.items()]
        self.crowd = np.array([[each.score for each in row] for row in rows])
        self.reach = panel.seen.T

    @staticmethod
    def _graph(source: NDArray[np.int64], target: NDArray[np.int64], nodes: int) -> FollowGraph:
        return FollowGraph.from_edges(nodes, source, target.astype(np.int32))

    @staticmethod
    def _held(source: NDArray[np.int64], target: NDArray[np.int64]) -> dict[int, list[Opinion]]:
        found: dict[int, list[Opinion]] = {}
        pairs = zip(source.tolist(), target.tolist(), strict=True)
        for row, (author, followed) in enumerate(pairs):
            held = Opinion(str(row), str(author), 1.0, NEVER, "list")
            found.setdefault(followed, []).append(held)
        return found

    def scores(self, target: int, sybils: int, tricked: int) -> tuple[list[float], list[float]]:
        """Score, and reach by walks that never left the target, per viewer."""
        dice = random.Random(target)
        edges = list(ring(target, self.nodes, sybils, dice)) if sybils else []
        for place, owner in enumerate(dice.sample(self.owners, tricked)):
            if place % 2 == 0:
                edges.append((owner, target))
            elif sybils:
                edges.append((owner, self.nodes + dice.randrange(sybils)))
        more = np.array(edges, np.int64).reshape(-1, 2)
        source = np.concatenate([self.source, more[:, 0]])
        followed = np.concatenate([self.target, more[:, 1]])
        lent, to_it = source != target, followed == target  # a provider lends no trust
        graph = self._graph(source[lent], followed[lent], self.nodes + sybils)
        panel = Panel(graph, self.seeds, self.viewers)
        held = self._held(source[to_it], followed[to_it])[target]
        standings = panel.standings(target, held, NOW)
        return [each.score for each in standings], panel.seen[:, target].tolist()

    def result(self) -> dict[str, Any]:
        """All of it."""
        bare = np.array([self.scores(target, 0, 0) for target in self.targets])
        drift, found = {}, {}
        for sybils in self.scale.rings:
            after = np.array([self.scores(target, sybils, 0) for target in self.targets])
            drift[str(sybils)] = float(np.abs(after - bare).max())
        for sybils in (0, self.scale.rings[1]):
            for tricked in self.scale.tricked:
                both = [self.scores(target, sybils, tricked) for target in self.targets]
                found[f"{sybils} sybils, tricked {tricked}"] = {
                    "score": bounds([score for score, _ in both], self.crowd),
                    "reach": bounds([reach for _, reach in both], self.reach),
                }
        return {
            "targets": len(self.targets),
            "change_without_honest_edge": drift,
            "percentiles": found,
        }


def run(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ratings", type=Path)
    source.add_argument("--follows", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--viewers", type=int, default=8)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--sybils", type=int, default=1_000)
    parser.add_argument("--tricked", type=int, nargs="+", default=[0, 1, 5, 20])
    args = parser.parse_args(argv)
    scale = Scale(args.viewers, args.targets, args.sybils, tuple(args.tricked))
    if args.follows:
        result = FollowAttack(args.follows, scale).result()
    else:
        ratings = read_ratings(args.ratings)
        labels = read_labels(args.labels, ratings) if args.labels else {}
        result = RatingAttack(ratings, labels, scale).result()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run()
