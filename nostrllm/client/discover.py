"""Who sells what, at which price, now: announcements and price lists joined into offers.

Anybody may write these kinds, so whatever is foreign, expired, from the future or at odds with the
announcement's root is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from nostrllm.client.world import unheard
from nostrllm.core.pays import Coin, coins_taken
from nostrllm.errors import LocalError, RelayError, RemoteError
from nostrllm.ports import Clock, Filter, Relays
from nostrllm.wire import kinds
from nostrllm.wire.announcement import (
    LABEL,
    Announcement,
    ModelOffer,
    Pay,
    PricePage,
    join_pages,
    parse_announcement,
    parse_price_page,
)
from nostrllm.wire.event import Event

#: An event dated further ahead than this is not believed.
AHEAD_S_MAX: Final = 900
#: How long a catalogue is used before the relays are asked again.
FRESH_S: Final = 30.0
FETCH_S: Final = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offer:
    """One model at one provider, as he signed it.

    `price_event_id` is the price-list page that carries the model: an order pins it. `valid_until`
    is unix seconds. `pays` is what that page says of how to pay.
    """

    announcement: Announcement
    model: ModelOffer
    price_event_id: str
    valid_until: int
    pays: tuple[Pay, ...] | None = None

    @property
    def coins(self) -> dict[tuple[str, str], Coin]:
        """What pays here, by (mint, unit)."""
        return coins_taken(self.pays, self.announcement.mints)

    @property
    def provider(self) -> str:
        """His public key, hex."""
        return self.announcement.pubkey

    @property
    def name(self) -> str:
        """What he calls himself; anybody may call himself anything."""
        return self.announcement.profile.name


@dataclass(frozen=True, slots=True)
class Listing:
    """One provider with every model he sells; `offers` is empty while his price list is not."""

    announcement: Announcement
    offers: tuple[Offer, ...]


def listings(events: Iterable[Event], now: float) -> list[Listing]:
    """What those events (kinds 38421 and 38424, signatures verified) offer at unix time `now`.

    Sorted by name and key. Total: an event that is not ours or not believable adds nothing.
    """
    newest = _newest(event for event in events if event.created_at <= now + AHEAD_S_MAX)
    found = []
    for event in newest.values():
        if event.kind != kinds.ANNOUNCEMENT:
            continue
        try:
            announcement = parse_announcement(event)
        except RemoteError:
            continue
        if announcement.expiration > now:
            found.append(Listing(announcement, _offers(announcement, newest, now)))
    return sorted(found, key=lambda one: (one.announcement.profile.name, one.announcement.pubkey))


def _newest(events: Iterable[Event]) -> dict[str, Event]:
    """The latest version of each address; of two of one second the one with the lower id."""
    newest: dict[str, Event] = {}
    for event in events:
        known = newest.get(event.address)
        if known is None or (event.created_at, known.id) > (known.created_at, event.id):
            newest[event.address] = event
    return newest


def _offers(announcement: Announcement, newest: dict[str, Event], now: float) -> tuple[Offer, ...]:
    """The provider's models, if his pages are complete, current and those of his root."""
    try:
        pages = _pages(announcement, newest)
        join_pages([page for _, page in pages])
    except RemoteError:
        return ()
    if any(page.root != announcement.price_root for _, page in pages):
        return ()
    return tuple(
        Offer(announcement, model, event.id, page.valid_until, _pays(page))
        for event, page in pages
        if page.valid_until > now
        for model in page.models
    )


def _pays(page: PricePage) -> tuple[Pay, ...] | None:
    return None if page.pays is None else tuple(page.pays)


def _pages(announcement: Announcement, newest: dict[str, Event]) -> list[tuple[Event, PricePage]]:
    address = f"{kinds.PRICE_LIST}:{announcement.pubkey}:{announcement.d}/"
    first = newest.get(f"{address}0")
    if first is None:
        return []
    pages = [(first, parse_price_page(first))]
    for number in range(1, pages[0][1].pages):
        event = newest.get(f"{address}{number}")
        if event is not None:
            pages.append((event, parse_price_page(event)))
    return pages


def chosen(wanted: str, among: Iterable[Announcement]) -> str:
    """The public key of the provider that `wanted`, his key (hex) or his name, stands for.

    Raises LocalError `provider-unknown` when none has it, or several have: a name is not owned.
    """
    keys = {one.pubkey for one in among if wanted in (one.pubkey, one.profile.name)}
    if len(keys) > 1:
        raise LocalError("several providers have that name: use a key", code="provider-unknown")
    if not keys:
        raise LocalError(
            "that provider offers nothing on these relays now", code="provider-unknown"
        )
    return keys.pop()


class Catalogue:
    """The market as the relays show it, asked again when what is known has grown old."""

    def __init__(self, relays: Relays, clock: Clock) -> None:
        self._relays = relays
        self._clock = clock
        self._events: list[Event] = []
        self._asked_at: float | None = None

    async def listings(self, *, refresh: bool = False) -> list[Listing]:
        """Every provider whose heartbeat is alive.

        Raises RelayError when there is none because no relay answers.
        """
        asked = self._asked_at
        if refresh or asked is None or self._clock.monotonic() - asked > FRESH_S:
            await self._fetch()
        return listings(self._events, self._clock.now())

    async def offers(self, *, refresh: bool = False) -> list[Offer]:
        """Every model of every such provider. Raises RelayError."""
        return [offer for one in await self.listings(refresh=refresh) for offer in one.offers]

    async def _fetch(self) -> None:
        wanted = [
            Filter(kinds=(kinds.ANNOUNCEMENT,), tags={"t": (LABEL,)}),
            Filter(kinds=(kinds.PRICE_LIST,), tags={"t": (LABEL,)}),
        ]
        began = self._clock.monotonic()
        self._events = await self._relays.fetch(wanted, timeout_s=FETCH_S)
        self._asked_at = self._clock.monotonic() if self._events else None
        why = "" if self._events else unheard(self._relays, self._clock, began)
        if why:
            raise RelayError(f"no relay answers ({why})")
