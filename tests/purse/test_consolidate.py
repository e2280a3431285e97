"""Many small coins become few, and nothing is lost on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.ports import Keyset, Mint
from nostrllm.purse import Purse
from nostrllm.purse.consolidate import COINS_MAX, INPUTS_MAX
from tests.purse.world import PACE, Crash, CrashingStore, wallet


@dataclass(frozen=True)
class ExpiringMints:
    """The same mints, but one keyset is said to end soon."""

    mints: Any
    keyset_id: str

    def at(self, url: str) -> Mint:
        mint = self.mints.at(url)
        keyset_id = self.keyset_id

        class Expiring:
            def __getattr__(self, name: str) -> Any:
                return getattr(mint, name)

            async def keysets(
                self, *, refresh: bool = False, wait: bool = False
            ) -> Mapping[str, Keyset]:
                found = dict(await mint.keysets(refresh=refresh, wait=wait))
                end = int(time.time()) + 29 * 86_400
                found[keyset_id] = replace(found[keyset_id], final_expiry=end)
                return found

        return Expiring()


async def test_few_coins_are_left_alone(mint_url: str, tmp_path: Path) -> None:
    async with wallet(tmp_path, mint_url) as mine:
        await mine.fund(100)
        assert await mine.purse.consolidate("c", (mint_url, "sat"), 100) is None
        assert await mine.worth() == 100


@pytest.mark.parametrize("crash", [{}, {"before": 2}, {"after": 1}, {"before": 3}, {"after": 3}])
async def test_many_small_coins_become_few(
    crash: dict[str, int], mint_url: str, tmp_path: Path
) -> None:
    async with wallet(tmp_path, mint_url) as mine:
        for _ in range(COINS_MAX // 7 + 1):
            await mine.fund(127)
        rows = await mine.store.read("proof_free", mint=mint_url, unit="sat")
        before, count = await mine.worth(), len(rows)
        assert count > COINS_MAX
        assert await mine.purse.consolidate("dear", (mint_url, "sat"), 1) is None
        purse = mine.again(CrashingStore(mine.store, **crash))
        try:
            await purse.consolidate("c", (mint_url, "sat"), 100)
        except Crash:
            if await mine.again().knows("c"):
                await mine.again().run("c")
            else:
                await mine.again().consolidate("c", (mint_url, "sat"), 100)
        assert await mine.worth() == before - 10  # 100 coins at 100 ppk
        rows = await mine.store.read("proof_free", mint=mint_url, unit="sat")
        assert len(rows) < count - INPUTS_MAX + 16
        assert await mine.again().pending() == []


async def test_coins_that_expire_wait_for_a_keyset_that_lasts(
    mint_url: str, tmp_path: Path
) -> None:
    async with wallet(tmp_path, mint_url) as mine:
        await mine.fund(100)
        [row, *_] = await mine.store.read("proof_free", mint=mint_url, unit="sat")
        mints = ExpiringMints(mine.mints, row["keyset_id"])
        purse = Purse(mine.store, mints, SystemClock(), mine.seed, pace=PACE)
        assert await purse.consolidate("c", (mint_url, "sat"), 0) is None
        assert await mine.worth() == 100
