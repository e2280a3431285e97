"""What a provider's work should cost now: a multiplier on the list price for each class of work.

A policy is called once a tick, every 10 to 60 s, with what the provider can see, and answers with
two prices and the reasons for them. `make_policy()` gives the one that learns; `Fixed` is the one
that does not. Nothing here reads a clock or draws a random number: the same states in the same
order give the same prices.

All prices are multiples of the list price; work is counted in units of what one token costs to
decode, so a price times a work is money in list units. Why it is built this way, and what was
measured: docs/decisions/0015-pricing-policy.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from nostrllm.core.pricing_batch import SWEEP_S, Sweep
from nostrllm.core.pricing_demand import PATIENCE_S, Drought, Elasticity, Load, Rival
from nostrllm.core.pricing_limit import Threshold
from nostrllm.core.pricing_state import PricingState, Seen, clean, dump, load

Reason = Literal[
    "list",  # a constant price, nothing learned
    "operator",  # the operator's own program said so
    "demand",  # the price that was learned to earn most while there is room
    "competitor",  # moved with what others ask
    "experiment",  # a little up or down, to learn how buyers answer
    "congestion",  # more work is asked for than there is room
    "sweep",  # batch work: dear first, then cheaper until all who wait have bought
    "backlog",  # batch work: more is queued than will soon be done
    "decay",  # nobody has bought for long
    "batch-decay",  # nor batch work
    "held",  # no public change for so little, or so soon
    "cost-floor",  # not below what the work costs
    "bound",  # not outside of what the operator allows
]

#: Those that are about batch work alone.
BATCH_REASONS: Final = frozenset({"sweep", "backlog", "batch-decay"})

#: A price is at least this many times the marginal cost.
MARGIN: Final = 1.05
#: No multiplier outside of this, whatever the bounds say: finite money in integers.
ABSOLUTE: Final = (1e-6, 1e6)
#: Batch work is dearer by this power of how much dearer congestion makes interactive work.
BATCH_POWER: Final = 2.0
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """The multipliers that an operator allows; the floor at cost is above both."""

    lowest: float = 0.0
    highest: float = math.inf


@dataclass(frozen=True, slots=True)
class Decision:
    """Multipliers on the list price, and why; reasons in the order in which they came to bear."""

    interactive: float
    batch: float
    reasons: tuple[Reason, ...]


class Policy(Protocol):
    """Decides on prices; what it learned can be kept over a restart."""

    def decide(self, state: PricingState) -> Decision:
        """The prices from now on."""
        ...

    def snapshot(self) -> dict[str, object]:
        """What was learned, as JSON has it."""
        ...

    def restore(self, learned: Mapping[str, object]) -> None:
        """Go on from a snapshot. Raises ValueError if it is none of this policy's."""
        ...


@dataclass(frozen=True, slots=True)
class _Draft:
    """Two prices in the making."""

    interactive: float
    batch: float
    reasons: tuple[Reason, ...] = ()

    def noted(self, reason: Reason, *, when: bool) -> _Draft:
        return replace(self, reasons=(*self.reasons, reason)) if when else self

    def kept(self, lowest: float, highest: float, reason: Reason) -> _Draft:
        """Both prices within [lowest, highest]."""
        interactive = min(max(self.interactive, lowest), highest)
        batch = min(max(self.batch, lowest), highest)
        moved = (interactive, batch) != (self.interactive, self.batch)
        return replace(self, interactive=interactive, batch=batch).noted(reason, when=moved)


def _bounded(draft: _Draft, seen: Seen, bounds: Bounds) -> Decision:
    """The last word: the operator's bounds, and above them the cost."""
    lowest, highest = max(seen.lowest, bounds.lowest), min(seen.highest, bounds.highest)
    draft = draft.kept(lowest, highest, "bound")
    draft = draft.kept(max(MARGIN * seen.cost, ABSOLUTE[0]), ABSOLUTE[1], "cost-floor")
    return Decision(draft.interactive, draft.batch, draft.reasons)


def of_operator(
    prices: tuple[float, float], state: PricingState, bounds: Bounds | None = None
) -> Decision:
    """(interactive, batch) from a program of the operator's, kept within bounds and above cost.

    Raises ValueError if they are no prices.
    """
    if not all(math.isfinite(price) and price > 0 for price in prices):
        raise ValueError("a price is a finite number above zero")
    return _bounded(_Draft(*prices, ("operator",)), clean(state), bounds or Bounds())


