"""Who else may spend from our account with a provider, and from whose we may.

What another key may take is written down before it is allowed, so that a balance which falls by
that is no breach.
"""

from __future__ import annotations

from nostrllm.client.discover import Offer
from nostrllm.client.exchange import Exchange
from nostrllm.client.world import World
from nostrllm.ports import Write
from nostrllm.wire.order import Allow, AllowanceState, Disallow, Query

#: The key under which the standing order of a plan is noted.
PLAN_KEY = ""


class Allowances:
    """Allowances with providers."""

    def __init__(self, world: World, exchange: Exchange) -> None:
        self._world = world
        self._exchange = exchange

    async def of(self, offer: Offer) -> list[AllowanceState]:
        """Those we gave and those we were given. Raises RemoteError, WorldError."""
        answer = await self._exchange.ask(
            offer, lambda reply: Query(reply=reply, what="allowances")
        )
        return answer.allowances or []

    async def allow(
        self,
        offer: Offer,
        key: str,
        limit_msat: int,
        *,
        period_s: int | None = None,
        expires_at: int | None = None,
    ) -> list[AllowanceState]:
        """Let a key (hex) spend so much from our account, in all or in each period, in place of
        what it was allowed before. Returns those we gave. Raises RemoteError, WorldError."""
        at = self._world.square.now_s()
        grant = Grants(self._world, offer.provider)
        await grant.put(key, limit_msat, period_s or 0, at)
        answer = await self._exchange.ask(
            offer,
            lambda reply: Allow(
                reply=reply,
                key=key,
                limit_msat=limit_msat,
                period_s=period_s,
                expires_at=expires_at,
            ),
        )
        await grant.end(key, before=at)
        return answer.allowances or []

    async def disallow(self, offer: Offer, key: str) -> list[AllowanceState]:
        """Take it back; orders that run on it go on. Returns those that are left."""
        answer = await self._exchange.ask(offer, lambda reply: Disallow(reply=reply, key=key))
        await Grants(self._world, offer.provider).end(key)
        return answer.allowances or []


class Grants:
    """Our own note of who may take from an account with one provider."""

    def __init__(self, world: World, provider: str) -> None:
        self._world = world
        self._provider = provider

    async def put(self, key: str, limit_msat: int, period_s: int, at: int) -> None:
        """From now on `key` may take so much, once or in each period."""
        values = {"key": key, "limit_msat": limit_msat, "period_s": period_s, "at": at}
        await self._world.store.commit(Write("grant_put", {"provider": self._provider, **values}))

    async def end(self, key: str, *, before: int | None = None) -> None:
        """Not any more, as far as it was given before that second."""
        now = self._world.square.now_s()
        values = {"key": key, "at": now, "before": now + 1 if before is None else before}
        await self._world.store.commit(Write("grant_end", {"provider": self._provider, **values}))
