"""What the simulation found once, small."""

from __future__ import annotations

import asyncio

import pytest

from nostrllm.provider.generate import Brake


async def _cancelled_late(brake: Brake) -> None:
    async with brake.applied(asyncio.get_running_loop().time()):
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            brake.cancel()
            raise


async def _failed(brake: Brake) -> None:
    async with brake.applied(asyncio.get_running_loop().time() + 3_600):
        raise ValueError("failed")


async def test_a_cancel_may_come_when_the_time_is_over() -> None:
    """While the order that timed out is being stopped, and while it is being settled."""
    brake = Brake(asyncio.get_running_loop().time)
    with pytest.raises(TimeoutError):
        await _cancelled_late(brake)
    brake.cancel()
    assert brake.ending == "cancelled"


async def test_a_cancel_may_come_after_an_error() -> None:
    """The engine failed, and the order is being paid back."""
    brake = Brake(asyncio.get_running_loop().time)
    with pytest.raises(ValueError, match="failed"):
        await _failed(brake)
    brake.cancel()
