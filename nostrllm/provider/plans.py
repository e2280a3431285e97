"""What a client does about plans: see them, buy one, order its renewal, cancel it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from nostrllm.core.plan import FULL, Plan, Subscription, begun
from nostrllm.errors import RemoteError
from nostrllm.ports import Conflict, Write
from nostrllm.provider.admit import Letter
from nostrllm.provider.balances import Balance, committed, expected
from nostrllm.provider.reply import Letterbox
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.subscribers import TRIES_MAX, Subscribers, bought, over
from nostrllm.wire import order as wire
from nostrllm.wire.amount import sats

#: A change as writes, by how much it moves the balance, and the plan after it.
Change = tuple[Sequence[Write], int, Subscription | None]


class Plans:
    """Plans, for our client and for people."""

    def __init__(
        self,
        world: World,
        shop: Shop,
        letterbox: Letterbox,
        settler: Settler,
        subscribers: Subscribers,
    ) -> None:
        self._world = world
        self._shop = shop
        self._letterbox = letterbox
        self._settler = settler
        self._subscribers = subscribers

    def offers(self) -> list[wire.PlanOffer]:
        """What can be bought, as a program is told of it."""
        return [
            wire.PlanOffer(
                id=plan.id,
                price_msat=plan.price_msat,
                period_s=plan.period_s,
                quota_msat=plan.quota_msat or None,
                percent=plan.percent if plan.percent != FULL else None,
                priority=plan.priority or None,
            )
            for plan in self._shop.plans
        ]

    async def state(self, author: str) -> wire.PlanState | None:
        """The plan that is in force for somebody."""
        return _state(await self._subscribers.current(author))

    async def text(self, author: str) -> str:
        """Offers and his own plan, as a person is told of them."""
        lines = [_offer(plan) for plan in self._shop.plans] or ["There are no plans here."]
        own = await self._subscribers.current(author)
        return "\n".join([*lines, "", _own(own)] if own else lines)

    async def subscribe(
        self, letter: Letter, plan_id: str, *, renew: bool, most: int | None = None
    ) -> None:
        """Buy a plan from the balance, for no more than `most` msat, or change whether the one
        there is renewed; and say so.

        Raises RemoteError (plan-unknown, plan-active, price-changed, account-insufficient).
        """
        offer = next((plan for plan in self._shop.plans if plan.id == plan_id), None)

        async def change(balance_msat: int) -> Change:
            own = await self._subscribers.current(letter.author)
            if own is not None and own.plan.id == plan_id:
                values = {"id": own.id, "renew": int(renew)}
                order = Write("subscription_renew", values, rows=1)
                return [order], 0, replace(own, renew=renew)
            if own is not None:
                raise RemoteError("you have another plan; cancel it first", code="plan-active")
            if offer is None:
                raise RemoteError("there is no such plan; ask /plans", code="plan-unknown")
            if most is not None and offer.price_msat > most:
                raise RemoteError(
                    f"this plan costs {sats(offer.price_msat)} now", code="price-changed"
                )
            if balance_msat < offer.price_msat:
                raise RemoteError(
                    f"this plan costs {sats(offer.price_msat)}, your balance is "
                    f"{sats(balance_msat)}",
                    code="account-insufficient",
                )
            now = self._world.now_s()
            new = replace(begun(letter.id, letter.author, offer, now), renew=renew)
            return bought(new, letter.address.dialect, now), -offer.price_msat, new

        await self._carry_out(letter, change)
        self._subscribers.began(letter.author)

    async def cancel(self, letter: Letter) -> None:
        """End the plan now and put what is not used back into the balance; and say so.

        Raises RemoteError `plan-unknown`.
        """

        async def change(_balance_msat: int) -> Change:
            own = await self._subscribers.current(letter.author)
            if own is None:
                raise RemoteError("you have no plan", code="plan-unknown")
            now = self._world.now_s()
            spent = await self._subscribers.spent_msat(own)
            refund = own.refund_msat(now, spent)
            held = Write("subscription_spent_is", {"id": own.id, "msat": spent}, rows=1)
            return [held, *over(own, "cancelled", refund, now)], refund, None

        await self._carry_out(letter, change)

    async def _carry_out(self, letter: Letter, change: Callable[[int], Awaitable[Change]]) -> None:
        """Commit a change with the answer and statement that tell it; once for a letter."""
        for _ in range(TRIES_MAX):
            before = await committed(self._world.store, letter.author)
            writes, moved, after = await change(before.msat)
            guard = expected(letter.author, before)
            said = await self._said(letter, before.moved(moved), after)
            outgoing = await self._letterbox.seal(letter.address, said)
            heard = {"id": letter.id, "wrap": letter.wrap, "at": self._world.now_s()}
            stored = self._letterbox.store(letter.id, outgoing)
            try:
                await self._world.store.commit(Write("heard_first", heard), guard, *writes, *stored)
            except Conflict as conflict:
                if conflict.name == "heard_first":
                    return
                continue  # the account or the plan moved meanwhile: look again
            self._letterbox.wake()
            return
        raise RemoteError("too much is going on in this account", code="busy")

    async def _said(
        self, letter: Letter, account: Balance, after: Subscription | None
    ) -> wire.Answer | list[str]:
        if letter.address.dialect != "client":
            own = _own(after) if after else "You have no plan now."
            return [f"{own} Your balance is {sats(account.msat)}."]
        statement = await self._settler.statement(letter.author, *account)
        return wire.Answer(
            to=letter.id,
            state="done",
            balance_msat=account.msat,
            statement=statement.as_dict(),
            plan=_state(after),
        )


def _state(own: Subscription | None) -> wire.PlanState | None:
    if own is None:
        return None
    return wire.PlanState(
        id=own.plan.id,
        starts_at=own.starts_at,
        ends_at=own.ends_at,
        quota_left_msat=own.quota_left_msat if own.plan.quota_msat else None,
        renew=own.renew,
    )


def _offer(plan: Plan) -> str:
    parts = []
    if plan.quota_msat:
        parts.append(f"{sats(plan.quota_msat)} of answers")
    if plan.percent != FULL:
        parts.append(f"answers at {plan.percent} % of the price")
    if plan.priority:
        parts.append("an earlier turn")
    what = ", ".join(parts)
    return f"{plan.id}: {what}, {sats(plan.price_msat)} for {_span(plan.period_s)}"


def _own(own: Subscription) -> str:
    left = f", {sats(own.quota_left_msat)} of answers left" if own.plan.quota_msat else ""
    then = "renewed" if own.renew else "over"
    return f"Your plan {own.plan.id}{left} is {then} at {own.ends_at} (unix time)."


def _span(period_s: int) -> str:
    for name, seconds in (("days", 86_400), ("hours", 3_600)):
        if period_s % seconds == 0:
            return f"{period_s // seconds} {name}"
    return f"{period_s} s"
