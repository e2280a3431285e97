"""Prices that move: a policy for each back-end is told every few seconds how the shop stands.

Meter, relays, rates → ServerState → policy → Tariff → price list (Announcer), ticks, log
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import structlog

from nostrllm.core.listings import listings
from nostrllm.core.pricing import (
    BATCH_REASONS,
    MARGIN,
    Adaptive,
    Decision,
    Fixed,
    Policy,
)
from nostrllm.core.pricing_limit import threshold
from nostrllm.core.pricing_state import ServerState
from nostrllm.core.tariff import rival_share
from nostrllm.errors import WorldError
from nostrllm.ports import Filter
from nostrllm.provider.announce import Announcer
from nostrllm.provider.backends import Backends
from nostrllm.provider.meter import Meter, Tally
from nostrllm.provider.pricing_hook import PythonHook, ScriptHook
from nostrllm.provider.shop import Pricing, Shop, World
from nostrllm.wire import kinds
from nostrllm.wire.announcement import LABEL
from nostrllm.wire.tick import LiveModel, tick_drafts

#: What was learned is stored so often, beside every change; a crash loses no more.
SAVE_S: Final = 60.0
#: How long the relays are asked what others want.
LOOK_S: Final = 5.0
#: A tick tells of a price that moved by so much (log) since the last, or of another wait.
TOLD: Final = 0.01

log = structlog.get_logger()


class Decider(Protocol):
    """A policy of ours or of the operator's."""

    async def decide(self, state: ServerState) -> Decision:
        """The prices from now on. Raises WorldError."""


class _Ours:
    """A policy of ours, called as the operator's are."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    async def decide(self, state: ServerState) -> Decision:
        return self.policy.decide(state)


def decider_of(pricing: Pricing) -> Decider:
    """What the operator chose. Raises ConfigError for code of his that cannot be loaded."""
    if pricing.code:
        return PythonHook(pricing.code, pricing.bounds)
    if pricing.command:
        return ScriptHook(pricing.command, pricing.bounds)
    policy = Adaptive(pricing.bounds) if pricing.learned else Fixed(bounds=pricing.bounds)
    return _Ours(policy)


@dataclass(slots=True)
class _Pool:
    """One back-end's prices in the making."""

    decider: Decider
    live: float = 1.0
    batch: float = 1.0
    reasons: tuple[str, ...] = ()
    state: ServerState | None = None
    tally: Tally | None = None
    rival: float | None = None
    told: tuple[float, int] | None = None

    @property
    def learned(self) -> dict[str, object]:
        return self.decider.policy.snapshot() if isinstance(self.decider, _Ours) else {}


