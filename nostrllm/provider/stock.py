"""Which models can be had now: told in a fresh price list, and remembered over a restart.

A model that went is refused at once; the list follows within a minute. What went and came back in
between is not told, and no price is changed by it: a list that names a model still binds.
"""

from __future__ import annotations

import json
from typing import Final

import structlog

from nostrllm.errors import StoreError
from nostrllm.ports import Write
from nostrllm.provider.announce import Announcer
from nostrllm.provider.backends import Backends
from nostrllm.provider.shop import World

EVERY_S: Final = 1.0
#: Lists are not signed more often than this for what comes and goes.
APART_S: Final = 20.0
#: A change has to last so long to be told.
LASTING_S: Final = 3.0
KEPT_EVERY_S: Final = 60.0

log = structlog.get_logger()


class Stock:
    """Watches what the back-ends can write; `announcer` lists that."""

    def __init__(self, world: World, announcer: Announcer, backends: Backends) -> None:
        self._world = world
        self._announcer = announcer
        self._backends = backends
        announcer.sells = backends.sells

    async def open(self) -> None:
        """Read back what was measured before."""
        for row in await self._world.store.read("meta_get", name="registry"):
            self._backends.registry.restore(json.loads(row["value"]))

    async def run(self) -> None:
        """Publish when models have come or gone, and keep what is measured, for ever."""
        clock = self._world.clock
        told_at = changed_at = kept_at = clock.monotonic()
        while True:
            await clock.sleep(EVERY_S)
            now = clock.monotonic()
            if now - kept_at >= KEPT_EVERY_S:
                kept_at = now
                await self.keep()
            came, went = self._changes()
            if not came and not went:
                changed_at = now
            elif now - changed_at >= LASTING_S and now - told_at >= APART_S:
                told_at = now
                log.info("stock_changed", came=sorted(came), went=sorted(went))
                await self._announcer.publish_unless_usurped()

    def has(self, model_id: str) -> bool:
        """Can it be had?"""
        return self._backends.sells(model_id)

    def _changes(self) -> tuple[set[str], set[str]]:
        """What could be had and is not listed, and what is listed and cannot be had."""
        listed = {offer.id for offer in self._announcer.offers}
        sold = {model for model in self._backends.registry.models if self._backends.sells(model)}
        return sold - listed, listed - sold

    async def keep(self) -> None:
        """Write down what was measured; it is worth no trouble if that fails."""
        value = json.dumps(self._backends.registry.snapshot())
        try:
            await self._world.store.commit(Write("meta_set", {"name": "registry", "value": value}))
        except StoreError as error:
            log.warning("registry_not_kept", reason=error.message)
