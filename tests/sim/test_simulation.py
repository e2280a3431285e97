"""The real provider and purse in a seeded world: faults, crashes, and every msat counted after.

A seed that fails is replayed by `python -m tests.sim SEED`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.sim.market import simulate
from tests.sim.mutants import MUTANTS

SEEDS = 2_000
SEEDS_NIGHTLY = 100_000
#: So many seeds are one test, that several processes share them.
SHARE = 500
#: In so many seeds at most a mutant must be found; the search ends at the first finding.
MUTANT_SEEDS = 2_000

#: Every way an order ends, every boundary a process ends at, and every fault: each share of the
#: seeds must meet each of them, or the simulation no longer does what it says.
ENDINGS = (
    "closed",
    "closed cancelled",
    "closed deadline",
    "closed generation-failed",
    "refused payment-token-invalid",
    "refused payment-token-spent",
)
BOUNDARIES = tuple(
    f"{side} {effect}"
    for effect in ("commit", "mint", "publish", "cast", "engine")
    for side in ("before", "after")
)
FAULTS = (
    *("loss", "replay", "replay_stored", "delay", "reorder", "relay_down", "partition"),
    *("mint_cut", "mint_stall", "mint_500_after", "mint_garbage", "mint_down", "slow_mint"),
    *("keyset_rotated", "store_fails", "clean_restart"),
    *("engine_slow", "engine_hangs", "engine_fails", "engine_empty", "engine_dies"),
    *("engine_uncounted", "engine_verbose", "engine_long"),
)


def _run(seeds: range) -> None:
    met: Counter[str] = Counter()
    lives = 0
    for seed in seeds:
        report = simulate(seed)
        assert not report.violations, "\n".join(
            [f"replay: python -m tests.sim {seed}", *report.violations]
        )
        for counts in (report.states, report.crashes, report.faults):
            met.update(counts)
        lives += report.lives
    assert lives > 2 * len(seeds)
    assert not [name for name in (*ENDINGS, *BOUNDARIES, *FAULTS) if not met[name]]


def _shares(first: int, count: int, size: int) -> list[range]:
    return [range(start, start + size) for start in range(first, first + count, size)]


@pytest.mark.parametrize("seeds", _shares(0, SEEDS, SHARE), ids=str)
def test_no_seed_loses_money_or_a_reply(seeds: range) -> None:
    """And each share of them meets every ending, every boundary and every fault."""
    _run(seeds)


@pytest.mark.nightly
@pytest.mark.parametrize("seeds", _shares(SEEDS, SEEDS_NIGHTLY, 4 * SHARE), ids=str)
def test_many_seeds(seeds: range) -> None:
    """The same for a night."""
    _run(seeds)


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_found(name: str) -> None:
    """The test of the simulation itself."""
    assert any(simulate(seed, MUTANTS[name]).violations for seed in range(MUTANT_SEEDS))


def test_one_seed_is_one_history() -> None:
    """In another process too, where hashes and addresses are others."""
    seeds = (3, 4, 6, 8)  # with orders by token, account, payment request and locked token
    code = f"from tests.sim.market import simulate\nfor n in {seeds}: print(simulate(n).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [simulate(seed).digest for seed in seeds]
