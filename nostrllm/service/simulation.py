"""A pricing policy tried on states that were recorded, or made up: what would it have published?

The states stay what they are: buyers in them do not answer to the prices that come out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from nostrllm.core.pricing import BATCH_REASONS
from nostrllm.core.pricing_limit import HOUR_S, ChangeLimiter
from nostrllm.core.pricing_state import ServerState
from nostrllm.errors import ConfigError
from nostrllm.provider.pricer import decider_of
from nostrllm.provider.shop import Pricing

_NAMES = {field.name for field in fields(ServerState)}
#: What a tick is taken to last where the first line does not say.
_TICK_S = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    """One tick: the price in the making, the published one, and whether that is new."""

    t: float
    live: float
    published: float
    changed: bool
    reasons: tuple[str, ...]


def read_states(path: Path, pool: str | None = None) -> list[ServerState]:
    """The states of a JSON-lines file: of one pool, the first in it where none is named. A line
    needs `t`; the rest has defaults. Raises ConfigError naming the line."""
    found: list[ServerState] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    said, state = _state(f"{path}:{number}", line, found)
                    pool = said if pool is None else pool
                    found += [state] if said == pool else []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None
    if not found:
        raise ConfigError(f"{path}: no states" + (f" of {pool!r}" if pool else ""))
    return found


def _state(place: str, line: str, before: list[ServerState]) -> tuple[str, ServerState]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{place}: no JSON") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: no JSON object")
    pool = str(value.pop("pool", ""))
    given = {name: one for name, one in value.items() if one is not None}
    wrong = [name for name, one in given.items() if name not in _NAMES or not _is_number(one)]
    if wrong:
        raise ConfigError(f"{place}: {wrong[0][:32]!r} is no number of a state")
    if "t" not in given:
        raise ConfigError(f"{place}: no time 't'")
    given.setdefault("dt", given["t"] - before[-1].t if before else _TICK_S)
    return pool, ServerState(**given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


async def simulate(pricing: Pricing, states: Iterable[ServerState]) -> list[Step]:
    """What the policy would have published. Raises ConfigError, WorldError of the operator's
    program."""
    decider, limiter = decider_of(pricing), ChangeLimiter(pricing.changes_per_hour)
    steps: list[Step] = []
    published, batch = 1.0, 1.0
    for state in states:
        told = replace(
            state,
            price=published,
            batch_price=batch,
            pmin=pricing.bounds.lowest,
            pmax=pricing.bounds.highest,
            changes_left=limiter.left(state.t),
        )
        decision = await decider.decide(told)
        live, batch = decision.interactive, decision.batch
        changed = not steps or limiter.change(state.t, (published,) * 2, (live,) * 2)
        published = live if changed else published
        reasons = tuple(one for one in decision.reasons if one not in BATCH_REASONS)
        steps.append(Step(state.t, live, published, changed, reasons))
    return steps


def most_in_an_hour(steps: Iterable[Step]) -> int:
    """How many changes, the first list aside, fell into the hour that had most."""
    times = [step.t for step in steps if step.changed][1:]
    return max((sum(0 <= t - first < HOUR_S for t in times) for first in times), default=0)
