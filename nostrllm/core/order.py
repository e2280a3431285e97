"""One order, from the client's message to its settlement: what may happen next.

Pure: no I/O, no clock, no randomness. An event goes in, the order as it then is comes out, and its
state says what to do. A row in the store has that state, and it changes in the same transaction as
the money it stands for, so after a crash the state alone tells what is left to do.

    placed ─▶ paying ─▶ paid ─▶ running ─▶ settled ─▶ closed
                │        └───────┴─ Failed: everything goes back ─▲
                └─▶ refused: nothing was taken

- paying: the swap (token) is written down and on its way to the mint; a hold on an account skips
  it, and so does a locked token, which is swapped when the order is over
- paid: the money is ours to work for; the answer may begin
- running: the model writes. Only the process knows; to the store the order is still paid, for a
  crash here leaves no answer, so the money goes back
- settled: cost, change and credit are booked and the result is stored; only its delivery is left
- closed: a relay or the client has the result; the store alone makes this step

Rule 1: every msat that was paid in is either cost, change or credit once an order is settled.
Rule 2: the cost never passes the budget: the ceiling less the mint's fee, and what was paid.
Rule 3: an answer that failed, or came out empty through no wish of the client, costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, assert_never

from nostrllm.core import coins
from nostrllm.errors import LocalError

State = Literal["paying", "paid", "running", "settled", "closed", "refused"]
Funding = Literal["token", "account", "locked"]


class OrderError(LocalError):
    """The event cannot happen to an order in this state: a bug, never the peer's doing."""


# events: what has happened


@dataclass(frozen=True, slots=True)
class Paid:
    """The mint swapped the token, or the hold on the account stands: `net_msat` is there."""

    net_msat: int


@dataclass(frozen=True, slots=True)
class PaymentRefused:
    """The mint did not take the token; nothing was taken from the client."""

    code: str


@dataclass(frozen=True, slots=True)
class Started:
    """The model was asked."""


@dataclass(frozen=True, slots=True)
class Generated:
    """The model is done or was stopped; so much was used. `useful`: there is something to pay for.

    A cancelled answer and one cut by the client's own stop word or limit are useful; an engine
    error and an empty answer are not (docs/protocol.md, "What is free").
    """

    cost_msat: int
    useful: bool
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer will come: the engine failed, the deadline passed, or we were restarted."""

    code: str


Event = Paid | PaymentRefused | Started | Generated | Failed


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where the paid msat go: they sum up, whatever happens.

    `released`: nothing was taken of a locked token, not even the mint's fee; it goes back whole.
    `quota_msat`: so much of the work a plan's quota paid, beside the msat here.
    """

    cost_msat: int
    change_units: int
    credit_msat: int
    released: bool = False
    quota_msat: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """What must be known of an order to decide.

    `ceiling_msat` is all the client pays, the mint's `fee_msat` included. `unit_msat` is one coin;
    `change_fee_units` is what it costs to receive change, below which change is credited.
    `wants_ecash` is False when the client prefers credit, or paid from an account. `rungs` are the
    amounts of the outputs that a client sent with a locked token; None: any amount can be made.
    `quota_msat` of the work is paid by a plan, before anything else. `code` says why an order was
    refused or failed.
    """

    funding: Funding
    ceiling_msat: int
    fee_msat: int = 0
    unit_msat: int = 1_000
    change_fee_units: int = 1
    wants_ecash: bool = True
    rungs: tuple[int, ...] | None = None
    state: State = "paying"
    net_msat: int = 0
    quota_msat: int = 0
    settlement: Settlement | None = None
    code: str | None = None

    @property
    def budget_msat(self) -> int:
        """The most that the work may cost."""
        return max(0, min(self.ceiling_msat - self.fee_msat, self.net_msat + self.quota_msat))

    def handle(self, event: Event) -> Order:
        """The order after the event. Raises OrderError."""
        match self.state, event:
            case "paying", Paid(net_msat):
                return replace(self, state="paid", net_msat=net_msat)
            case "paying", PaymentRefused(code):
                return replace(self, state="refused", code=code)
            case "paid", Started():
                return replace(self, state="running")
            case "running", Generated(cost_msat, useful, code):
                return self._settled(min(cost_msat, self.budget_msat) if useful else 0, code)
            case "paid" | "running", Failed(code):
                return self._settled(0, code)
            case _, Paid() | PaymentRefused() | Started() | Generated() | Failed():
                raise OrderError(f"{type(event).__name__} while {self.state}")
            case _:
                assert_never(event)

    def _settled(self, cost_msat: int, code: str | None) -> Order:
        return replace(self, state="settled", settlement=self.split(cost_msat), code=code)

    def split(self, cost_msat: int) -> Settlement:
        """The paid msat as cost, change in whole coins, and the rest as credit."""
        if self.funding == "locked" and not cost_msat:
            return Settlement(0, 0, 0, released=True)
        by_quota = min(cost_msat, self.quota_msat)
        cost_msat -= by_quota
        rest = self.net_msat - cost_msat
        units = rest // self.unit_msat if self.wants_ecash and self.funding != "account" else 0
        if self.rungs is not None:
            units = coins.most(self.rungs, units)
        if units <= self.change_fee_units:
            units = 0
        credit_msat = rest - units * self.unit_msat
        return Settlement(cost_msat, units, credit_msat, quota_msat=by_quota)
