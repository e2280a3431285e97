"""Who is let in while strangers flood: who is known, and who did the work that is asked.

Known is who has paid for an answer, has something to pay with here, or is being served. So a
deposit opens the door as well as work does, and no flood of fresh keys shuts out a client who pays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from nostrllm.core.flood import Flood
from nostrllm.errors import RemoteError
from nostrllm.provider.admit import Letter
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.shop import Shop, World
from nostrllm.wire.pow import BITS_MAX

EVERY_S: Final = 1.0

log = structlog.get_logger()


class Door:
    """Counts strangers, and publishes what is asked of them whenever it changes."""

    def __init__(
        self,
        world: World,
        shop: Shop,
        conduct: Conduct,
        has_means: Callable[[str], Awaitable[bool]],
        is_served: Callable[[str], bool],
    ) -> None:
        self._clock = world.clock
        self._conduct = conduct
        self._has_means = has_means
        self._is_served = is_served
        self._flood = Flood(shop.strangers_per_minute_max, BITS_MAX)
        self._published = 0

    @property
    def bits(self) -> int:
        """The work that a stranger's message needs now."""
        return self._flood.bits

    async def lets_in(self, letter: Letter) -> bool:
        """Is it read? Raises RemoteError `work-required` for one that should be told why not."""
        if await self.knows(letter.author):
            return True
        verdict = self._flood.count(letter.work, self._clock.monotonic())
        if verdict == "tell":
            bits = self._flood.bits
            raise RemoteError(
                f"too many strangers write at the moment; write with {bits} bits of work (NIP-13), "
                "or from a key that has a balance here",
                code="work-required",
            )
        return verdict == "pass"

    async def knows(self, author: str) -> bool:
        """Has he paid here, or can he, or is he being served?"""
        return (
            self._is_served(author)
            or await self._conduct.has_paid(author)
            or await self._has_means(author)
        )

    async def run(self, publish: Callable[[], Awaitable[object]]) -> None:
        """Say what is asked when it has changed, for ever."""
        while True:
            self._flood.calm(self._clock.monotonic())
            if self.bits != self._published:
                self._published = self.bits
                log.warning("strangers_flood", bits=self.bits)
                await publish()
            await self._clock.sleep(EVERY_S)
