"""Wallets on the session's mint, and on one whose calls fail on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faultymint import FaultyMint
from tests.purse.world import Wallet, wallet


@pytest.fixture
async def alice(tmp_path: Path, mint_url: str) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, mint_url) as alice:
        yield alice


@pytest.fixture
async def bob(tmp_path: Path, mint_url: str) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, mint_url) as bob:
        yield bob


@pytest.fixture
async def faulty(mint_url: str) -> AsyncIterator[FaultyMint]:
    async with FaultyMint(mint_url) as faulty:
        yield faulty


@pytest.fixture
async def ann(tmp_path: Path, faulty: FaultyMint) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, faulty.url) as ann:
        yield ann


@pytest.fixture
async def ben(tmp_path: Path, faulty: FaultyMint) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, faulty.url) as ben:
        yield ben
