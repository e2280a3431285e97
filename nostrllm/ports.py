"""What the roles need of the world: a Protocol for each thing outside, adapters behind it.

A role (provider, client) is handed these and imports no adapter; `service/` joins them.
Every call that leaves the process has a time limit of its own and raises the errors it names.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from nostrllm.core.rates import Rate
from nostrllm.wire.event import Draft, Event, Rumor
from nostrllm.wire.order import Usage
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof


class Clock(Protocol):
    """Time, so that a simulation can own it."""

    def now(self) -> float:
        """Seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds that never run backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Rates(Protocol):
    """What coins are worth whose unit does not say it."""

    async def latest(self, unit: str) -> Rate:
        """One coin of `unit` in msat, and when that was looked up.

        Raises WorldError `payment-rate-unknown`.
        """


# keys


class Signer(Protocol):
    """One Nostr key and what it does; the secret stays inside."""

    @property
    def pubkey(self) -> str:
        """32 bytes, x-only, hex."""

    async def sign(self, draft: Draft) -> Event:
        """The draft as an event by this key (NIP-01)."""

    async def wrap(
        self,
        rumor: Rumor,
        to: str,
        *,
        expiration: int | None = None,
        ephemeral: bool = False,
        work: int = 0,
    ) -> Event:
        """`rumor`, which this key wrote, sealed and gift-wrapped for `to` (NIP-59).

        Kind 1059, created_at back-dated up to two days; or 21059 with the true time. `expiration`
        is unix seconds (NIP-40); `work` are zero bits of the wrap's id (NIP-13). Raises
        RemoteError `message-too-large`.
        """

    async def unwrap(self, wrap: Event) -> Rumor:
        """The rumor in a gift wrap to this key; seal, author and id are all checked.

        Raises RemoteError for anything else.
        """

    async def encrypt(self, text: str, to: str) -> str:
        """NIP-44 version 2."""

    async def decrypt(self, payload: str, author: str) -> str:
        """NIP-44 version 2. Raises RemoteError."""

    async def encrypt_legacy(self, text: str, to: str) -> str:
        """NIP-04."""

    async def decrypt_legacy(self, payload: str, author: str) -> str:
        """NIP-04. Raises RemoteError."""


class Keyring(Protocol):
    """Makes signers, and says whether others' signatures are true."""

    def signer(self, secret: bytes | None = None) -> Signer:
        """A signer for 32 secret bytes, or for a fresh random key."""

    def verify(self, event: Event) -> bool:
        """Do id and signature belong to the event?"""


# relays


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a subscription asks for (NIP-01); tags as {"p": (…,)}."""

    kinds: tuple[int, ...] = ()
    authors: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a publication: relays that took it, and the reasons of those that did not."""

    ok: tuple[str, ...]
    failed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """One relay as it stands now."""

    url: str
    connected: bool
    subscriptions: int
    heard_s: float | None  # seconds since a message came, None before the first
    reconnects: int
    error: str | None


class Subscription(Protocol):
    """Events of one subscription, each once, whichever relays delivered it."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate until closed; id and signature of every event are verified."""

    async def __anext__(self) -> Event:
        """The next event."""


class Relays(Protocol):
    """Several relays at once. Connections come and go underneath; nothing here raises for that."""

    async def publish(
        self, event: Event, *, to: Sequence[str] = (), timeout_s: float = 5.0
    ) -> Published:
        """Send to every relay of `to` (default: all configured) and wait for their OK.

        Returns once all answered or time ran out; never raises for a relay's fault. `duplicate:`
        counts as success.
        """

    async def cast(self, event: Event, *, to: Sequence[str] = ()) -> None:
        """Send without waiting for an OK (chunks, ticks)."""

    def subscribe(
        self,
        name: str,
        filters: Sequence[Filter],
        *,
        to: Sequence[str] = (),
        signer: Signer | None = None,
        stored_s: float | None = None,
    ) -> AbstractAsyncContextManager[Subscription]:
        """A live subscription on `to` (default: all configured), kept alive until the block ends.

        `stored_s`: how far back stored events are wanted, for the first REQ, for every re-subscribe
        and for the periodic catch-up (gift wraps: two days and a margin). `signer` answers AUTH on
        a connection of its own (NIP-42).
        """

    async def fetch(
        self, filters: Sequence[Filter], *, to: Sequence[str] = (), timeout_s: float = 5.0
    ) -> list[Event]:
        """Stored events from all relays of `to`, verified, each once, newest first.

        Returns what came when every relay said EOSE or time ran out; [] when none answered.
        """

    def status(self) -> list[RelayStatus]:
        """How each relay stands."""


# money


@dataclass(frozen=True, slots=True)
class Keyset:
    """A mint's keyset (NUT-01, NUT-02): amount in units → public key, compressed hex."""

    id: str
    unit: str
    active: bool
    fee_ppk: int
    keys: Mapping[int, str]
    final_expiry: int | None = None


@dataclass(frozen=True, slots=True)
class MintQuote:
    """A Lightning invoice whose payment lets us mint (NUT-04). `state`: UNPAID, PAID, ISSUED."""

    quote: str
    request: str
    amount: int
    unit: str
    state: str
    expiry: int | None


