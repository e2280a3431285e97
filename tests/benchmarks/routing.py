"""How well the router ranks prompts, and what a decision costs.

    python -m tests.benchmarks.routing FILE... --weak MODEL --strong MODEL

FILE is (gzipped) JSON lines {"prompt", "domain", "scores": {model: 0..1}}. For each domain it
prints APGR as RouteLLM defines it (arXiv 2406.18665: the area under quality gained over share of
strong calls; random is 0.5) with a 95 % bootstrap interval, for the router, the prompt's length and
chance, and the CPU time of a decision.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import process_time_ns
from typing import Any

from nostrllm.adapters.route_weights import shipped
from nostrllm.core.prompt import read
from nostrllm.core.router import expected_gain, score


def apgr(scores: Sequence[float], gains: Sequence[float]) -> float:
    """The area under the share of the whole gain reached by sending the highest scores to strong.

    Equal scores are sent together. The gains must not sum to zero.
    """
    total, area, reached, sent = sum(gains), 0.0, 0.0, 0
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    while sent < len(order):
        upto = sent
        step = 0.0
        while upto < len(order) and scores[order[upto]] == scores[order[sent]]:
            step += gains[order[upto]]
            upto += 1
        area += (reached + step / 2) * (upto - sent)
        reached += step
        sent = upto
    return area / (total * len(order))


def interval(scores: Sequence[float], gains: Sequence[float], rounds: int) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile over resampled prompts."""
    dice, found = random.Random(7), []
    for _ in range(rounds):
        drawn = dice.choices(range(len(gains)), k=len(gains))
        if sum(gains[i] for i in drawn) > 0:
            found.append(apgr([scores[i] for i in drawn], [gains[i] for i in drawn]))
    found.sort()
    return found[len(found) // 40], found[-1 - len(found) // 40]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--weak", required=True)
    parser.add_argument("--strong", required=True)
    parser.add_argument("--rounds", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--whole", action="store_true", help="files, not domains")
    asked = parser.parse_args()
    weights = shipped()
    by_domain = defaultdict[str, list[tuple[str, float]]](list)
    for path in asked.files:
        for row in rows(path):
            known = row["scores"]
            if asked.weak in known and asked.strong in known:
                place = path.name if asked.whole else row["domain"]
                gain = known[asked.strong] - known[asked.weak]
                by_domain[place].append((row["prompt"], gain))
    spent_us: list[float] = []

    def routed(prompt: str) -> float:
        began = process_time_ns()
        found = score(expected_gain(read(prompt), weights))
        spent_us.append((process_time_ns() - began) / 1_000)
        return found

    dice = random.Random(1)
    ways: dict[str, Callable[[str], float]] = {
        "router": routed,
        "length": len,
        "chance": lambda _prompt: dice.random(),
    }
    for domain, asked_of in sorted(by_domain.items()):
        gains = [gain for _, gain in asked_of]
        if sum(gains) <= 0:
            print(f"{domain:32} the strong model gains nothing")
            continue
        for name, way in ways.items():
            found = [way(prompt) for prompt, _ in asked_of]
            low, high = interval(found, gains, asked.rounds)
            print(f"{domain:32} {name:8} {apgr(found, gains):.3f} [{low:.3f}, {high:.3f}]")
    spent_us.sort()
    for share in (0.5, 0.99):
        print(f"decision p{share * 100:.0f}: {spent_us[int(share * (len(spent_us) - 1))]:.0f} us")


if __name__ == "__main__":
    main()
