"""The model servers behind the shop, and which of them an order is given to.

Orders for a model none of whose routes is well are refused before anything is taken.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from typing import Final

from nostrllm.core.queue import Asked
from nostrllm.core.registry import Registry
from nostrllm.core.route import Route
from nostrllm.errors import RemoteError
from nostrllm.provider.backend import Backend, BackendStatus
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.slots import Seat, Slots
from nostrllm.provider.ticket import Job

EVERY_S: Final = 1.0
#: Tokens of an answer whose length nobody said.
ANSWER_TOKENS: Final = 200


class Backends:
    """Every back-end of the shop, by name, and what is known of the routes to them."""

    def __init__(self, world: World, shop: Shop) -> None:
        self._clock = world.clock
        self._shop = shop
        self._backends = {
            name: Backend(
                name,
                world.engines[name],
                self._slots(name, count),
                world.clock,
                watch_s=shop.watch_s.get(name, 2.0),
            )
            for name, count in shop.backends.items()
        }
        self.registry = Registry({model.offer.id: model.ways for model in shop.models})

    def _slots(self, name: str, count: int) -> Slots:
        adaptive = name in self._shop.adaptive
        return Slots(count, self._shop.queue_max, self._clock, adaptive=adaptive)

    def at(self, route: Route) -> Backend:
        """The back-end at the end of a route."""
        return self._backends[route.backend]

    def named(self, name: str) -> Backend:
        """The back-end of this name."""
        return self._backends[name]

    def sells(self, model_id: str) -> bool:
        """Can the model be had by any route?"""
        ways = self.registry.models[self._shop.model(model_id).offer.id]
        return any(self.at(route).has(route.upstream) for route in ways)

    def check(self, model_id: str, author: str) -> None:
        """Refuse before anything is looked at. Raises RemoteError `model-unknown`,
        `model-unavailable`, `busy`."""
        ways = self._shop.model(model_id).ways
        well = [self.at(route) for route in ways if self.at(route).has(route.upstream)]
        if not well:
            raise _unavailable()
        refusal: RemoteError | None = None
        for backend in well:
            try:
                backend.slots.check(author)
            except RemoteError as error:
                refusal = refusal or error
            else:
                return
        assert refusal is not None
        raise refusal

    def routes(self, job: Job, without: Collection[Route] = ()) -> list[Route]:
        """The routes to try for an order, the first one first."""

        def standing(route: Route) -> tuple[bool, float]:
            backend = self.at(route)
            well = route not in without and backend.has(route.upstream)
            return well, backend.slots.wait_s

        answer = int(job.body.get("max_tokens", 0)) or ANSWER_TOKENS
        return self.registry.order(
            job.offer.id,
            standing,
            tokens=(job.prompt_tokens, min(answer, ANSWER_TOKENS)),
            draw=_draw(job.id),
            now_s=self._clock.now(),
        )

    def seat(self, job: Job, asked: Asked, without: Collection[Route] = ()) -> tuple[Route, Seat]:
        """A place in the line of the best back-end that has one. Raises RemoteError `busy`,
        `model-unavailable`."""
        refusal: RemoteError | None = None
        patience_s = job.ticket.deadline - self._clock.now()
        for route in self.routes(job, without):
            try:
                return route, self.at(route).slots.take(asked, patience_s)
            except RemoteError as error:
                refusal = refusal or error
        raise refusal or _unavailable()

    @property
    def status(self) -> list[BackendStatus]:
        """How each stands."""
        return [backend.status for backend in self._backends.values()]

    async def run(self) -> None:
        """Look after each, for ever; one that is slow to answer keeps no other waiting."""
        async with asyncio.TaskGroup() as group:
            for backend in self._backends.values():
                group.create_task(self._look(backend))

    async def _look(self, backend: Backend) -> None:
        while True:
            await backend.look()
            await self._clock.sleep(EVERY_S)


def _draw(order_id: str) -> float:
    """A number in [0, 1) that is the order's own."""
    digest = hashlib.sha256(order_id.encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)


def _unavailable() -> RemoteError:
    return RemoteError(
        "this model cannot be had at the moment; take another one, or try again soon",
        code="model-unavailable",
    )