@dataclass(frozen=True, slots=True)
class MeltQuote:
    """What a mint asks for paying an invoice (NUT-05), in units: `amount`, and up to `fee_reserve`.

    What the Lightning network takes less than the reserve comes back as change (NUT-08).
    """

    quote: str
    request: str
    amount: int
    unit: str
    fee_reserve: int
    expiry: int | None


@dataclass(frozen=True, slots=True)
class Melt:
    """How the payment of an invoice stands. `state`: UNPAID, PENDING, PAID.

    `change`: the mint's signatures on the first of our blank outputs, in their order (NUT-08).
    `preimage` proves the payment to whoever has the invoice; "" while there is none.
    """

    state: str
    change: tuple[BlindSignature, ...] = ()
    preimage: str = ""


class Mint(Protocol):
    """One Cashu mint. Every call raises MintRefused (definite) or OutcomeUnknown (ask again)."""

    @property
    def url(self) -> str:
        """Without a trailing slash."""

    @property
    def skew_s(self) -> float | None:
        """How far its clock is ahead of ours; None until it has answered."""

    async def info(self) -> Mapping[str, Any]:
        """NUT-06; as it was a few minutes ago, at most."""

    async def keysets(self, *, refresh: bool = False, wait: bool = False) -> Mapping[str, Keyset]:
        """Every keyset by id, inactive ones too; ids are recomputed from the keys (NUT-02).

        As they were a few minutes ago, with `refresh` a few seconds, for a mint is not asked more
        often. `wait` until it may be asked again, for what it says now. Raises OutcomeUnknown, then
        also when too many wait.
        """

    async def swap(
        self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> list[BlindSignature]:
        """NUT-03; signatures in the order of `outputs`."""

    async def restore(
        self, outputs: Sequence[BlindedMessage]
    ) -> list[tuple[BlindedMessage, BlindSignature]]:
        """Those of `outputs` that the mint has signed (NUT-09)."""

    async def states(self, ys: Sequence[str]) -> list[str]:
        """UNSPENT, PENDING or SPENT for each Y, in order (NUT-07)."""

    async def quote_mint(self, amount: int, unit: str) -> MintQuote:
        """Ask for an invoice (NUT-04, NUT-23)."""

    async def mint_quote(self, quote: str) -> MintQuote:
        """How that invoice stands."""

    async def mint(self, quote: str, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """Issue coins for a paid quote; signatures in the order of `outputs`."""

    async def quote_melt(self, request: str, unit: str) -> MeltQuote:
        """Ask what paying this invoice costs (NUT-05, NUT-23)."""

    async def melt_quote(self, quote: str) -> Melt:
        """How the payment of that invoice stands."""

    async def melt(
        self, quote: str, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> Melt:
        """Have the mint pay the invoice of a quote with these coins; may take minutes.

        `outputs` are blank: the mint writes the amounts of the change into the first of them.
        """


class Mints(Protocol):
    """The mints by URL."""

    def at(self, url: str) -> Mint:
        """The mint at this URL; the same object each time."""


class Web(Protocol):
    """Servers of strangers, over HTTPS, or HTTP to an onion: nothing of the user's own network."""

    async def get(self, url: str) -> str:
        """What is at this URL. Raises RemoteError for a URL that is not taken or an answer that is
        too long, WorldError `payee-unreachable` when there is none."""

    async def post(self, url: str, body: str) -> str:
        """Hand over a JSON text; its answer. Raises as `get`, RemoteError for a definite no."""


# models


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer as it comes; the last one carries the finish reason and the usage.

    `pieces`: how many the server made of it, which came at once.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    pieces: int = 1


#: What an engine can be asked for: an answer to a conversation, a text to go on with, vectors.
Task = Literal["chat", "completion", "embedding"]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a model server says it is; None where it does not tell.

    `slots` answers at once, `busy` of them, `queued` requests behind these; `tokens_s` per answer.
    """

    slots: int | None = None
    busy: int | None = None
    queued: int | None = None
    tokens_s: float | None = None


class Engine(Protocol):
    """One model server. Every call raises EngineError."""

    async def models(self) -> list[str]:
        """The model ids it serves now; empty where it does not tell."""

    def stream(self, body: Mapping[str, Any], task: Task = "chat") -> AsyncGenerator[Delta, None]:
        """Run one OpenAI-shaped request; closing the iterator stops the generation.

        The last delta has `usage` when the server told it. The text of an `embedding` is a JSON
        list of vectors, each base64 of little-endian float32, in the order of the `input`.
        """

    async def health(self) -> None:
        """Return if it can answer; costs nothing and loads no model."""

    async def load(self) -> Load:
        """How busy it is."""


# store


@dataclass(frozen=True, slots=True)
class Write:
    """One named statement of the store's SQL file with its parameters.

    `rows`: how many rows it must change, or (for a SELECT) find; None = any number. Another number
    rolls the whole unit back.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None


Row = Mapping[str, Any]


class Conflict(Exception):
    """A UNIQUE row exists already, or a statement met another number of rows than it must."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"conflict in {name}")


class Store(Protocol):
    """Durable rows. A unit of writes is committed whole and on disk, or not at all."""

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """Run the writes in one transaction and return each one's rows, after fsync.

        Units are run in the order they were asked for, and each sees those before it.
        Raises Conflict (the unit changed nothing) or StoreError (nor did this one).
        """

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """The rows of one named SELECT."""
