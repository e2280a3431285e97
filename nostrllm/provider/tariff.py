"""What the next price list asks: the operator's prices, times what was published, at a pegged rate.

Published numbers change only when the hour's changes allow it, are stored before anybody sees them,
and come back after a restart: the list is then the same, and the hour's changes are still counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from nostrllm.core.pricing_limit import ChangeLimiter, difference
from nostrllm.core.rates import Rate, moved
from nostrllm.core.tariff import Sum, cost_share
from nostrllm.ports import Write
from nostrllm.provider.shop import Model, Shop, World
from nostrllm.wire.announcement import ModelOffer, Price

#: Dollars, in which prices may be pegged; a coin of them is a cent.
PEG: Final = "usd"
_ROW: Final = "pricing"

log = structlog.get_logger()


class Tariff:
    """Published multipliers of each pool, the pegged rate, and why they are what they are."""

    def __init__(
        self, world: World, shop: Shop, asked: Callable[[str], Rate | None] = lambda _unit: None
    ) -> None:
        """`asked` says what a unit is turned into msat by now; None: not known."""
        self._world = world
        self._shop = shop
        self._asked = asked
        self.multipliers: dict[str, float] = {}
        self.reasons: dict[str, tuple[str, ...]] = {}
        self.changed_at = 0
        self.peg: Rate | None = None
        self.limiter = ChangeLimiter(shop.pricing.changes_per_hour)
        self.learned: dict[str, Mapping[str, object]] = {}

    async def open(self) -> None:
        """Go on from where the store was left. What was learned by another policy is forgotten, but
        not how often the list changed."""
        rows = await self._world.store.read("meta_get", name=_ROW)
        if not rows:
            return
        kept = json.loads(rows[0]["value"])
        self.limiter = ChangeLimiter(self._shop.pricing.changes_per_hour, kept["changes"])
        if kept["peg"] is not None:
            self.peg = Rate(*kept["peg"])
        if kept["policy"] != self._shop.pricing.name:
            return
        self.changed_at = kept["changed_at"]
        for name, pool in kept["pools"].items():
            if name in self._shop.backends:
                self.multipliers[name] = pool["multiplier"]
                self.reasons[name] = tuple(pool["reasons"])
                self.learned[name] = pool["learned"]

    async def save(self, learned: Mapping[str, Mapping[str, object]]) -> None:
        """Store what is published and what was learned: one row, in one commit."""
        self.learned = dict(learned)
        kept = {
            "policy": self._shop.pricing.name,
            "changes": self.limiter.snapshot(),
            "changed_at": self.changed_at,
            "peg": None if self.peg is None else [self.peg.msat, self.peg.at],
            "pools": {
                name: {
                    "multiplier": multiplier,
                    "reasons": self.reasons.get(name, ()),
                    "learned": self.learned.get(name, {}),
                }
                for name, multiplier in self.multipliers.items()
            },
        }
        value = json.dumps(kept, allow_nan=False)
        await self._world.store.commit(Write("meta_set", {"name": _ROW, "value": value}))

    # prices

    def base(self, model: Model) -> Price | None:
        """The list price, in msat; None while its rate is not known."""
        return self._sum(model).price(self.peg)

    def cost(self, model: Model) -> Price | None:
        """What the work costs, in msat; None while its rate is not known."""
        return Price(input=0, output=0) if model.cost is None else model.cost.price(self.peg)

    def share(self, pool: str) -> float:
        """The cost as part of the list price, of the model of the pool where it is most."""
        pairs = [(self.cost(model), self.base(model)) for model in self.models(pool)]
        return max((cost_share(cost, base) for cost, base in pairs if cost and base), default=0.0)

    def models(self, pool: str) -> Iterable[Model]:
        """Those that the back-end of this name serves."""
        return (model for model in self._shop.models if model.backend == pool)

    def live(self, model: Model, multiplier: float) -> Price | None:
        """The price at another multiplier than the published one."""
        return self._sum(model).price(self.peg, multiplier)

    def offers(self) -> list[ModelOffer]:
        """What the next list offers: every model whose price and cost are known."""
        found = []
        for model in self._shop.models:
            price = self.live(model, self.multipliers.get(model.backend, 1.0))
            if price is not None and self.cost(model) is not None:
                found.append(model.offer.model_copy(update={"price": price}))
        return found

    @property
    def said(self) -> list[str] | None:
        """The reasons that a list states; None where the prices are the operator's own."""
        reasons = dict.fromkeys(one for pool in self.reasons.values() for one in pool)
        return None if set(reasons) <= {"list"} else list(reasons)

    @staticmethod
    def _sum(model: Model) -> Sum:
        return model.sum or Sum.of(model.offer.price)

    # changes

    def follow_rate(self, *, counted: bool = False) -> bool:
        """Take the rate of now for pegged prices if it has moved, and the hour allows it, or the
        change is `counted` already. True if the list is to be published again. A rate that is no
        longer known goes at once, with the models that need it."""
        if not self._shop.pegged:
            return False
        now, asked = self._world.now_s(), self._asked(PEG)
        if not moved(self.peg, asked, self._shop.rates.moved_bp):
            return False
        known = self.peg is not None and asked is not None
        if known and not counted and not self.limiter.use(now):
            return False
        log.info("price_pegged", msat=None if asked is None else asked.msat)
        self.peg = asked
        return True

    def follow(self, live: Mapping[str, float], reasons: Mapping[str, tuple[str, ...]]) -> bool:
        """Publish the live multipliers if one is far enough from the published one, and the hour
        allows it; the first ones ever at once, for nobody has seen others. True if changed."""
        now = self._world.now_s()
        first = live.keys() - self.multipliers.keys()
        pairs = [((self.multipliers[name],) * 2, (live[name],) * 2) for name in live.keys() - first]
        far = max(pairs, key=lambda pair: difference(*pair), default=None)
        if not first and (far is None or not self.limiter.change(now, *far)):
            return False
        for name, multiplier in live.items():
            if self.multipliers.get(name) != multiplier:
                was = self.multipliers.get(name)
                log.info(
                    "price_changed",
                    pool=name,
                    multiplier=round(multiplier, 6),
                    was=None if was is None else round(was, 6),
                    reasons=list(reasons[name]),
                )
        if first and self.multipliers:
            self.limiter.use(now)
        self.multipliers.update(live)
        self.reasons.update(reasons)
        self.changed_at = now
        return True
