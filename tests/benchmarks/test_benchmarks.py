"""Every benchmark runs to its end with a handful of orders; what it measures is not looked at."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import (
    first_token,
    orders,
    payments,
    pricing,
    relays,
    trust_graph,
    trust_quality,
    trust_sybil,
    unwrap,
)

needs_mint = pytest.mark.skipif(
    importlib.util.find_spec("cashu") is None, reason="needs cashu, of the devnet extra"
)


@needs_mint
def test_orders(capsys: pytest.CaptureFixture[str]) -> None:
    orders.run(["--orders", "2", "--runs", "1", "--at-once", "2"])
    assert "token: provider CPU per order" in capsys.readouterr().out


@needs_mint
def test_first_token(capsys: pytest.CaptureFixture[str]) -> None:
    first_token.run(["--orders", "1", "--runs", "1"])
    assert "added, token" in capsys.readouterr().out


@needs_mint
def test_payments(capsys: pytest.CaptureFixture[str]) -> None:
    payments.run(["--orders", "2", "--runs", "1"])
    assert "locked token judged" in capsys.readouterr().out


def test_unwrap(capsys: pytest.CaptureFixture[str]) -> None:
    unwrap.run(["--wraps", "5", "--runs", "1"])
    assert "32 kB, nostr-sdk" in capsys.readouterr().out


def test_relays(capsys: pytest.CaptureFixture[str]) -> None:
    relays.run(["--events", "20", "--runs", "1"])
    assert "socket to subscriber" in capsys.readouterr().out


def test_trust_graph(capsys: pytest.CaptureFixture[str]) -> None:
    trust_graph.run(["--nodes", "2000", "--edges", "20000", "--runs", "1"])
    assert "cold viewer" in capsys.readouterr().out


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Forty honest users who like each other and ten frauds whom few of them like."""
    dice, folder = random.Random(1), tmp_path_factory.mktemp("ratings")
    lines = ["source,target,rating,time"]
    for time in range(600):
        source, target = dice.randrange(40), dice.randrange(50)
        good = dice.random() < (0.95 if target < 40 else 0.2)
        lines.append(f"{source},{target},{dice.randrange(1, 10) if good else -9},{time * 86400}")
    (folder / "ratings.csv").write_text("\n".join(lines))
    labels = [f"{user},{1 if user < 40 else -1}" for user in (*range(5), *range(40, 50))]
    (folder / "labels.csv").write_text("\n".join(["node,label", *labels]))
    return folder / "ratings.csv", folder / "labels.csv"


def test_trust_quality(capsys: pytest.CaptureFixture[str], ratings: tuple[Path, Path]) -> None:
    trust_quality.run(["--ratings", str(ratings[0]), "--labels", str(ratings[1]), "--viewers", "3"])
    assert set(json.loads(capsys.readouterr().out)) >= {"fraud_auc", "within_viewer"}


def test_trust_sybil(
    capsys: pytest.CaptureFixture[str], ratings: tuple[Path, Path], tmp_path: Path
) -> None:
    few = ["--viewers", "2", "--targets", "1", "--sybils", "20", "--tricked", "0", "2"]
    trust_sybil.run(["--ratings", str(ratings[0]), *few])
    assert "known" in json.loads(capsys.readouterr().out)
    dice = np.random.default_rng(1)
    source, target = dice.integers(0, 30, 900), dice.integers(0, 60, 900)
    path = tmp_path / "follows.npz"
    np.savez(path, src=np.append(source, 0), dst=np.append(target, 60), n=61)
    trust_sybil.run(["--follows", str(path), *few])
    assert "percentiles" in json.loads(capsys.readouterr().out)


def test_pricing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = tmp_path / "bench.py"
    bench.write_text("import sys\nprint(sys.argv[2:])\n")
    scenarios = tmp_path / "scenarios.json"
    scenarios.write_text('[{"mc": 0.2, "_bound": null, "segments": [{"wtp_median": 1.0}]}]')
    pricing.run(["--bench", str(bench), "--scenarios", str(scenarios), "--factor", "2"])
    assert "list price × 2\n['--policy', 'nostrllm.core.pricing:make_policy']" in (
        capsys.readouterr().out
    )
