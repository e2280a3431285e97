"""`nostrllm plans`, and `nostrllm plan buy | renew | cancel | status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.account import warn
from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, placed
from nostrllm.wire.amount import sats

if TYPE_CHECKING:
    from nostrllm.client.plans import Changed, PlanPrice, Shelf
    from nostrllm.service.client import Client
    from nostrllm.wire.order import PlanOffer, PlanState


@click.command()
@click.argument("provider", required=False)
@placed
def plans(where: Where, provider: str | None) -> None:
    """List the plans that PROVIDER sells, or everybody who answers."""
    where.run(lambda client: _plans(client, where, provider))


async def _plans(client: Client, where: Where, provider: str | None) -> Said:
    shelves = await client.accounts.plans(provider)
    names = {
        one.announcement.pubkey: one.announcement.profile.name
        for one in await client.market.listings()
    }
    if not where.json:
        heads = ("provider", "plan", "price", "for", "brings", "yours")
        print_table(
            heads,
            [
                (names.get(shelf.provider, ""), *_row(one, shelf))
                for shelf in shelves
                for one in shelf.offered
            ],
        )
        if not any(shelf.offered for shelf in shelves):
            click.echo("no plans are sold", err=True)
    return {"providers": [_shelf_json(shelf) for shelf in shelves]}


def _row(one: PlanOffer, shelf: Shelf) -> tuple[str, ...]:
    own = shelf.plan is not None and shelf.plan.id == one.id
    return (one.id, sats(one.price_msat), _span(one.period_s), _brings(one), "yes" if own else "")


def _brings(one: PlanOffer) -> str:
    parts = []
    if one.quota_msat:
        parts.append(f"{sats(one.quota_msat)} of answers")
    if one.percent is not None:
        parts.append(f"{one.percent} % of the prices")
    if one.priority:
        parts.append("an earlier turn")
    return ", ".join(parts) or "-"


def _span(period_s: int) -> str:
    for name, seconds in (("days", 86_400), ("hours", 3_600)):
        if period_s % seconds == 0:
            count = period_s // seconds
            return f"{count} {name if count > 1 else name[:-1]}"
    return f"{period_s} s"


def _shelf_json(shelf: Shelf) -> dict[str, Any]:
    return {
        "provider": shelf.provider,
        "plans": [one.model_dump(exclude_none=True) for one in shelf.offered],
        "plan": _plan_json(shelf.plan),
        "balance_msat": shelf.balance_msat,
    }


def _plan_json(plan: PlanState | None) -> dict[str, Any] | None:
    return None if plan is None else plan.model_dump(exclude_none=True)


@click.group()
def plan() -> None:
    """Your plan with a provider: paid from your balance with him, for a time."""


@plan.command()
@click.argument("provider")
@placed
def status(where: Where, provider: str) -> None:
    """Which plan of PROVIDER is in force, until when, and what is left of it."""

    async def work(client: Client) -> Said:
        [shelf] = await client.accounts.plans(provider)
        if not where.json:
            click.echo(_own(shelf.plan))
        return {"plan": _plan_json(shelf.plan), "balance_msat": shelf.balance_msat}

    where.run(work)


@plan.command()
@click.argument("provider")
@click.argument("plan_id", metavar="PLAN")
@click.option("--renew", is_flag=True, help="And again at the end of each period.")
@placed
def buy(where: Where, provider: str, plan_id: str, renew: bool) -> None:
    """Buy PLAN from your balance with PROVIDER."""

    async def work(client: Client) -> Said:
        agree = _price(where)
        done = await client.accounts.subscribe(provider, plan_id, renew=renew, agree=agree)
        return _changed(where, done)

    where.run(work)


@plan.command()
@click.argument("provider")
@click.argument("wish", metavar="on|off", type=click.Choice(("on", "off")))
@placed
def renew(where: Where, provider: str, wish: str) -> None:
    """Have your plan bought again when it ends, or not."""

    async def work(client: Client) -> Said:
        from nostrllm.errors import LocalError

        [shelf] = await client.accounts.plans(provider)
        if shelf.plan is None:
            raise LocalError("you have no plan with him", code="plan-unknown")
        named, on, agree = shelf.plan.id, wish == "on", _price(where)
        done = await client.accounts.subscribe(provider, named, renew=on, agree=agree)
        return _changed(where, done)

    where.run(work)


@plan.command()
@click.argument("provider")
@placed
def cancel(where: Where, provider: str) -> None:
    """End your plan now; what is not used of it goes back into your balance."""

    async def work(client: Client) -> Said:
        prices: list[PlanPrice] = []

        def agree(price: PlanPrice) -> None:
            prices.append(price)
            if not where.json:
                about = sats(price.back_msat)
                click.echo(f"ends {price.plan}; about {about} come back", err=True)

        done = await client.accounts.unsubscribe(provider, agree)
        came = done.balance.balance_msat - prices[0].balance_msat
        if not where.json:
            click.echo(f"came back: {sats(max(0, came))}", err=True)
        return {**_changed(where, done), "back_msat": max(0, came)}

    where.run(work)


def _price(where: Where) -> Any:
    def agree(price: PlanPrice) -> None:
        if where.json:
            return
        again = f"{sats(price.again_msat)} again every {_span(price.period_s)}"
        then = f", and {again}" if price.again_msat else ""
        said = f"{price.plan}: {sats(price.price_msat)} from your {sats(price.balance_msat)}{then}"
        click.echo(said, err=True)

    return agree


def _changed(where: Where, done: Changed) -> dict[str, Any]:
    if not where.json:
        click.echo(f"{_own(done.plan)}; balance {sats(done.balance.balance_msat)}")
        warn(done.balance)
    return {
        "plan": _plan_json(done.plan),
        "balance_msat": done.balance.balance_msat,
        "breaches": list(done.balance.breaches),
    }


def _own(plan: PlanState | None) -> str:
    if plan is None:
        return "no plan"
    until = datetime.fromtimestamp(plan.ends_at, UTC).strftime("%Y-%m-%d %H:%M")
    left = f", {sats(plan.quota_left_msat)} left" if plan.quota_left_msat is not None else ""
    return f"{plan.id}{left}, {'renewed' if plan.renew else 'until'} {until} UTC"
