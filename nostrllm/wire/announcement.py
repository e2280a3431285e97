"""A provider's announcement (kind 38421) and price list (kind 38424) ⇄ events.

The announcement follows the grammar of Routstr's RIP-02, whose kind it shares: foreign events of
that kind are refused here and dropped by readers. The price list comes in pages, each an
addressable event; `root` in the announcement is the hash over all pages, so that a list shown to
one client alone is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PrivateAttr, TypeAdapter

from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.message import (
    MSAT_MAX,
    Hex32,
    Line,
    MintUrl,
    ModelId,
    RelayUrl,
    Wire,
    canonical,
    parse,
)
from nostrllm.wire.places import relay_url
from nostrllm.wire.pow import ID_BITS
from nostrllm.wire.token import normal_url

LABEL: Final = "nostrllm"
CLOSING: Final = "closing"
HEARTBEAT_S_MIN: Final = 60
HEARTBEAT_S_MAX: Final = 3_600

#: A price list is promised for no longer than this after it was signed.
PROMISE_S_MAX: Final = 900

#: A page's content stays below this, so that its event passes any relay.
PAGE_BYTES_MAX: Final = 40_000
PAGES_MAX: Final = 100
MODELS_PER_PAGE_MAX: Final = 500
#: How many mints and units one page says how to pay with; each takes up to so many bytes of it.
PAYS_MAX: Final = 64
PAY_BYTES_MAX: Final = 360


class Limits(Wire):
    """What the provider takes at most."""

    request_bytes_max: int = Field(default=256_000, ge=1, le=1 << 30)
    parts_max: int = Field(default=32, ge=1, le=1_024)


class Terms(Wire):
    """What the provider says about his handling of prompts."""

    retention_s: int = Field(default=0, ge=0, le=1 << 40)
    training: bool = False
    upstream: str = Field(default="self", max_length=64)
    moderation: bool = False


class Profile(Wire):
    """The content of an announcement."""

    name: str = Field(max_length=64)
    about: Line = ""
    limits: Limits = Limits()
    terms: Terms = Terms()


class Announcement(Wire):
    """A provider as he announces himself. `address` names him: `38421:<pubkey>:<d>`.

    `work`: zero bits (NIP-13) that the wraps of whoever is not known to him need.
    """

    pubkey: Hex32
    d: str = Field(max_length=64)
    created_at: int
    expiration: int
    mints: tuple[MintUrl, ...] = Field(min_length=1, max_length=32)
    relays: tuple[RelayUrl, ...] = Field(min_length=1, max_length=32)
    payment_key: str = Field(pattern=r"^0[23][0-9a-f]{64}$")
    instance: str = Field(min_length=1, max_length=64)
    closing: bool = False
    work: int = Field(default=0, ge=0, le=ID_BITS)
    price_seq: int = Field(ge=0, le=1 << 53)
    price_root: Hex32
    profile: Profile

    @property
    def address(self) -> str:
        """The announcement's coordinate, as `a` tags name it."""
        return f"{kinds.ANNOUNCEMENT}:{self.pubkey}:{self.d}"


_PROFILE: Final = TypeAdapter(Profile)
_ANNOUNCEMENT: Final = TypeAdapter(Announcement)


def announcement_draft(announcement: Announcement, *, nprofile: str, version: str) -> Draft:
    """The event to sign. `nprofile` (NIP-19) goes where RIP-02 has a URL: there is none."""
    tags = [
        ("d", announcement.d),
        ("t", LABEL),
        ("u", f"nostr:{nprofile}"),
        *(("mint", url) for url in announcement.mints),
        *(("relay", url) for url in announcement.relays),
        ("version", version),
        ("payment-key", announcement.payment_key),
        ("instance", announcement.instance),
        ("prices", str(announcement.price_seq), announcement.price_root),
        ("expiration", str(announcement.expiration)),
    ]
    if announcement.work:
        tags.append(("pow", str(announcement.work)))
    if announcement.closing:
        tags.append(("status", CLOSING))
    content = announcement.profile.as_json()
    return Draft(kinds.ANNOUNCEMENT, content, announcement.created_at, tuple(tags))


