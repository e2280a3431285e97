"""What the operator decided, and what of the world the daemon is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nostrllm.core.carry_on import Prefix
from nostrllm.core.money import RATED, UNIT_MSAT
from nostrllm.core.plan import FULL, Plan
from nostrllm.core.pricing import Bounds
from nostrllm.core.rates import Guard
from nostrllm.core.route import Route
from nostrllm.core.tariff import Sum
from nostrllm.errors import RemoteError
from nostrllm.ports import Clock, Engine, Keyring, Mints, Rates, Relays, Signer, Store
from nostrllm.purse import Purse
from nostrllm.wire.announcement import Limits, ModelOffer, Terms

#: The parts of the store that a provider needs, in the order in which their tables are made.
STORE_PARTS: Final = (
    *("purse", "provider", "ledger", "conduct", "accounts", "requests", "lightning", "locked"),
    "quarantine",
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model for sale: what is announced, and what the back-end of this name calls it.

    `sum` is its list price, where that is not the one in `offer` because it is pegged; `cost` what
    the work costs the operator.
    `routes`: all ways to have it written, where there are several. `aliases`: what it answers to
    besides its id.
    """

    offer: ModelOffer
    upstream: str
    backend: str = ""
    routes: tuple[Route, ...] = ()
    aliases: tuple[str, ...] = ()
    licence: str = ""
    quantisation: str = ""
    sum: Sum | None = None
    cost: Sum | None = None

    @property
    def is_pegged(self) -> bool:
        """Does it need a rate to be priced?"""
        return any(one is not None and one.unit == "usd" for one in (self.sum, self.cost))

    @property
    def ways(self) -> tuple[Route, ...]:
        """Its routes, one at least."""
        return self.routes or (Route(self.backend, self.upstream),)


@dataclass(frozen=True, slots=True)
class Exposure:
    """How much locked tokens may be worth that are not swapped yet: what a bad mint can cost us.

    `client_msat` of one client, `strangers_msat` of all together who never paid for an answer
    before, `mint_msat` at one mint. A token worth more than `swap_first_msat` is swapped before any
    work.
    """

    total_msat: int = 100_000_000
    mint_msat: int = 50_000_000
    client_msat: int = 10_000_000
    strangers_msat: int = 10_000_000
    swap_first_msat: int = 5_000_000


@dataclass(frozen=True, slots=True)
class Accept:
    """Coins that are taken: of one unit at one mint, which pay at so many percent of the prices."""

    mint: str
    unit: str
    percent: int = 100

    @property
    def fills_accounts(self) -> bool:
        """May they go into an account? It pays the listed prices, and gives coins of any mint."""
        return self.unit in UNIT_MSAT and self.percent <= FULL


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """How rates are used: asked for every `every_s`, trusted as `guard` says; the price list is
    published again when one has moved by more than `moved_bp` hundredths of a percent."""

    guard: Guard = field(default_factory=Guard)
    every_s: float = 60.0
    moved_bp: int = 100


@dataclass(frozen=True, slots=True)
class Pricing:
    """How prices move: by the policy that learns, the operator's own code, or not at all.

    `code` is `module:attribute`, `command` a program; with neither, `learned` says which of ours.
    It is asked every `every_s`; `rivals_s` is how often others' prices are looked up; with `ticks`
    relays are told of live prices and waits between two lists.
    """

    learned: bool = False
    code: str = ""
    command: tuple[str, ...] = ()
    bounds: Bounds = field(default_factory=Bounds)
    every_s: float = 15.0
    rivals_s: float = 120.0
    changes_per_hour: int = 6
    ticks: bool = True

    @property
    def name(self) -> str:
        """Whose what was learned is."""
        own = self.code or " ".join(self.command)
        return own or ("learned" if self.learned else "fixed")

    @property
    def moves(self) -> bool:
        """May prices change by themselves?"""
        return self.name != "fixed"


