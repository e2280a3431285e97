"""What the books hold of units whose worth is a rate, and what it cost: no rate is asked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nostrllm.core import ledger
from nostrllm.core.money import RATED


@dataclass(frozen=True, slots=True)
class Position:
    """What there is of a unit with a rate, in its coins, and what it cost in msat.

    `bought`: what orders paid, less their change; `change` is given and not yet spent; `fees` and
    `withdrawn` are the owner's. `have` are all coins there are, given change not among them.
    """

    bought: int
    cost_msat: int
    change: int
    fees: int
    withdrawn: int
    have: int

    def at_cost(self, units: int) -> int:
        """What so many of the coins were taken for, in msat; no more than were bought."""
        known = min(units, self.bought)
        return max(0, self.cost_msat) * known // self.bought if known > 0 else 0

    def units_for(self, msat: int) -> int:
        """How many coins, at what they were taken for, are worth so much."""
        if msat <= 0:
            return 0
        return -(-msat * self.bought // self.cost_msat) if self.cost_msat > 0 else self.have


def positions(balances: Mapping[str, int]) -> dict[str, Position]:
    """Every unit with a rate among the balances of ledger accounts."""
    found = {}
    for unit in sorted(RATED):
        mine = {name: n for name, n in balances.items() if ledger.currency(name) == unit}
        change = -sum(n for name, n in mine.items() if name.startswith("change:"))
        coins = sum(n for name, n in mine.items() if name.startswith("coins:"))
        if mine:
            found[unit] = Position(
                bought=-mine.get(ledger.own("exchange", unit), 0),
                cost_msat=balances.get("exchange", 0),
                change=change,
                fees=mine.get(ledger.own("fees", unit), 0),
                withdrawn=mine.get(ledger.own("owner", unit), 0),
                have=coins - change,
            )
    return found
