"""The machine's own clock."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`ports.Clock` on the system's time, which NTP may move and `monotonic` does not follow."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