@dataclass
class Pricer:
    """Asks the policies, and has published what they say when it may be."""

    world: World
    shop: Shop
    announcer: Announcer
    backends: Backends
    meter: Meter
    on_state: Callable[[str, ServerState], None] = lambda _pool, _state: None
    _pools: dict[str, _Pool] = field(default_factory=dict)
    _saved_at: float = -math.inf

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        for name in self.shop.backends:
            if any(model.backend == name for model in self.shop.models):
                self._pools[name] = _Pool(decider_of(self.shop.pricing))

    async def begin(self) -> None:
        """What the first list asks: as before a restart, or what the policies say with nothing
        known."""
        tariff = self.announcer.tariff
        for name, pool in self._pools.items():
            learned = tariff.learned.get(name)
            if learned and isinstance(pool.decider, _Ours):
                try:
                    pool.decider.policy.restore(learned)
                except ValueError as error:
                    log.warning("pricing_not_restored", pool=name, reason=str(error))
        await self.tick(publish=False)

    async def run(self) -> None:
        """Tick for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_rivals())
            while True:
                await self.world.clock.sleep(self.shop.pricing.every_s)
                await self.tick()

    async def tick(self, *, publish: bool = True) -> None:
        """Look, decide, and publish what may be."""
        tariff = self.announcer.tariff
        repegged = tariff.follow_rate()
        for name, pool in self._pools.items():
            await self._decide(name, pool)
        live = {name: pool.live for name, pool in self._pools.items()}
        changed = tariff.follow(live, {name: pool.reasons for name, pool in self._pools.items()})
        now = self.world.clock.monotonic()
        if changed or repegged or now - self._saved_at >= SAVE_S:
            self._saved_at = now
            await tariff.save({name: pool.learned for name, pool in self._pools.items()})
        if publish and (changed or repegged):
            await self.announcer.publish_unless_usurped()
        if publish and self.shop.pricing.ticks and not self.announcer.usurped:
            await self._tell()

    async def _decide(self, name: str, pool: _Pool) -> None:
        state = self._state(name, pool)
        self.on_state(name, state)
        try:
            decision = await pool.decider.decide(state)
        except WorldError as error:  # the last prices stay; a tick is lost
            log.warning("pricing_failed", pool=name, reason=error.message)
            return
        pool.live, pool.batch = decision.interactive, decision.batch
        # No batch work is sold yet: what moves its price alone moves nothing that is listed.
        pool.reasons = tuple(one for one in decision.reasons if one not in BATCH_REASONS)

    def _state(self, name: str, pool: _Pool) -> ServerState:
        tariff, bounds = self.announcer.tariff, self.shop.pricing.bounds
        counted = self.meter.pools[name]
        counted.slots = max(1, self.backends.named(name).slots.limit)
        prices = {model.offer.id: tariff.base(model) for model in tariff.models(name)}
        counted.prices = {id: price for id, price in prices.items() if price is not None}
        pool.tally, dt_s = self.meter.tally(name)
        pool.state = ServerState(
            t=self.world.clock.now(),
            dt=dt_s,
            price=tariff.multipliers.get(name, 1.0),
            batch_price=pool.batch,
            slots=counted.slots,
            queue_work=pool.tally.queue_work,
            req_n=pool.tally.orders,
            req_work=pool.tally.work,
            capacity=pool.tally.capacity,
            marginal_cost=tariff.share(name),
            comp_price=pool.rival,
            pmin=bounds.lowest,
            pmax=bounds.highest,
            changes_left=tariff.limiter.left(self.world.clock.now()),
        )
        return pool.state

    # others' prices

    async def _watch_rivals(self) -> None:
        """Look up what others ask for the same models; nobody's price moves a fixed one."""
        while self.shop.pricing.moves:
            await self.look_at_rivals()
            await self.world.clock.sleep(self.shop.pricing.rivals_s)

    async def look_at_rivals(self) -> None:
        """Ask the relays once. Where none answers, what was known stays."""
        wanted = [
            Filter(kinds=(kind,), tags={"t": (LABEL,)})
            for kind in (kinds.ANNOUNCEMENT, kinds.PRICE_LIST)
        ]
        events = await self.world.relays.fetch(wanted, timeout_s=LOOK_S)
        if not events:
            return
        market, me = listings(events, self.world.clock.now()), self.world.identity.pubkey
        for name, pool in self._pools.items():
            pool.rival = rival_share(market, self.meter.pools[name].prices, me)

    # ticks

    async def _tell(self) -> None:
        """Tell of each pool whose price or wait is another one than was told last."""
        tariff, models, reasons = self.announcer.tariff, list[LiveModel](), list[str]()
        for name, pool in self._pools.items():
            wait_s = min(86_400, math.ceil(self.backends.named(name).slots.wait_s))
            told = (pool.live, wait_s.bit_length())
            if pool.told is not None and not _differs(told, pool.told):
                continue
            if pool.told is None and not wait_s and pool.live == tariff.multipliers.get(name):
                continue  # the list says it
            pool.told = told
            reasons += [one for one in pool.reasons if one not in reasons]
            for model in tariff.models(name):
                price = tariff.live(model, pool.live)
                if price is not None:
                    models.append(LiveModel(id=model.offer.id, price=price, wait_s=wait_s))
        at = int(self.world.clock.now())
        for draft in tick_drafts(
            models, d=self.shop.d, seq=self.announcer.seq, reasons=reasons, at=at
        ):
            await self.world.relays.cast(await self.world.identity.sign(draft))

    # for the operator

    def explain(self) -> dict[str, Any]:
        """The prices of now, what they come from, and what holds them; JSON."""
        tariff, pricing, now = self.announcer.tariff, self.shop.pricing, self.world.clock.now()
        left = tariff.limiter.left(now)
        return {
            "policy": pricing.name,
            "every_s": pricing.every_s,
            "changes_per_hour": pricing.changes_per_hour,
            "changes_left": left,
            "next_change_at": math.ceil(tariff.limiter.next_s(now)),
            "change_worth": threshold(left, pricing.changes_per_hour) if left else None,
            "changed_at": tariff.changed_at,
            "cent_msat": None if tariff.peg is None else tariff.peg.msat,
            "cent_at": None if tariff.peg is None else tariff.peg.at,
            "pools": {
                name: {
                    "published": tariff.multipliers.get(name, 1.0),
                    "live": pool.live,
                    "reasons": pool.reasons,
                    "published_reasons": tariff.reasons.get(name, ()),
                    "lowest": pricing.bounds.lowest,
                    "highest": _finite(pricing.bounds.highest),
                    "cost_floor": MARGIN * tariff.share(name),
                    "state": _as_json(pool.state),
                    "utilisation": pool.tally.utilisation if pool.tally else 0.0,
                    "refused": pool.tally.refused if pool.tally else 0,
                }
                for name, pool in self._pools.items()
            },
        }


def _differs(one: tuple[float, int], other: tuple[float, int]) -> bool:
    return abs(math.log(one[0] / other[0])) > TOLD or one[1] != other[1]


def _as_json(state: ServerState | None) -> Mapping[str, object] | None:
    if state is None:
        return None
    return {name: _finite(value) for name, value in asdict(state).items()}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