@dataclass(frozen=True, slots=True)
class Shop:
    """The operator's decisions; `mints` and `relays` are normal URLs.

    `accepts` says which coins of the mints pay; when it is empty those of sat and msat do, at the
    listed prices.

    `payment_msat_max` caps one token, `balance_msat_max` one account: what a client may lose here.
    `backends` says how many answers each back-end writes at once, one that is `adaptive` at most;
    `queue_max` more orders wait for each; its models are listed every `watch_s`, and `prefixes` say
    how it goes on with an answer. `blocked`: public keys that are not served.
    `restored_msat_max`: what all clients together may prove to be owed that a restored store does
    not know of.
    """

    name: str
    relays: tuple[str, ...]
    mints: tuple[str, ...]
    models: tuple[Model, ...]
    d: str = "nostrllm"
    about: str = ""
    version: str = ""
    nip04: bool = False
    heartbeat_s: int = 600
    backends: Mapping[str, int] = field(default_factory=lambda: {"": 4})
    adaptive: frozenset[str] = frozenset()
    watch_s: Mapping[str, float] = field(default_factory=dict)
    prefixes: Mapping[str, Prefix] = field(default_factory=dict)
    queue_max: int = 32
    orders_per_author_max: int = 16
    payment_msat_max: int = 100_000_000
    balance_msat_max: int = 1_000_000_000
    letters_per_minute_max: int = 60
    strangers_per_minute_max: int = 600
    drain_s: float = 60.0
    blocked: frozenset[str] = frozenset()
    plans: tuple[Plan, ...] = ()
    accepts: tuple[Accept, ...] = ()
    rates: RatePolicy = field(default_factory=RatePolicy)
    pricing: Pricing = field(default_factory=Pricing)
    exposure: Exposure = field(default_factory=Exposure)
    restored_msat_max: int = 10_000_000
    limits: Limits = field(default_factory=Limits)
    terms: Terms = field(default_factory=Terms)

    @property
    def slots(self) -> int:
        """How many answers can be written at once."""
        return sum(self.backends.values())

    @property
    def orders_max(self) -> int:
        """How many orders can run and wait."""
        return self.slots + self.queue_max * len(self.backends)

    @property
    def coins(self) -> tuple[Accept, ...]:
        """All coins that are taken."""
        plain = (Accept(mint, unit) for mint in self.mints for unit in UNIT_MSAT)
        return self.accepts or tuple(plain)

    @property
    def rated(self) -> tuple[str, ...]:
        """The units among them whose worth is a rate."""
        return tuple(sorted({coin.unit for coin in self.coins} & RATED))

    @property
    def pegged(self) -> bool:
        """Is there a price or a cost in dollars?"""
        return any(model.is_pegged for model in self.models)

    @property
    def looked_up(self) -> tuple[str, ...]:
        """The units whose rates are needed, for coins or for prices."""
        return tuple(sorted({*self.rated, *(("usd",) if self.pegged else ())}))

    def filling(self, unit: str) -> tuple[str, ...]:
        """The mints whose coins of this unit fill accounts."""
        return tuple(one.mint for one in self.coins if one.unit == unit and one.fills_accounts)

    def check_taken(self, mint: str, unit: str) -> None:
        """Raises RemoteError `payment-mint-unaccepted`."""
        taken = [one for one in self.coins if one.unit == unit]
        if any(one.mint == mint for one in taken):
            return
        if mint in self.mints:
            raise RemoteError(
                f"coins of unit {unit[:16]!r} are not accepted of this mint",
                code="payment-mint-unaccepted",
            )
        names = dict.fromkeys(one.mint for one in taken or self.coins)
        raise RemoteError(
            "tokens of this mint are not accepted here; take one of " + ", ".join(names),
            code="payment-mint-unaccepted",
        )

    def check_fills(self, mint: str, unit: str) -> None:
        """May these coins fill an account? Raises RemoteError `payment-mint-unaccepted`."""
        self.check_taken(mint, unit)
        if mint not in self.filling(unit):
            raise RemoteError(
                "these coins pay for answers here and fill no account; send them with a question, "
                "or take coins of " + (", ".join(self.filling("sat")) or "another provider"),
                code="payment-mint-unaccepted",
            )

    def model(self, model_id: str) -> Model:
        """The model of this id. Raises RemoteError `model-unknown`."""
        for model in self.models:
            if model.offer.id == model_id or model_id in model.aliases:
                return model
        raise RemoteError(
            f"there is no model {model_id[:64]!r} here; ask /models", code="model-unknown"
        )


@dataclass(frozen=True, slots=True)
class World:
    """The adapters, behind their ports; `engines` by the names that the shop has for them."""

    relays: Relays
    keyring: Keyring
    identity: Signer
    store: Store
    purse: Purse
    mints: Mints
    engines: Mapping[str, Engine]
    clock: Clock
    rates: Rates | None = None

    def now_s(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())
