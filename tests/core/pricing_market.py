"""A small market to try pricing policies on: expected numbers, no chance, one queue.

Buyers' worth is log-logistic; those who can wait buy as soon as the price is right for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from nostrllm.core.pricing import Adaptive, Policy
from nostrllm.core.pricing_state import ServerState

WORK = 300.0


@dataclass
class Market:
    """One server and those who look at its price, tick by tick."""

    looks_per_s: float = 1.0
    worth: float = 1.2
    spread: float = 0.3
    capacity: float = 1_000.0
    cost: float = 0.2
    rival: float | None = 1.3
    undercut: float = 0.0
    dt_s: float = 15.0
    waiting_per_s: float = 0.05
    worth_waiting: float = 0.8
    waiting: list[float] = field(default_factory=lambda: [0.0] * 60)
    state: ServerState = field(default_factory=lambda: ServerState(0.0, 15.0))
    prices: list[tuple[float, float]] = field(default_factory=list)
    profit: float = 0.0
    part: float = 0.0  # of a request that has not come yet

    def bought(self, price: float) -> float:
        """Part of those who look that buy at a price; half of it against a rival as cheap."""
        own = 1 / (1 + math.exp(math.log(price / self.worth) / self.spread))
        rival = self._rival()
        return own if rival is None else own / (1 + math.exp((price - rival) / 0.25))

    def best_price(self) -> float:
        """The price that earns most from who cannot wait."""
        return max(
            (0.01 * step for step in range(1, 500)),
            key=lambda price: (price - self.cost) * self.bought(price),
        )

    def _rival(self) -> float | None:
        if not self.undercut or not self.prices:
            return self.rival
        ago = int(300 / self.dt_s)
        return (1 - self.undercut) * self.prices[-min(ago, len(self.prices))][0]

    def _buy_waiting(self, price: float) -> float:
        """Work bought by those who wait and are worth it; a tenth of them looks in a tick."""
        total = 0.0
        for step in range(60):
            worth = self.worth_waiting * math.exp((step - 29.5) / 30)
            density = math.exp(-(((step - 29.5) / 30 / 0.4) ** 2) / 2) / 30.1
            self.waiting[step] += density * self.waiting_per_s * self.dt_s
            if price <= worth:
                total += 0.1 * self.waiting[step]
                self.waiting[step] *= 0.9
        return total

    def tick(self, policy: Policy) -> tuple[float, float]:
        """One more tick: the policy sees the last one and sets the prices."""
        price, batch_price = self.prices[-1] if self.prices else (1.0, 1.0)
        exact = self.looks_per_s * self.dt_s * self.bought(price) + self.part
        orders = math.floor(exact)
        self.part = exact - orders
        batch = self._buy_waiting(batch_price)
        room = self.capacity * self.dt_s
        queued = max(0.0, self.state.queue_work + orders * WORK - room)
        room = max(0.0, room - self.state.queue_work - orders * WORK)
        batch_queued = max(0.0, self.state.batch_queue_work + batch * WORK - room)
        self.profit += (price - self.cost) * orders + (batch_price - self.cost) * batch
        self.state = replace(
            self.state,
            t=self.state.t + self.dt_s,
            dt=self.dt_s,
            price=price,
            batch_price=batch_price,
            slots=16,
            queue_work=min(queued, 100 * WORK),
            batch_queue_work=batch_queued,
            req_n=orders,
            req_work=orders * WORK,
            batch_req_n=round(20 * batch),
            batch_req_work=batch * WORK,
            capacity=self.capacity,
            marginal_cost=self.cost,
            comp_price=self._rival(),
        )
        decision = policy.decide(self.state)
        self.prices.append((decision.interactive, decision.batch))
        return self.prices[-1]

    def run(self, policy: Policy, hours: float) -> Market:
        """So many hours more."""
        for _ in range(int(hours * 3_600 / self.dt_s)):
            self.tick(policy)
        return self

    def mean_price(self, hours: float) -> float:
        """Interactive, over the last so many hours."""
        last = self.prices[-int(hours * 3_600 / self.dt_s) :]
        return sum(price for price, _ in last) / len(last)


def learned(market: Market, hours: float) -> Adaptive:
    """A policy after so long in a market."""
    policy = Adaptive()
    market.run(policy, hours)
    return policy