def parse_announcement(event: Event) -> Announcement:
    """An event of kind 38421 that is ours. Raises RemoteError for every other."""
    if event.kind != kinds.ANNOUNCEMENT or LABEL not in event.values("t"):
        raise RemoteError("not an announcement of this market")
    prices = next((tag for tag in event.tags if tag[0] == "prices" and len(tag) > 2), ("", "", ""))
    fields = {
        "pubkey": event.pubkey,
        "d": event.value("d") or "",
        "created_at": event.created_at,
        "expiration": _number(event.value("expiration")),
        "mints": tuple(normal_url(url) for url in tuple(event.values("mint"))[:33]),
        "relays": tuple(relay_url(url) for url in tuple(event.values("relay"))[:33]),
        "payment_key": event.value("payment-key") or "",
        "instance": event.value("instance") or "",
        "closing": event.value("status") == CLOSING,
        "work": _number(event.value("pow") or "0"),
        "price_seq": _number(prices[1]),
        "price_root": prices[2],
        "profile": parse(_PROFILE, event.content),
    }
    return _validated(_ANNOUNCEMENT, fields)


# prices


class Price(Wire):
    """What a model costs: msat per million tokens of each sort, and msat per request.

    Cached prompt tokens and reasoning tokens cost what `cached` and `reasoning` say; None means the
    price of `input` or `output`.
    """

    input: int = Field(ge=0, le=MSAT_MAX)
    output: int = Field(ge=0, le=MSAT_MAX)
    request: int = Field(default=0, ge=0, le=MSAT_MAX)
    cached: int | None = Field(default=None, ge=0, le=MSAT_MAX)
    reasoning: int | None = Field(default=None, ge=0, le=MSAT_MAX)


class ModelOffer(Wire):
    """One model, what it can do and what it costs now.

    `tasks` of `chat`, `completion`, `embedding`; None means chat alone. `context` and `max_tokens`
    in tokens; `tier` is the provider's own word for its strength.
    """

    id: ModelId
    name: str = Field(default="", max_length=128)
    tier: str = Field(default="simple", max_length=32)
    context: int = Field(ge=1, le=1 << 30)
    max_tokens: int = Field(ge=1, le=1 << 30)
    tasks: list[str] | None = Field(default=None, max_length=8)
    modalities: list[str] = Field(default=["text"], max_length=8)
    parameters: list[str] = Field(default=[], max_length=64)
    price: Price

    def does(self, task: str) -> bool:
        """Can it be asked for this?"""
        return task in (("chat",) if self.tasks is None else self.tasks)


class Pay(Wire):
    """How coins of one unit at one mint pay by a price list.

    `percent` of the listed prices is asked for an order paid with them. `msat` is what one coin
    counts for, by a rate looked up at unix time `at`; both are absent where the unit says its worth
    (sat, msat).
    """

    mint: MintUrl
    unit: str = Field(pattern=r"^[a-z]{1,16}$")
    percent: int = Field(default=100, ge=1, le=10_000)
    msat: int | None = Field(default=None, ge=1, le=MSAT_MAX)
    at: int | None = Field(default=None, ge=0, le=1 << 40)


#: Why a price is what it is: one word, of those in docs/protocol.md or of a later version.
Reason = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
REASONS_MAX: Final = 16


class PricePage(Wire):
    """The content of one page of a price list.

    Without `pays` every announced mint is accepted, in sat and msat, at the listed prices.
    `reasons` say why prices are what they are now, where they move by themselves.
    """

    v: Literal[1] = 1
    seq: int = Field(ge=0, le=1 << 53)
    page: int = Field(ge=0, lt=PAGES_MAX)
    pages: int = Field(ge=1, le=PAGES_MAX)
    root: Hex32
    valid_until: int = Field(ge=0, le=1 << 40)
    models: list[ModelOffer] = Field(max_length=MODELS_PER_PAGE_MAX)
    pays: list[Pay] | None = Field(default=None, max_length=PAYS_MAX)
    reasons: list[Reason] | None = Field(default=None, max_length=REASONS_MAX)

    #: The models as they stand in the event, which is what `root` is taken of.
    _listed: tuple[dict[str, Any], ...] = PrivateAttr(default=())

    @property
    def listed(self) -> tuple[dict[str, Any], ...]:
        """The models as JSON objects, with fields that this version does not know."""
        return self._listed


