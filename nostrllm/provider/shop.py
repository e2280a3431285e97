"""What the operator decided, and what of the world the daemon is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nostrllm.core.plan import Plan
from nostrllm.errors import RemoteError
from nostrllm.ports import Clock, Engine, Keyring, Mints, Relays, Signer, Store
from nostrllm.purse import Purse
from nostrllm.wire.announcement import Limits, ModelOffer, Terms

#: The parts of the store that a provider needs, in the order in which their tables are made.
STORE_PARTS: Final = (
    *("purse", "provider", "ledger", "conduct", "accounts", "requests", "lightning", "locked"),
    "quarantine",
)


@dataclass(frozen=True, slots=True)
class Model:
    """A model for sale: what is announced, and what the back-end of this name calls it."""

    offer: ModelOffer
    upstream: str
    backend: str = ""


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
class Shop:
    """The operator's decisions; `mints` and `relays` are normal URLs.

    `payment_msat_max` caps one token, `balance_msat_max` one account: what a client may lose here.
    `backends` says how many answers each back-end writes at once; `queue_max` more orders wait in
    all. `blocked`: public keys that are not served. `restored_msat_max`: what all clients together
    may prove to be owed that a restored store does not know of.
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
    queue_max: int = 32
    orders_per_author_max: int = 16
    payment_msat_max: int = 100_000_000
    balance_msat_max: int = 1_000_000_000
    letters_per_minute_max: int = 60
    drain_s: float = 60.0
    blocked: frozenset[str] = frozenset()
    plans: tuple[Plan, ...] = ()
    exposure: Exposure = field(default_factory=Exposure)
    restored_msat_max: int = 10_000_000
    limits: Limits = field(default_factory=Limits)
    terms: Terms = field(default_factory=Terms)

    @property
    def slots(self) -> int:
        """How many answers can be written at once."""
        return sum(self.backends.values())

    def model(self, model_id: str) -> Model:
        """The model of this id. Raises RemoteError `model-unknown`."""
        for model in self.models:
            if model.offer.id == model_id:
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

    def now_s(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())
