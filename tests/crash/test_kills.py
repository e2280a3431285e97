"""Provider and client are killed with SIGKILL, again and again, under load: no coin is ever lost.

Both are the real processes, between a real relay and a real mint. A run is named by its seed, which
says who is killed when; what they were doing then is up to the machine.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nostrllm.devnet.children import Child, Part
from nostrllm.service.audit import audit_provider
from nostrllm.service.config import read_provider_config
from tests.benchmarks.stage import ROOT, Mock, Stage, staged
from tests.crash.count import Count, count
from tests.crash.shopper import MODES, Mode, Plan, Task
from tests.mintclock import ClockedMint, clocked_mint

KILLS = 20
KILLS_NIGHTLY = 300
ORDERS_MIN = 10
ANSWERS_MIN = 3
#: The mint may still be working for somebody who is dead.
MINT_S = 20.0
#: The client's coins that are in no hands at the end; of plain tokens that paid nobody asks.
NOT_BACK = """
SELECT y FROM proof
WHERE state NOT IN ('free', 'sent', 'spent') OR (state = 'sent' AND secret LIKE '["P2PK"%')
"""
BUSY_S = 4.0
FINISH_S = 90.0
FINISH_S_PER_KILL = 3.0
#: Every locktime is over then, and no grace: an order that was answered has long been settled.
LOCKTIMES_S = 3 * 3_600.0


@dataclass
class Market:
    """The processes, where their rows are, and how to count."""

    stage: Stage
    mint: ClockedMint
    shopper: Child
    plan: Plan
    folder: Path

    def count(self) -> Count:
        """Once the mint has done what dead processes asked it for."""
        until = time.monotonic() + MINT_S
        while not (found := self.count_now()).adds_up and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def count_now(self) -> Count:
        """At this moment."""
        parties = (self.folder / "client/client.db", self.folder / "provider/provider.db")
        return count(self.folder / "mint/database/mint.sqlite3", parties)

    def check(self) -> Count:
        """Both are dead: the coins are all there, and the provider's books prove themselves."""
        found = self.count()
        assert found.adds_up, found
        audit = asyncio.run(audit_provider(read_provider_config(self.config)))
        assert audit.ok, [check for check in audit.checks if not check.ok]
        return found

    def check_now(self) -> None:
        """The shopper is done, and the provider has nothing to do: nothing is on its way."""
        found = self.count()
        assert found.adds_up, found
        assert not found.flying, found

    def wait_for_orders(self, count: int) -> None:
        """Until there are so many more, or it takes too long: somebody may just be starting."""
        wanted, until = self.orders() + count, time.monotonic() + BUSY_S
        while self.orders() < wanted and time.monotonic() < until:
            time.sleep(0.02)

    def wait_for_answers(self) -> None:
        """Until some orders were answered and paid for, as few are when everybody is killed."""
        until = time.monotonic() + FINISH_S
        while self.orders("cost_msat > 0") < ANSWERS_MIN:
            assert time.monotonic() < until
            time.sleep(0.05)

    def wait_until_tried(self) -> None:
        """Until the provider has earned enough to try the mint, and believes its locks."""
        until = time.monotonic() + FINISH_S
        while not self.rows("meta", "name LIKE 'keeps-locks:%' AND value <> '0'"):
            assert time.monotonic() < until
            time.sleep(0.05)

    def orders(self, which: str = "true") -> int:
        """How many the provider has."""
        return self.rows("orders", which)

    def rows(self, table: str, which: str) -> int:
        """How many the provider has in a table."""
        with closing(sqlite3.connect(self.folder / "provider/provider.db", timeout=30)) as db:
            sql = f"SELECT count(*) FROM {table} WHERE {which}"
            return int(db.execute(sql).fetchone()[0])

    @property
    def config(self) -> Path:
        """The provider's."""
        return self.folder / "provider/provider.toml"


def _shopper(folder: Path, stage: Stage, modes: tuple[Mode, ...]) -> tuple[Child, Plan]:
    path = folder / "shopper.json"
    state = folder / "client"
    plan = Plan(str(state), stage.relay.url, stage.mint.url, stage.provider_pubkey, modes)
    plan.write(path)
    words = ("tests.crash.shopper", str(path))
    part = Part(
        "shopper",
        "module",
        folder,
        words,
        ready_file=path.with_suffix(".up"),
        environment={"PYTHONPATH": str(ROOT)},
    )
    return Child(part), plan


