"""The contract of a mint, kept by nutshell over HTTP and by the simulation's mint."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from nostrllm.adapters.mint_cashu import CashuMints, MintLimits
from nostrllm.devnet.children import Child
from tests.adapters.mint_contract import Bench, MintContract
from tests.purse.test_faults import rotate
from tests.sim.life import Life
from tests.sim.mint import SimMint
from tests.sim.mintline import MintLine
from tests.sim.weather import Weather

LIMITS = MintLimits(refresh_wait_s=0.0)


class TestNutshell(MintContract):
    """The real thing."""

    @pytest.fixture
    async def bench(self, mint_url: str) -> AsyncIterator[Bench]:
        async with CashuMints(LIMITS) as mints:
            yield Bench(mints.at(mint_url))

    @pytest.fixture
    async def turning(self, mint_process: Child) -> AsyncIterator[Bench]:
        async with CashuMints(LIMITS) as mints:
            yield Bench(mints.at(mint_process.url), lambda: rotate(mint_process))


class TestSimMint(MintContract):
    """The one of tests/sim."""

    @pytest.fixture
    def bench(self) -> Bench:
        mint, rng = SimMint(100), random.Random(1)
        line = MintLine(mint, Life(None, rng), Weather(rng, {}), refresh_wait_s=-1.0)
        return Bench(line, mint.rotate)

    turning = bench
