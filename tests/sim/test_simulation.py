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

SEEDS = 200
SEEDS_NIGHTLY = 5_000
#: In so many seeds at most a mutant must be found.
MUTANT_SEEDS = 40


def _run(seeds: range) -> Counter[str]:
    states: Counter[str] = Counter()
    for seed in seeds:
        report = simulate(seed)
        assert not report.violations, "\n".join(
            [f"replay: python -m tests.sim {seed}", *report.violations]
        )
        states.update(report.states)
        states.update(report.crashes)
        states["lives"] += report.lives
    return states


def test_no_seed_loses_money_or_a_reply() -> None:
    """And the seeds reach every way an order can end, and crashes around every effect."""
    states = _run(range(SEEDS))
    assert states["lives"] > 3 * SEEDS
    for ending in (
        "closed",
        "closed cancelled",
        "closed deadline",
        "closed generation-failed",
        "refused payment-token-invalid",
        "refused payment-token-spent",
    ):
        assert states[ending], f"no order ended as {ending!r}"
    for effect in ("commit", "mint", "publish"):
        for side in ("before", "after"):
            assert states[f"{side} {effect}"], f"no crash {side} a {effect}"


@pytest.mark.nightly
def test_many_seeds() -> None:
    """The same for a night."""
    _run(range(SEEDS, SEEDS + SEEDS_NIGHTLY))


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_found(name: str) -> None:
    """The test of the simulation itself."""
    assert any(simulate(seed, MUTANTS[name]).violations for seed in range(MUTANT_SEEDS))


def test_one_seed_is_one_history() -> None:
    """In another process too, where hashes and addresses are others."""
    code = "from tests.sim.market import simulate; print(simulate(3).digest, simulate(4).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [simulate(3).digest, simulate(4).digest]