_PAGE: Final = TypeAdapter(PricePage)


def price_root(models: list[ModelOffer]) -> str:
    """The hash over a whole price list, in its order, stated by every page and the announcement."""
    return _root(_listed(model) for model in models)


def _root(listed: Iterable[dict[str, Any]]) -> str:
    whole = hashlib.sha256()
    for model in listed:
        whole.update(canonical(model) + b"\n")
    return whole.hexdigest()


def _listed(model: ModelOffer) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_none=True)


def price_pages(
    models: list[ModelOffer],
    *,
    seq: int,
    valid_until: int,
    pays: Sequence[Pay] | None = None,
    reasons: Sequence[str] | None = None,
) -> list[PricePage]:
    """The models cut into pages of at most PAGE_BYTES_MAX bytes, each of which has all `pays`.

    Raises RemoteError if there are too many.
    """
    heaps: list[list[ModelOffer]] = [[]]
    size, room = 0, PAGE_BYTES_MAX - 1_000 - len(pays or ()) * PAY_BYTES_MAX
    for model in models:
        length = len(model.as_json().encode()) + 1
        full = size + length > room or len(heaps[-1]) == MODELS_PER_PAGE_MAX
        if full and heaps[-1]:
            heaps.append([])
            size = 0
        heaps[-1].append(model)
        size += length
    if len(heaps) > PAGES_MAX:
        raise RemoteError("the price list has too many pages", code="message-too-large")
    root = price_root(models)
    pages = []
    for n, heap in enumerate(heaps):
        page = PricePage(
            seq=seq,
            page=n,
            pages=len(heaps),
            root=root,
            valid_until=valid_until,
            models=heap,
            pays=None if pays is None else list(pays),
            reasons=None if reasons is None else list(reasons),
        )
        page._listed = tuple(_listed(model) for model in heap)
        pages.append(page)
    return pages


def price_draft(page: PricePage, d: str, created_at: int, expiration: int) -> Draft:
    """The event of one page; `d` is the announcement's."""
    tags = (("d", f"{d}/{page.page}"), ("t", LABEL), ("expiration", str(expiration)))
    return Draft(kinds.PRICE_LIST, page.as_json(), created_at, tags)


def parse_price_page(event: Event) -> PricePage:
    """An event of kind 38424. Raises RemoteError.

    A promise longer than PROMISE_S_MAX is refused: it would pin a price nobody can keep.
    """
    if event.kind != kinds.PRICE_LIST:
        raise RemoteError("not a price list")
    page = parse(_PAGE, event.content)
    page._listed = tuple(json.loads(event.content)["models"])
    if not event.created_at <= page.valid_until <= event.created_at + PROMISE_S_MAX:
        raise RemoteError("the price list promises for too long, or for the past")
    if page.page >= page.pages:
        raise RemoteError("the page's number is beyond the list's end")
    return page


def join_pages(pages: list[PricePage]) -> list[ModelOffer]:
    """All models of a price list whose pages are here. Raises RemoteError if they do not agree."""
    ordered = sorted(pages, key=lambda page: page.page)
    if not ordered or [page.page for page in ordered] != list(range(ordered[0].pages)):
        raise RemoteError("the price list is not complete")
    models = [model for page in ordered for model in page.models]
    root = _root(model for page in ordered for model in page.listed)
    if any(page.root != root for page in ordered):
        raise RemoteError("the price list's root does not match its pages")
    if any(page.pays != ordered[0].pays for page in ordered):
        raise RemoteError("the price list's pages do not agree on how to pay")
    return models


def _number(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16:
        raise RemoteError("a tag that must be a number is none")
    return int(text)


def _validated(kind: TypeAdapter[Announcement], fields: dict[str, object]) -> Announcement:
    try:
        return kind.validate_python(fields)
    except ValueError:
        raise RemoteError("the announcement lacks a tag, or has a wrong one") from None
