"""Do scores tell frauds from honest traders, and foresee a viewer's next verdicts? Prints JSON.

    python -m tests.benchmarks.trust_quality --ratings FILE --labels FILE

Leak-free: labels of such data are made from the ratings of those labelled good, so every rating by
one of these of a labelled user is taken out first.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.benchmarks.trust_data import (
    Array,
    Panel,
    Ratings,
    auc,
    graph_of,
    opinions_of,
    read_labels,
    read_ratings,
    seeds_of,
)

FOLDS: Final = (0.6, 0.7, 0.8, 0.9)


def without_leaks(ratings: Ratings, labels: dict[int, bool]) -> Ratings:
    """Without what the labels were made from."""
    good = [user for user, benign in labels.items() if benign]
    made = np.isin(ratings.source, good) & np.isin(ratings.target, list(labels))
    return ratings.where(~made)


def early(ratings: Ratings, labels: dict[int, bool], count: int) -> Ratings:
    """Of each labelled user only the first ratings he was given."""
    given = dict.fromkeys(labels, 0)
    keep = np.ones(ratings.time.size, bool)
    for row, target in enumerate(ratings.target.tolist()):
        if target in given:
            given[target] += 1
            keep[row] = given[target] <= count
    return ratings.where(keep)


def viewers_of(ratings: Ratings, but: Sequence[int], count: int) -> list[int]:
    """Some of those who gave three ratings above 0 or more."""
    gave = np.bincount(ratings.source[ratings.rating > 0], minlength=ratings.users)
    able = sorted(set(np.flatnonzero(gave >= 3).tolist()) - set(but))
    return random.Random(1).sample(able, min(count, len(able)))


def fraud(ratings: Ratings, labels: dict[int, bool], viewers: int) -> dict[str, float]:
    """AUC for labelled users: the median viewer's, and that of one who follows nobody."""
    panel = Panel(
        graph_of(ratings),
        seeds_of(ratings, but=labels),
        viewers_of(ratings, list(labels), viewers),
    )
    held, now_s = opinions_of(ratings, labels), int(ratings.time[-1])
    users = sorted(labels)
    benign = np.array([labels[user] for user in users])
    seen = [panel.standings(user, held[user], now_s) for user in users]

    def measure(table: Array) -> tuple[list[float], float]:
        each = [auc(column[benign], column[~benign]) for column in table.T]
        return each[:-1], each[-1]

    score, seeds = measure(np.array([[s.score for s in row] for row in seen]))
    low, _ = measure(np.array([[s.low for s in row] for row in seen]))
    return {
        "median": float(np.median(score)),
        "tenth": float(np.quantile(score, 0.1)),
        "seeds": seeds,
        "low_median": float(np.median(low)),
    }


def pairs_of(ratings: Ratings, start: int, end: int) -> list[tuple[float, int]]:
    """For every viewer with verdicts of both signs to come: AUC and number of pairs."""
    past = ratings.first(start)
    known = set(past.source.tolist()) | set(past.target.tolist())
    coming: dict[int, list[tuple[int, bool]]] = {}
    for row in range(start, end):
        viewer, target = int(ratings.source[row]), int(ratings.target[row])
        if viewer in known and target in known:
            coming.setdefault(viewer, []).append((target, bool(ratings.rating[row] > 0)))
    asking = [v for v, rated in coming.items() if len({good for _, good in rated}) == 2]
    if not asking:
        return []
    panel, now_s = Panel(graph_of(past), seeds_of(past), asking), int(past.time[-1])
    held = opinions_of(past, {target for viewer in asking for target, _ in coming[viewer]})
    found = []
    for place, viewer in enumerate(asking):
        scores = np.array(
            [panel.standing(place, held[target], now_s).score for target, _ in coming[viewer]]
        )
        good = np.array([liked for _, liked in coming[viewer]])
        found.append((auc(scores[good], scores[~good]), int(good.sum() * (~good).sum())))
    return found


def within_viewer(ratings: Ratings) -> dict[str, Any]:
    """Trained on the past, signs of the next tenth foretold, compared only within one rater."""
    size = ratings.time.size
    folds = [pairs_of(ratings, int(size * f), int(size * min(f + 0.1, 1))) for f in FOLDS]
    every = [item for fold in folds for item in fold]
    return {
        "pairs": sum(count for _, count in every),
        "auc": sum(value * count for value, count in every) / sum(count for _, count in every),
        "auc_mean_of_viewers": float(np.mean([value for value, _ in every])),
        "folds": [sum(v * c for v, c in fold) / sum(c for _, c in fold) for fold in folds if fold],
    }


def run(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--viewers", type=int, default=40)
    args = parser.parse_args(argv)
    ratings = read_ratings(args.ratings)
    labels = read_labels(args.labels, ratings)
    clean = without_leaks(ratings, labels)
    result = {
        "ratings": ratings.time.size,
        "labelled": {"benign": sum(labels.values()), "fraud": len(labels) - sum(labels.values())},
        "fraud_auc": {
            "all": fraud(clean, labels, args.viewers),
            "first_3": fraud(early(clean, labels, 3), labels, args.viewers),
            "first_1": fraud(early(clean, labels, 1), labels, args.viewers),
        },
        "within_viewer": within_viewer(ratings),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run()