@contextmanager
def market(folder: Path, modes: tuple[Mode, ...]) -> Iterator[Market]:
    """All processes; the shopper has never run."""
    with (
        clocked_mint(folder) as mint,
        staged(folder, Mock(chunks=8, pause_ms=10), mint=mint.child) as stage,
    ):
        shopper, plan = _shopper(folder, stage, modes)
        try:
            yield Market(stage, mint, shopper, plan, folder)
        finally:
            shopper.kill()


def _kill_again_and_again(market: Market, kills: int, rng: random.Random) -> None:
    pair = (market.stage.provider, market.shopper)
    market.shopper.start()
    if "locked" in market.plan.modes:
        market.wait_until_tried()
    done = 0
    while done < kills:
        market.wait_for_orders(rng.randint(0, 4))
        time.sleep(rng.uniform(0.0, 0.3))
        victims = rng.choice((pair, pair, pair[:1], pair[1:]))
        for victim in victims:
            assert victim.exit_code() is None, victim.log.read_text()[-2_000:]
            victim.kill()
            done += 1
        if len(victims) == len(pair):
            market.check()
        for victim in victims:
            victim.launch()
        for victim in victims:
            if rng.random() < 0.75:  # else it may be killed while it recovers
                victim.await_ready()


def _finish(market: Market, kills: int) -> None:
    """Nobody is killed any more: the shopper resumes what is open, and ends by himself."""
    finish_s = FINISH_S + kills * FINISH_S_PER_KILL
    market.wait_for_answers()
    market.shopper.kill()
    market.stage.provider.restart()
    _shop(market, "finish", finish_s)
    market.check_now()
    asyncio.run(market.mint.ahead(LOCKTIMES_S))
    _shop(market, "finish-locked", finish_s)
    market.stage.provider.terminate()
    market.stage.provider.reap(timeout_s=10.0)


def _shop(market: Market, task: Task, wait_s: float) -> None:
    """Until he is done."""
    replace(market.plan, task=task).write(market.folder / "shopper.json")
    market.shopper.start()
    until = time.monotonic() + wait_s
    while market.shopper.exit_code() is None and time.monotonic() < until:
        time.sleep(0.1)
    assert market.shopper.exit_code() == 0, (task, market.shopper.log.read_text()[-2_000:])


def _proves_itself(market: Market) -> None:
    found = market.check()
    assert not found.flying
    assert market.orders() >= ORDERS_MIN
    assert not market.orders("state NOT IN ('settled', 'closed', 'refused')")
    assert not market.rows("locked", "state NOT IN ('settled', 'released') OR told = 0")
    assert "locked" not in market.plan.modes or market.rows("locked", "state = 'settled'")
    command = [sys.executable, "-m", "nostrllm", "provider", "audit", "--config"]
    subprocess.run([*command, str(market.config)], check=True, capture_output=True)
    with closing(sqlite3.connect(market.folder / "client/client.db")) as db, db:
        assert not db.execute("SELECT * FROM purchase WHERE breaches <> ''").fetchall()
        assert not db.execute(NOT_BACK).fetchall()
        db.execute(
            "DELETE FROM proof WHERE y IN (SELECT y FROM proof WHERE state = 'free' LIMIT 1)"
        )
    assert not market.count_now().adds_up


def _run(folder: Path, seed: int, kills: int, modes: tuple[Mode, ...]) -> None:
    with market(folder, modes) as running:
        _kill_again_and_again(running, kills, random.Random(seed))
        _finish(running, kills)
        _proves_itself(running)


def test_no_kill_loses_a_coin(tmp_path: Path) -> None:
    _run(tmp_path, 1, KILLS, MODES)


@pytest.mark.nightly
@pytest.mark.parametrize("modes", [MODES, *((mode,) for mode in MODES)], ids=str)
def test_no_kill_of_many_loses_a_coin(tmp_path: Path, modes: tuple[Mode, ...]) -> None:
    _run(tmp_path, 2, KILLS_NIGHTLY, modes)
