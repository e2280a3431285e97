"""What the orders that come say of those that do not: elasticity, load, droughts and rivals.

Buyers who look at a price and go are not seen. What can be seen is how many come at a price, and
how that changes when the price does and nothing else: by small experiments of our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from nostrllm.core.pricing_state import Seen

#: The price that earns most while there is room, as part of the best competitor's: a guess to
#: begin with. Monopoly price of lognormal worth (σ 0.5) with a normal preference for one of two.
OF_RIVAL: Final = 0.70
#: How far that price follows a competitor's, log on log.
FOLLOWING: Final = 0.55
#: How much dearer it is when no competitor is there.
ALONE: Final = 0.33
#: Without any competitor at the beginning: between the list price and this many times the cost.
OF_COST: Final = 4.5
#: Elasticity rises with the price: d log(elasticity) / d log(price) near the best price.
STEEPNESS: Final = 2.5
#: How unsure the first guess of the elasticity is, relative; twice that without a competitor.
UNSURE: Final = 0.35
#: Variance that an elasticity gains per second for being old, relative.
FORGETTING: Final = 4e-6

#: One experiment is four blocks: up, down, down, up. What drifts evenly cancels.
SIGNS: Final = (1, -1, -1, 1)
BLOCK_S: Final = 600.0
#: Where few public changes are allowed.
SLOW_BLOCK_S: Final = 900.0
#: After a change old prices are still being paid for this long.
SETTLE_S: Final = 135.0
#: Log size of an experiment, and how it grows with what is not known.
STEP_MIN: Final = 0.02
STEP_SLOW: Final = 0.03
STEP_MAX: Final = 0.08
STEP_PER_UNSURE: Final = 0.2
#: Requests are a little more bursty than Poisson.
BURSTY: Final = 1.5


@dataclass(slots=True)
class Elasticity:
    """d log(requests) / d log(price), learned from blocks of slightly higher and lower price.

    A scalar Kalman filter: each experiment of four blocks gives one measurement, whose variance
    is that of Poisson counts plus what the two pairs of like blocks differed by.
    """

    begun: bool = False
    value: float = 1.5
    variance: float = 0.25
    prior: float = 1.5
    learned: int = 0
    experiment_no: int = -1
    steady_from_s: float = 0.0
    orders: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: list[float] = field(default_factory=lambda: [0.0] * 4)
    log_prices: list[float] = field(default_factory=lambda: [0.0] * 4)

    def begin(self, reference: float, cost: float, *, sure: bool) -> None:
        """The first guess: `reference` is the best price. Does nothing later on."""
        if not self.begun:
            self.begun = True
            self.begin_anew(reference, cost)
            self.variance *= 1 if sure else 4

    def begin_anew(self, reference: float, cost: float) -> None:
        """The guess that makes `reference` the best price."""
        self.prior = self.value = 1 / (1 - min(0.8, cost / reference))
        self.variance = (UNSURE * self.value) ** 2

    def best_price(self, reference: float, cost: float) -> float:
        """Where the margin's part of the price is one over the elasticity (Lerner's rule)."""
        low = max(1.02 * cost, 1e-6)
        high = max(low, 4 * reference)
        for _ in range(40):
            price = math.sqrt(low * high)
            elasticity = self.value * (price / reference) ** STEEPNESS
            if elasticity * (1 - cost / price) > 1:
                high = price
            else:
                low = price
        return low

    def _unsure(self) -> float:
        return math.sqrt(self.variance) / self.value

    def experiment(self, at_s: float, *, slow: bool) -> float:
        """How far to be off the best price now, log."""
        block = int(at_s / (SLOW_BLOCK_S if slow else BLOCK_S))
        step = min(STEP_MAX, max(STEP_SLOW if slow else STEP_MIN, STEP_PER_UNSURE * self._unsure()))
        return step * SIGNS[block % 4]

    def disturbed(self, congested: bool, seen: Seen) -> None:
        """A price that congestion made says nothing here, as long as it is being paid."""
        if congested:
            self.steady_from_s = seen.at_s + SETTLE_S

    def observe(self, seen: Seen, reference: float) -> None:
        """Count the tick that ends now."""
        length = BLOCK_S if seen.changes_left is None else SLOW_BLOCK_S
        began = seen.at_s - seen.dt_s
        block = int(began / length)
        if block // 4 != self.experiment_no:
            self._conclude()
            self.experiment_no = block // 4
        self.variance = min(
            self.variance + FORGETTING * seen.dt_s * self.value**2, (2 * UNSURE * self.prior) ** 2
        )
        if began >= self.steady_from_s and began - block * length >= SETTLE_S:
            self.orders[block % 4] += seen.orders
            self.seconds[block % 4] += seen.dt_s
            self.log_prices[block % 4] += seen.dt_s * math.log(seen.price / reference)

    def _conclude(self) -> None:
        """Take the measurement of a finished experiment, if it was one."""
        orders, seconds, sums = self.orders, self.seconds, self.log_prices
        self.orders, self.seconds, self.log_prices = [0.0] * 4, [0.0] * 4, [0.0] * 4
        if min(seconds) < SETTLE_S or sum(orders) < 8:
            return
        # half an order more in each keeps the log of a rate finite
        rates = [math.log((n + 0.5) / s) for n, s in zip(orders, seconds, strict=True)]
        prices = [total / s for total, s in zip(sums, seconds, strict=True)]
        moved = (prices[0] + prices[3] - prices[1] - prices[2]) / 2
        if moved < STEP_MIN:
            return
        answer = (rates[0] + rates[3] - rates[1] - rates[2]) / 2
        noise = BURSTY * sum(1 / (n + 0.5) for n in orders) / 4
        drift = ((rates[0] - rates[3]) ** 2 + (rates[1] - rates[2]) ** 2) / 8
        # the elasticity there, as it would be at the reference price
        scale = math.exp(-STEEPNESS * sum(prices) / 4) / moved
        self._update(-answer * scale, (noise + drift) * scale**2)

    def _update(self, measured: float, variance: float) -> None:
        total = self.variance + variance
        surprise = measured - self.value
        limit = 2.5 * math.sqrt(total)
        gain = self.variance / total
        value = self.value + gain * min(max(surprise, -limit), limit)
        self.value = min(max(value, self.prior / 4), 4 * self.prior)
        self.variance *= 1 - gain
        self.learned += 1


#: Demand for a while is reckoned to answer to the price with this elasticity.
CLEARING_ELASTICITY: Final = 2.2
#: Requests are averaged over this long, longer where few come.
AVERAGE_S: Final = 90.0
#: Where few public changes are allowed, a change has to be right for longer.
SLOW_AVERAGE_S: Final = 300.0
AVERAGE_MAX_S: Final = 600.0
AVERAGE_ORDERS: Final = 60.0
BATCH_AVERAGE_S: Final = 900.0
#: Of the capacity, for interactive work alone.
INTERACTIVE_PART: Final = 0.95
#: Of the capacity, for all work: one less this, over the root of the slots.
SPARE: Final = 0.35
SLOW_SPARE: Final = 0.5
#: Interactive work goes first: batch work takes no more than this part of the room from it.
BATCH_PART: Final = 0.6
ROOM_MIN: Final = 0.3
#: So much of the capacity more while batch work that can wait fills the gaps.
FILLED: Final = 0.1
#: What waits is to be gone after this long.
DRAIN_S: Final = 60.0
SLOW_DRAIN_S: Final = 240.0
BACKLOG_S: Final = 120.0
BACKLOG_DRAIN_S: Final = 900.0


@dataclass(slots=True)
class Load:
    """How much work is asked for, and the price at which it fits."""

    begun: bool = False
    rate: float = 0.0  # interactive requests per second
    response: float = 1.0  # what the prices of that time let through, against the reference
    mean_work: float = 1.0
    weight: float = 0.0
    batch_rate: float = 0.0  # work per second

    def clearing_price(self, seen: Seen, reference: float) -> float:
        """Interactive price at which the work asked for fits, as the last ticks were."""
        self._count(seen, reference)
        slow = seen.changes_left is not None
        waiting = seen.queue_work / (SLOW_DRAIN_S if slow else DRAIN_S)
        backlog_s = seen.batch_queue_work / seen.capacity
        part = (
            1
            - (SLOW_SPARE if slow else SPARE) / math.sqrt(seen.slots)
            + FILLED * min(1.0, backlog_s / BACKLOG_S)
        )
        excess = max(0.0, backlog_s - BACKLOG_S) / BACKLOG_DRAIN_S
        for_batch = min(BATCH_PART, excess + self.batch_rate / seen.capacity)
        room = min(INTERACTIVE_PART, part - for_batch) * seen.capacity
        room = max(ROOM_MIN * seen.capacity, room - waiting)
        wanted = self.rate * self.mean_work / self.response  # at the reference price
        return reference * float((wanted / room) ** (1 / CLEARING_ELASTICITY))

    def _count(self, seen: Seen, reference: float) -> None:
        let_through = (seen.price / reference) ** -CLEARING_ELASTICITY
        if not self.begun:
            self.begun, self.response = True, let_through
        shortest_s = AVERAGE_S if seen.changes_left is None else SLOW_AVERAGE_S
        average_s = min(AVERAGE_MAX_S, max(shortest_s, AVERAGE_ORDERS / max(self.rate, 1e-6)))
        gain = 1 - math.exp(-seen.dt_s / average_s)
        self.rate += gain * (seen.orders / seen.dt_s - self.rate)
        self.response += gain * (let_through - self.response)
        gain = 1 - math.exp(-seen.dt_s / BATCH_AVERAGE_S)
        self.batch_rate += gain * (seen.batch_work / seen.dt_s - self.batch_rate)
        if seen.orders > 0:
            self.weight = min(2_000.0, self.weight + seen.orders)
            part = min(1.0, seen.orders / self.weight)
            self.mean_work += part * (seen.work / seen.orders - self.mean_work)

    def backlog_rise(self, seen: Seen) -> float:
        """How much dearer batch work is for what is queued already, log."""
        backlog_s = seen.batch_queue_work / seen.capacity
        return min(1.0, max(0.0, backlog_s / BACKLOG_DRAIN_S - 1) / 2)


#: Without an order for this long, or this many times the usual gap, the price goes down.
PATIENCE_S: Final = 1_800.0
PATIENCE_GAPS: Final = 6.0
#: Log per second: to a third in an hour. Each order takes back so much of it.
DECAY: Final = 1 / 3_600
RECOVERY: Final = 0.1
DAY_S: Final = 86_400.0


@dataclass(slots=True)
class Drought:
    """A price that nobody pays teaches nothing: it comes down until somebody does."""

    idle_s: float = 0.0
    log_discount: float = 0.0
    orders: float = 0.0  # at full price; older ones than a day count less
    watched_s: float = 0.0  # and the time in which they came

    def discount(self, orders: float, dt_s: float, patience_s: float) -> float:
        """How far below the best price to go after a tick with so many orders, log."""
        if self.log_discount < 0.1:
            self.orders += orders - self.orders * dt_s / DAY_S
            self.watched_s += dt_s - self.watched_s * dt_s / DAY_S
        if orders > 0:
            self.idle_s = 0.0
            self.log_discount *= math.exp(-RECOVERY * min(orders, 100.0))
            return self.log_discount
        self.idle_s += dt_s
        usual_s = self.watched_s / max(self.orders, 1.0)
        if self.idle_s > max(patience_s, min(DAY_S, PATIENCE_GAPS * usual_s * (self.orders >= 1))):
            self.log_discount = min(12.0, self.log_discount + DECAY * dt_s)
        return self.log_discount


#: Own and others' prices are compared every so often.
COMPARE_S: Final = 300.0
#: What was compared counts half after about four hours.
COMPARE_MEMORY: Final = 0.985
#: Log moves smaller than this tell nothing.
MOVE_MIN: Final = 0.005


@dataclass(slots=True)
class Rival:
    """Where competitors put our price, and whether they only follow us.

    Followed is who sees the other's price go where his own went five minutes before. To answer a
    follower is a race to cost: his price is no news, and the anchor stays where it was.
    """

    known: bool = False
    begun: bool = False
    anchor: float = 0.0  # log of the first competitor's price
    own: float = 0.0  # log reference while the competitor's price is the anchor
    follows: bool = False
    moved: bool = False
    reanchored: bool = False
    compared_s: float = 0.0
    theirs: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    moves: float = 0.0  # sum of squares of their moves,
    apart: float = 0.0  # of what is left of them without ours,
    compared: float = 0.0  # and how many

    def reference(self, seen: Seen) -> float:
        """The best price as far as competitors tell: where the learned elasticity is that of."""
        price = None if seen.rival is None else math.log(seen.rival)
        if not self.begun:
            self.begun = True
            self.own = math.log(max(OF_COST * seen.cost, 1e-3)) / 2
        self.reanchored = False
        if price is not None and not self.known:
            self.known = self.reanchored = True
            self.anchor = price
            self.own = math.log(OF_RIVAL) + price
        away = 0.0
        if self.known and price is None:
            away = ALONE
        elif price is not None and not self.follows:
            away = FOLLOWING * (price - self.anchor)
        self.moved = abs(away) > 0.01
        return math.exp(self.own + away)

    def watch(self, seen: Seen, price: float) -> None:
        """Compare: `price` is the interactive price from now on."""
        if seen.rival is None:
            self.theirs, self.ours = [], []
            return
        if self.theirs and seen.at_s - self.compared_s < COMPARE_S:
            return
        self.compared_s = seen.at_s
        self.theirs = [*self.theirs[-3:], math.log(seen.rival)]
        self.ours = [*self.ours[-3:], math.log(price)]
        if len(self.theirs) == 4:
            # theirs over ten minutes, ours over the ten that ended five minutes before
            self._compare(self.theirs[3] - self.theirs[1], self.ours[2] - self.ours[0])

    def _compare(self, theirs: float, ours: float) -> None:
        self.moves = COMPARE_MEMORY * self.moves + theirs**2
        self.apart = COMPARE_MEMORY * self.apart + (theirs - ours) ** 2
        self.compared = COMPARE_MEMORY * self.compared + 1
        if self.compared > 6 and self.moves > self.compared * MOVE_MIN**2:
            self.follows = self.apart < (0.6 if self.follows else 0.4) * self.moves
