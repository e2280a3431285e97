"""Plans: a price for a period that buys a quota of work, lower prices, or an earlier turn.

Bought and renewed from a balance. What is not used comes back when the client cancels:

    refund = price × min(share of the time that is left, share of the quota that is left)

rounded down to whole msat; without a quota the time alone counts. What lower prices have saved him
was bought with the price and comes off it, or who cancels after each order would have them for
nothing: no more comes back than the price less that. At the end of its time a plan is
earned, or renewed if the client wished so: once, from now on, at no worse terms than he agreed to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: A price at this many percent is the price.
FULL: int = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is offered. `quota_msat` of work is paid by it; `percent` of the prices are asked;
    `priority` is how early a waiting order has its turn, 0 being everybody's."""

    id: str
    price_msat: int
    period_s: int
    quota_msat: int = 0
    percent: int = FULL
    priority: int = 0

    def is_no_worse_than(self, agreed: Plan) -> bool:
        """May this take the place of what was agreed without asking the client?"""
        return (
            self.price_msat <= agreed.price_msat
            and self.period_s >= agreed.period_s
            and self.quota_msat >= agreed.quota_msat
            and self.percent <= agreed.percent
            and self.priority >= agreed.priority
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """A plan that somebody bought, as it was then; times are unix seconds.

    `quota_left_msat` is what no order has used or set aside. `renew`: a standing order.
    """

    id: str
    author: str
    plan: Plan
    starts_at: int
    ends_at: int
    quota_left_msat: int
    renew: bool = False

    def is_active(self, now_s: int) -> bool:
        """Is it in force?"""
        return now_s < self.ends_at

    def refund_msat(self, now_s: int, spent_msat: int = 0) -> int:
        """What comes back when it is cancelled now, after orders of so much at its prices."""
        price, period_s = self.plan.price_msat, self.ends_at - self.starts_at
        left_s = min(max(self.ends_at - now_s, 0), period_s)
        by_time = price * left_s // period_s if period_s else 0
        saved = -(-spent_msat * max(0, FULL - self.plan.percent) // self.plan.percent)
        by_time = min(by_time, max(0, price - saved))
        if not self.plan.quota_msat:
            return by_time
        return min(by_time, price * self.quota_left_msat // self.plan.quota_msat)

    def renewed(self, new_id: str, offer: Plan | None, now_s: int) -> Subscription | None:
        """The next period of a standing order, if it is time for it and the terms still stand.

        `offer`: the plan of this id as it is offered now.
        """
        if not self.renew or self.is_active(now_s):
            return None
        if offer is None or not offer.is_no_worse_than(self.plan):
            return None
        return replace(begun(new_id, self.author, offer, now_s), renew=True)


def begun(new_id: str, author: str, plan: Plan, now_s: int) -> Subscription:
    """A plan bought now."""
    return Subscription(new_id, author, plan, now_s, now_s + plan.period_s, plan.quota_msat)
