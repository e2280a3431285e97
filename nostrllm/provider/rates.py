"""What the coins that are taken are worth now, and when to say so in a new price list.

The last good rate is kept while its source is silent, and counts for less the older it grows; one
that is too old counts for nothing, and its unit is left out of the next list. What a list has
promised holds all the same until the list ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from nostrllm.core.rates import Rate, jumped, moved
from nostrllm.errors import WorldError
from nostrllm.provider.shop import Shop, World
from nostrllm.wire.announcement import Pay

log = structlog.get_logger()


class RateDesk:
    """Knows the rates, and says what coins pay. `may_change`: may the list change once more?"""

    def __init__(self, world: World, shop: Shop, may_change: Callable[[], bool]) -> None:
        self._world = world
        self._shop = shop
        self._may_change = may_change
        self._known: dict[str, Rate] = {}
        self._said: dict[str, Rate | None] = {}

    async def look(self) -> None:
        """Ask for every rate; what is not told stays as it was, and grows old."""
        for unit in self._shop.looked_up:
            try:
                if self._world.rates is None:
                    raise WorldError("there is no source of rates", code="payment-rate-unknown")
                rate = await self._world.rates.latest(unit)
            except WorldError as error:
                log.warning("rate_unknown", unit=unit, why=error.message)
                continue
            last = self._known.get(unit)
            if jumped(last, rate, self._shop.rates.guard):
                log.error("rate_jumped", unit=unit, msat=rate.msat, last=last and last.msat)
                continue
            self._known[unit] = rate

    def counted(self) -> dict[str, Rate | None]:
        """What one coin of each unit with a rate counts for now."""
        now, guard = self._world.now_s(), self._shop.rates.guard
        return {unit: guard.counted(self._known.get(unit), now) for unit in self._shop.rated}

    def asked(self, unit: str) -> Rate | None:
        """What a price in this unit is turned into msat by now."""
        return self._shop.rates.guard.asked(self._known.get(unit), self._world.now_s())

    def pays(self) -> list[Pay] | None:
        """What the next list says; None where it need not say anything."""
        if not self._shop.accepts:
            return None
        self._said, said = self.counted(), []
        for coin in self._shop.coins:
            rate = self._said.get(coin.unit)
            if coin.unit in self._said and rate is None:
                continue
            worth = {} if rate is None else {"msat": rate.msat, "at": rate.at}
            said.append(Pay(mint=coin.mint, unit=coin.unit, percent=coin.percent, **worth))
        return said

    async def run(self, publish: Callable[[], Awaitable[object]]) -> None:
        """Keep the rates; `publish` a list in between when one has moved, but not too often."""
        while self._shop.looked_up:
            await self._world.clock.sleep(self._shop.rates.every_s)
            await self.look()
            by_bp = self._shop.rates.moved_bp
            counted = self.counted()
            far = any(moved(self._said.get(unit), rate, by_bp) for unit, rate in counted.items())
            if far and self._may_change():
                log.info(
                    "rate_moved", **{unit: rate and rate.msat for unit, rate in counted.items()}
                )
                await publish()
        await self._world.clock.sleep(3_600)
