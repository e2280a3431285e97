"""What a pricing policy is told, cleaned of what no sum survives; and how its parts are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

Part = TypeVar("Part")


class PricingState(Protocol):
    """What a provider sees of his own server and of others' published prices, at the end of a tick.

    Prices are multiples of the list price, work is in units of one decoded token.
    """

    @property
    def t(self) -> float:
        """Seconds, of a clock that goes on over a restart."""

    @property
    def dt(self) -> float:
        """Length of the tick, seconds."""

    @property
    def price(self) -> float:
        """Interactive multiplier that is published."""

    @property
    def batch_price(self) -> float:
        """Batch multiplier that is published."""

    @property
    def slots(self) -> int:
        """Streams that can run at once."""

    @property
    def queue_work(self) -> float:
        """Work of the interactive requests that wait."""

    @property
    def batch_queue_work(self) -> float:
        """Work of the batch requests that wait."""

    @property
    def req_n(self) -> int:
        """Interactive requests that came in the tick, refused ones too."""

    @property
    def req_work(self) -> float:
        """Work that they asked for."""

    @property
    def batch_req_n(self) -> int:
        """Batch requests that came in the tick."""

    @property
    def batch_req_work(self) -> float:
        """Work that they asked for."""

    @property
    def capacity(self) -> float:
        """Work that can be done per second now."""

    @property
    def marginal_cost(self) -> float:
        """What a unit of work costs now."""

    @property
    def comp_price(self) -> float | None:
        """The best price that a competitor publishes; None if there is none."""

    @property
    def pmin(self) -> float:
        """Lowest multiplier that the operator allows."""

    @property
    def pmax(self) -> float:
        """Highest multiplier that the operator allows."""

    @property
    def changes_left(self) -> int | None:
        """Public price changes that are left now; None if there is no limit."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """A `PricingState` to fill in; see there."""

    t: float
    dt: float
    price: float = 1.0
    batch_price: float = 1.0
    slots: int = 1
    queue_work: float = 0.0
    batch_queue_work: float = 0.0
    req_n: int = 0
    req_work: float = 0.0
    batch_req_n: int = 0
    batch_req_work: float = 0.0
    capacity: float = 1.0
    marginal_cost: float = 0.0
    comp_price: float | None = None
    pmin: float = 0.0
    pmax: float = math.inf
    changes_left: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A state in which every number is finite, every price and rate within reason."""

    at_s: float
    dt_s: float
    price: float
    batch_price: float
    slots: int
    queue_work: float
    batch_queue_work: float
    orders: float
    work: float
    batch_orders: float
    batch_work: float
    capacity: float
    cost: float
    rival: float | None
    lowest: float
    highest: float
    changes_left: int | None


def _within(value: object, lowest: float, highest: float, default: float) -> float:
    if not isinstance(value, (int, float)) or math.isnan(value):
        return default
    return float(min(max(value, lowest), highest))


def clean(state: PricingState) -> Seen:
    """The state as policies reckon with it: nothing missing, infinite, negative or absurd."""
    rival = _within(state.comp_price, 0.0, 1e6, 0.0)
    left = state.changes_left
    lowest = _within(state.pmin, 0.0, 1e6, 0.0)
    return Seen(
        at_s=_within(state.t, 0.0, 1e12, 0.0),
        dt_s=_within(state.dt, 0.1, 3_600.0, 15.0),
        price=_within(state.price, 1e-6, 1e6, 1.0),
        batch_price=_within(state.batch_price, 1e-6, 1e6, 1.0),
        slots=int(_within(state.slots, 1, 1e6, 1)),
        queue_work=_within(state.queue_work, 0.0, 1e12, 0.0),
        batch_queue_work=_within(state.batch_queue_work, 0.0, 1e12, 0.0),
        orders=float(int(_within(state.req_n, 0, 1e9, 0))),
        work=_within(state.req_work, 0.0, 1e12, 0.0),
        batch_orders=float(int(_within(state.batch_req_n, 0, 1e9, 0))),
        batch_work=_within(state.batch_req_work, 0.0, 1e12, 0.0),
        capacity=_within(state.capacity, 1e-3, 1e9, 1.0),
        cost=_within(state.marginal_cost, 0.0, 1e5, 0.0),
        rival=rival if rival > 1e-6 else None,
        lowest=lowest,
        highest=max(lowest, _within(state.pmax, 0.0, 1e6, 1e6)),
        changes_left=None if left is None else int(_within(left, 0, 1e6, 0)),
    )


def dump(part: object) -> dict[str, object]:
    """A part's fields: numbers, booleans, lists of numbers."""
    return {name: copy(getattr(part, name)) for name in _names(part)}


def load(part: Part, kept: object) -> Part:
    """A part like `part` with what `dump` gave. Raises ValueError if it is not that."""
    if not isinstance(kept, Mapping) or set(kept) != set(_names(part)):
        raise ValueError(f"not the fields of {type(part).__name__}")
    fresh = type(part)()
    return type(part)(**{name: _alike(getattr(fresh, name), kept[name]) for name in kept})


def _names(part: object) -> list[str]:
    return [field.name for field in fields(part)]  # type: ignore[arg-type]


def _alike(fresh: object, kept: object) -> object:
    """`kept` if it can stand where `fresh` stands."""
    if isinstance(fresh, list):
        numbers = [one for one in kept if _is_number(one)] if isinstance(kept, list) else []
        if isinstance(kept, list) and len(fresh) <= len(kept) == len(numbers) <= 4:
            return numbers
    elif isinstance(kept, bool) if isinstance(fresh, bool) else _is_number(kept):
        return kept
    raise ValueError("a number is missing in what was learned")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