class Fixed:
    """The list price, or another constant pair: no learner."""

    def __init__(
        self, interactive: float = 1.0, batch: float = 1.0, bounds: Bounds | None = None
    ) -> None:
        self._draft = _Draft(interactive, batch, ("list",))
        self._bounds = bounds or Bounds()

    def decide(self, state: PricingState) -> Decision:
        """The constants, unless the cost is above them."""
        return _bounded(self._draft, clean(state), self._bounds)

    def __call__(self, state: PricingState) -> tuple[float, float]:
        """(interactive, batch)."""
        decision = self.decide(state)
        return decision.interactive, decision.batch

    def snapshot(self) -> dict[str, object]:
        """Nothing is learned."""
        return {"policy": "fixed", "version": _VERSION}

    def restore(self, learned: Mapping[str, object]) -> None:
        """Raises ValueError for a snapshot of another policy."""
        _expect(learned, "fixed")


class Adaptive:
    """A learned level for each class of work, and congestion on top of it.

    The level of interactive work is the price that earns most while there is room: it begins where
    competitors and cost put it and moves with the elasticity that small experiments show. Batch
    work is swept: buyers who can wait pay what it is worth to them. When more is asked for than
    there is room, both rise to where it fits.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._rival = Rival()
        self._elasticity = Elasticity()
        self._load = Load()
        self._drought = Drought()
        self._batch_drought = Drought()
        self._sweep = Sweep()
        self._threshold = Threshold()

    def __call__(self, state: PricingState) -> tuple[float, float]:
        """(interactive, batch)."""
        decision = self.decide(state)
        return decision.interactive, decision.batch

    def decide(self, state: PricingState) -> Decision:
        """Learn from the last tick, then set the prices of the next."""
        seen = clean(state)
        reference = self._rival.reference(seen)
        self._elasticity.begin(reference, seen.cost, sure=self._rival.known)
        if self._rival.reanchored and not self._elasticity.learned:
            self._elasticity.begin_anew(reference, seen.cost)
        self._elasticity.observe(seen, reference)
        level = self._elasticity.best_price(reference, seen.cost)
        cheaper = self._drought.discount(seen.orders, seen.dt_s, PATIENCE_S)
        batch_cheaper = self._batch_drought.discount(seen.batch_orders, seen.dt_s, SWEEP_S)
        slow = seen.changes_left is not None
        shift = self._elasticity.experiment(seen.at_s, slow=slow)
        wanted = level * math.exp(shift - cheaper)
        clearing = self._load.clearing_price(seen, reference)
        interactive = max(wanted, clearing)
        congestion = math.log(interactive / wanted)
        self._elasticity.disturbed(congestion > 0, seen)
        self._rival.watch(seen, interactive)
        backlog = self._load.backlog_rise(seen)
        swept = self._sweep.offset(seen, congestion)
        batch = level * math.exp(BATCH_POWER * congestion + backlog + swept - batch_cheaper)
        draft = (
            _Draft(interactive, batch, ("demand",))
            .noted("competitor", when=self._rival.moved)
            .noted("decay", when=cheaper > 0.01)
            .noted("batch-decay", when=batch_cheaper > 0.01)
            .noted("experiment", when=shift != 0 and congestion == 0)
            .noted("congestion", when=congestion > 0)
            .noted("sweep", when=True)
            .noted("backlog", when=backlog > 0)
        )
        return _bounded(self._held(draft, seen), seen, self._bounds)

    def _held(self, draft: _Draft, seen: Seen) -> _Draft:
        if seen.changes_left is None:
            return draft
        kept = self._threshold.kept(seen, draft.interactive, draft.batch)
        if kept is None:
            return draft
        return _Draft(*kept, draft.reasons).noted("held", when=True)

    def snapshot(self) -> dict[str, object]:
        """All that was learned, as JSON has it."""
        parts = {name: dump(part) for name, part in self._parts().items()}
        return {"policy": "adaptive", "version": _VERSION, **parts}

    def restore(self, learned: Mapping[str, object]) -> None:
        """Go on from a snapshot. Raises ValueError if it is none; nothing has changed then."""
        _expect(learned, "adaptive")
        parts = {name: load(part, learned.get(name)) for name, part in self._parts().items()}
        for name, part in parts.items():
            setattr(self, f"_{name}", part)

    def _parts(self) -> dict[str, Rival | Elasticity | Load | Drought | Sweep | Threshold]:
        return {
            "rival": self._rival,
            "elasticity": self._elasticity,
            "load": self._load,
            "drought": self._drought,
            "batch_drought": self._batch_drought,
            "sweep": self._sweep,
            "threshold": self._threshold,
        }


def _expect(learned: Mapping[str, object], policy: str) -> None:
    if (learned.get("policy"), learned.get("version")) != (policy, _VERSION):
        raise ValueError(f"not what a policy {policy!r} of version {_VERSION} learned")


def make_policy() -> Adaptive:
    """The policy for an operator who has no own."""
    return Adaptive()
