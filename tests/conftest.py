"""Fixtures every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Every async test runs on the loop the daemon runs on."""
    return ("asyncio", {"use_uvloop": True})
