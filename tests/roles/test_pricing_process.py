"""`nostrllm provider pricing`, and a provider killed while its prices move."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.roles.market import MODEL, config_text
from tests.roles.test_provider_pricing import SCRIPT, WAIT_S, asks
from tests.roles.test_provider_process import key_of, provider

#: Nothing answers there: these providers sell to nobody.
ENGINE = "http://127.0.0.1:9/v1"


def called(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nostrllm", "provider", "pricing", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def explained(folder: Path) -> Any:
    done = called("explain", "--json", "--config", str(folder / "provider.toml"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def explained_until(folder: Path, enough: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + WAIT_S
    while not enough(found := explained(folder)):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def check_follow(relay: str, key: str) -> None:
    """`nostrllm price --follow` shows the list, and ends when it was told to."""
    command = [sys.executable, "-m", "nostrllm", "price", MODEL, "--follow", "--lines", "1"]
    command += ["--relay", relay, "--provider", key]
    plain, told = (
        subprocess.run([*command, *more], check=True, capture_output=True, text=True, timeout=60)
        for more in ([], ["--json"])
    )
    assert plain.stdout.split("\t")[1:6] == ["Test Stall", "list", "80 sat", "240 sat", "4 sat"]
    seen = json.loads(told.stdout)
    assert (seen["model"], seen["provider"], seen["reasons"]) == (MODEL, key, ["operator"])
    assert seen["price"]["output"] == 240_000_000


def is_published(price: float, found: Any) -> bool:
    return bool(found["pools"]["openai"]["published"] == price)


def test_a_killed_provider_goes_on_with_its_prices_and_its_changes(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "stall"
    file = asks(tmp_path / "price", 2.0)
    text = config_text(folder, [relay_url], mint_url, ENGINE)
    text += SCRIPT.format(file=file, more="record = true")
    with provider(folder, text) as child:
        for price in (3.0, 4.0):
            asks(file, price)
            found = explained_until(folder, partial(is_published, price))
        child.kill()
        before = found
    assert before["changes_left"] == 4
    with provider(folder, text):
        found = explained_until(folder, lambda found: found["at"] > before["at"])
        assert found["pools"]["openai"]["published"] == 4.0
        assert found["changes_left"] == 4
        assert found["changed_at"] == before["changed_at"]
        check_follow(relay_url, key_of(folder))
        said = called("explain", "--config", str(folder / "provider.toml"))
        assert "published    4.000 × list for operator" in said.stdout
        assert "4 of 6 this hour; a difference of 8 percent is worth one" in said.stdout
    recorded = folder / "pricing.jsonl"
    assert recorded.stat().st_mode & 0o777 == 0o600
    states = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert {state["pool"] for state in states} == {"openai"}
    again = called(
        *("simulate", str(recorded), "--config", str(folder / "provider.toml")),
        *("--policy", "learned", "--json"),
    )
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert (result["policy"], result["ticks"]) == ("learned", len(states))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A provider's file that names no part that runs."""
    path = tmp_path / "provider.toml"
    path.write_text(config_text(tmp_path / "s", ["ws://127.0.0.1:9"], "http://127.0.0.1:9", ENGINE))
    return path


def rush(path: Path) -> Path:
    """A quiet hour, and one in which much more is asked for than there is room."""
    with path.open("w") as file:
        for tick in range(480):
            orders = 2 if tick < 240 else 30
            state: dict[str, float] = {
                "t": 1_800_000_000 + 15 * tick,
                "slots": 4,
                "capacity": 80,
                "req_n": orders,
            }
            state |= {"req_work": 250 * orders, "marginal_cost": 0.2}
            state |= {"queue_work": 0 if tick < 240 else 9_000}
            file.write(json.dumps(state) + "\n")
    return path


def test_a_policy_is_tried_on_a_series(tmp_path: Path, shop: Path) -> None:
    file = str(rush(tmp_path / "rush.jsonl"))
    learned = called("simulate", file, "--config", str(shop), "--policy", "learned", "--json")
    assert learned.returncode == 0, learned.stderr
    result = json.loads(learned.stdout)
    assert result["ticks"] == len(result["steps"]) == 480
    assert 1 <= result["most_in_an_hour"] <= 6
    quiet, busy = result["steps"][200], result["steps"][-1]
    assert busy["published"] > quiet["published"]
    assert "congestion" in busy["reasons"]
    fixed = called("simulate", file, "--config", str(shop))
    assert fixed.returncode == 0
    assert fixed.stdout.splitlines() == [
        "2027-01-15 08:00:00\t1.000\t1.000\tlist",
        "480 ticks, 0 changes, at most 0 in an hour; 1.000 to 1.000, mean 1.000",
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "no time"),
        ('{"t": "soon"}', "'t' is no number"),
        ('{"t": 1, "speed": 3}', "'speed' is no number"),
        ("", "no states"),
    ],
)
def test_what_is_no_series(tmp_path: Path, shop: Path, line: str, why: str) -> None:
    file = tmp_path / "states.jsonl"
    file.write_text(f"{line}\n")
    done = called("simulate", str(file), "--config", str(shop))
    assert done.returncode != 0
    assert why in done.stderr


def test_nothing_to_explain(shop: Path) -> None:
    done = called("explain", "--config", str(shop))
    assert done.returncode != 0
    assert "no provider has run" in done.stderr
