"""Plans of a provider: what is offered, buying one from the balance, its renewal, and its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nostrllm.client.allowances import PLAN_KEY, Grants
from nostrllm.client.discover import Offer
from nostrllm.client.exchange import Balance, Errand, Exchange, told
from nostrllm.client.world import World
from nostrllm.errors import LocalError
from nostrllm.wire.order import PlanOffer, PlanState, Query, Subscribe, Unsubscribe


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a provider offers, and which of it is in force for us."""

    provider: str
    offered: tuple[PlanOffer, ...]
    plan: PlanState | None
    balance_msat: int

    def named(self, plan_id: str) -> PlanOffer | None:
        """The plan of this id, as it is offered now."""
        return next((one for one in self.offered if one.id == plan_id), None)


@dataclass(frozen=True, slots=True)
class PlanPrice:
    """What a change of plans moves: `price_msat` comes off the balance (`back_msat` comes back, at
    today's price), and `again_msat` after each `period_s`, if it is renewed."""

    plan: str
    price_msat: int
    period_s: int
    again_msat: int
    balance_msat: int
    back_msat: int = 0


@dataclass(frozen=True, slots=True)
class Changed:
    """The account and the plan in force after a change."""

    balance: Balance
    plan: PlanState | None


def _agreed(_price: PlanPrice) -> None:
    """Any price will do."""


class Plans:
    """Plans of providers."""

    def __init__(self, world: World, exchange: Exchange) -> None:
        self._world = world
        self._exchange = exchange

    async def shelf(self, offer: Offer) -> Shelf:
        """What is offered and what is in force. Raises RemoteError, WorldError."""
        answer = await self._exchange.ask(offer, lambda reply: Query(reply=reply, what="plans"))
        offered = tuple(answer.plans or ())
        return Shelf(offer.provider, offered, answer.plan, answer.balance_msat or 0)

    async def subscribe(
        self,
        offer: Offer,
        plan_id: str,
        *,
        renew: bool = False,
        agree: Callable[[PlanPrice], object] = _agreed,
    ) -> Changed:
        """Buy a plan from the balance; of the one in force, only say whether it is renewed.

        `agree` is told the price before anything is sent, and may raise. Raises LocalError
        `plan-unknown`; RemoteError `plan-active`, `account-insufficient`; WorldError.
        """
        shelf = await self.shelf(offer)
        own = shelf.plan if shelf.plan is not None and shelf.plan.id == plan_id else None
        wanted = shelf.named(plan_id)
        if wanted is None and (own is None or renew):
            raise LocalError(f"he offers no plan {plan_id[:64]!r}", code="plan-unknown")
        price = 0 if own is not None or wanted is None else wanted.price_msat
        period_s = 0 if wanted is None else wanted.period_s
        again = wanted.price_msat if renew and wanted is not None else 0
        agree(PlanPrice(plan_id, price, period_s, again, shelf.balance_msat))
        grants = Grants(self._world, offer.provider)
        if renew and wanted is not None:
            await grants.put(PLAN_KEY, wanted.price_msat, period_s, self._world.square.now_s())
        async with self._exchange.buyer.begin("subscribe", offer.provider) as purchase:
            errand = Errand(
                lambda reply: Subscribe(reply=reply, plan=plan_id, renew=renew, price_msat=price),
                known={"ceiling_msat": price},
            )
            done = await self._exchange.carry_out(offer, purchase, errand)
        assert done is not None
        if not renew:
            await grants.end(PLAN_KEY)
        return Changed(told(offer.provider, done[1]), done[0].plan)

    async def unsubscribe(
        self, offer: Offer, agree: Callable[[PlanPrice], object] = _agreed
    ) -> Changed:
        """End the plan now; what is not used of it comes back into the balance.

        `agree` is told before about how much that is. Raises LocalError `plan-unknown`.
        """
        shelf = await self.shelf(offer)
        if shelf.plan is None:
            raise LocalError("you have no plan with him", code="plan-unknown")
        sold = shelf.named(shelf.plan.id)
        back = 0 if sold is None else back_msat(shelf.plan, sold, self._world.square.now_s())
        period_s = shelf.plan.ends_at - shelf.plan.starts_at
        agree(PlanPrice(shelf.plan.id, 0, period_s, 0, shelf.balance_msat, back))
        async with self._exchange.buyer.begin("unsubscribe", offer.provider) as purchase:
            errand = Errand(lambda reply: Unsubscribe(reply=reply))
            done = await self._exchange.carry_out(offer, purchase, errand)
        assert done is not None
        await Grants(self._world, offer.provider).end(PLAN_KEY)
        return Changed(told(offer.provider, done[1]), done[0].plan)


def back_msat(plan: PlanState, sold: PlanOffer, now_s: int) -> int:
    """What comes back of a plan that ends now, if it was bought at today's price."""
    period_s = plan.ends_at - plan.starts_at
    left_s = min(max(plan.ends_at - now_s, 0), period_s)
    by_time = sold.price_msat * left_s // period_s if period_s > 0 else 0
    if not sold.quota_msat or plan.quota_left_msat is None:
        return by_time
    left = min(plan.quota_left_msat, sold.quota_msat)
    return min(by_time, sold.price_msat * left // sold.quota_msat)
