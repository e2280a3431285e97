"""Wallets on the session's mint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.purse.world import Wallet, wallet


@pytest.fixture
async def alice(tmp_path: Path, mint_url: str) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, mint_url) as alice:
        yield alice


@pytest.fixture
async def bob(tmp_path: Path, mint_url: str) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, mint_url) as bob:
        yield bob
