"""`nostrllm provider pricing explain | simulate`: why prices are what they are, and would be."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.configured import CONFIG
from nostrllm.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nostrllm.service.simulation import Step

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def pricing() -> None:
    """Why prices are what they are, and what they would be."""


@pricing.command()
@CONFIG
@_JSON
def explain(config_path: Path, as_json: bool) -> None:
    """The prices of the running provider, as of a few seconds ago, and what they come from."""
    from nostrllm.cli.report import failing
    from nostrllm.errors import ConfigError
    from nostrllm.service.config import read_provider_config

    with failing(as_json):
        state = read_provider_config(config_path).provider.state
        path = state / "status.json"
        if not path.exists():
            raise ConfigError(f"no provider has run on {state} yet")
        status = json.loads(path.read_text(encoding="utf-8"))
        if "pricing" not in status:
            raise ConfigError("the provider that runs is an older one, and does not say")
    found = {"at": status["at"], **status["pricing"]}
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    click.echo(f"policy         {found['policy']}, every {found['every_s']:g} s")
    left = f"{found['changes_left']} of {found['changes_per_hour']} this hour"
    worth = found["change_worth"]
    when = (
        f"next at {_time(found['next_change_at'])}"
        if worth is None
        else f"a difference of {100 * worth:.0f} percent is worth one"
    )
    click.echo(f"changes left   {left}; {when}")
    if found["changed_at"]:
        click.echo(f"changed        {_time(found['changed_at'])}")
    if found["cent_msat"] is not None:
        click.echo(f"0.01 USD       {found['cent_msat']} msat, of {_time(found['cent_at'])}")
    for name, pool in found["pools"].items():
        click.echo("")
        click.echo(f"{name}")
        for line in _lines(pool):
            click.echo(f"  {line}")


def _lines(pool: Mapping[str, Any]) -> list[str]:
    highest = "none" if pool["highest"] is None else f"{pool['highest']:g}"
    lines = [
        f"published    {_times(pool['published'])} for {_words(pool['published_reasons'])}",
        f"now          {_times(pool['live'])} for {_words(pool['reasons'])}",
        f"limits       {pool['lowest']:g} to {highest}; cost {_times(pool['cost_floor'])}",
    ]
    state = pool["state"]
    if state is not None:
        rival = "none seen" if state["comp_price"] is None else _times(state["comp_price"])
        lines += [
            f"competitors  {rival}",
            f"slots        {state['slots']}, {100 * pool['utilisation']:.0f} percent busy",
            f"asked for    {state['req_n']} orders, {state['req_work']:.0f} tokens of work "
            f"in {state['dt']:.1f} s; {pool['refused']} refused",
            f"waiting      {state['queue_work']:.0f} tokens of work",
            f"capacity     {state['capacity']:.1f} tokens per second",
        ]
    return lines


@pricing.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@CONFIG
@click.option("--policy", type=click.Choice(["fixed", "learned"]), help="In place of the file's.")
@click.option("--pool", metavar="NAME", help="The back-end whose states; default: the first.")
@_JSON
def simulate(
    file: Path, config_path: Path, policy: str | None, pool: str | None, as_json: bool
) -> None:
    """Run the policy over the states in FILE, a JSON object in each line.

    `record = true` in [pricing] has the provider keep such a file. Buyers in it do not answer to
    the prices that come out.
    """
    import asyncio

    from nostrllm.cli.report import failing
    from nostrllm.service.config import read_provider_config
    from nostrllm.service.simulation import read_states, simulate

    with failing(as_json):
        chosen = read_provider_config(config_path).pricing.pricing()
        if policy is not None:
            chosen = replace(chosen, learned=policy == "learned", code="", command=())
        steps = asyncio.run(simulate(chosen, read_states(file, pool)))
    found = _summary(chosen.name, steps)
    if as_json:
        print_json({**found, "steps": [asdict(step) for step in steps]})
        return
    heads = ("time (UTC)", "price", "in the making", "reasons")
    print_table(heads, [_row(step) for step in steps if step.changed])
    click.echo(
        f"{found['ticks']} ticks, {found['changes']} changes, at most {found['most_in_an_hour']} "
        f"in an hour; {found['lowest']:.3f} to {found['highest']:.3f}, mean {found['mean']:.3f}"
    )


def _summary(policy: str, steps: list[Step]) -> dict[str, Any]:
    from nostrllm.service.simulation import most_in_an_hour

    prices = [step.published for step in steps]
    return {
        "policy": policy,
        "ticks": len(steps),
        "changes": sum(step.changed for step in steps) - 1,
        "most_in_an_hour": most_in_an_hour(steps),
        "lowest": min(prices),
        "highest": max(prices),
        "mean": sum(prices) / len(prices),
    }


def _row(step: Step) -> tuple[str, ...]:
    return (_time(step.t), f"{step.published:.3f}", f"{step.live:.3f}", _words(step.reasons))


def _times(multiple: float) -> str:
    return f"{multiple:.3f} × list"


def _words(reasons: tuple[str, ...]) -> str:
    return ", ".join(reasons) or "nothing yet"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
