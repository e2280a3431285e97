"""How much of what could be earned a pricing policy earns, scored by a market simulator.

`python -m tests.benchmarks.pricing --bench bench.py --scenarios scenarios.json`: the simulator and
its scenarios are no part of this project; any program does that takes a file of scenarios,
`--policy module:factory` and `--max-changes-per-hour N`, and calls `policy(state)` with the fields
of `nostrllm.core.pricing_state.PricingState`, to get (interactive, batch).

Three runs: the scenarios as they are, with six public changes an hour, and, for each `--factor`,
with every price of every scenario divided by it, as if the list price were wrong by so much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

#: Prices of a scenario, and of each of its buyer segments.
PRICES: Final = ("mc", "mc_peak", "comp_price")
SEGMENT_PRICES: Final = ("wtp_median", "delay_cost", "loyalty_sigma")
PROFITS: Final = ("_bound", "_best_fixed", "_best_pair")


def divided(scenario: dict[str, Any], factor: float) -> dict[str, Any]:
    """The scenario with a list price that is `factor` times as high: other prices are that less."""
    out = dict(scenario)
    for name in (*PRICES, *PROFITS):
        if name in out and out[name] is not None:
            out[name] = out[name] / factor
    out["segments"] = [
        segment | {name: segment[name] / factor for name in SEGMENT_PRICES if name in segment}
        for segment in scenario.get("segments", [])
    ]
    return out


def score(bench: Path, scenarios: Path, policy: str, *options: str) -> str:
    """What the simulator prints."""
    done = subprocess.run(
        [sys.executable, str(bench), str(scenarios), "--policy", policy, *options],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.stdout


def run(arguments: Sequence[str] | None = None) -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--scenarios", type=Path, required=True)
    parser.add_argument("--policy", default="nostrllm.core.pricing:make_policy")
    parser.add_argument("--factor", type=float, nargs="*", default=[0.5, 2.0])
    options = parser.parse_args(arguments)
    policy: str = options.policy
    print("as they are", score(options.bench, options.scenarios, policy), sep="\n")
    limited = score(options.bench, options.scenarios, policy, "--max-changes-per-hour", "6")
    print("six public changes an hour", limited, sep="\n")
    scenarios = json.loads(options.scenarios.read_text())
    for factor in options.factor:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scenarios.json"
            path.write_text(json.dumps([divided(one, factor) for one in scenarios]))
            print(f"list price × {factor:g}", score(options.bench, path, policy), sep="\n")


if __name__ == "__main__":
    run()
