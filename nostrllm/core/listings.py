"""Announcements and price lists joined into offers: who sells what, at which price, now.

Anybody may write these kinds, so whatever is foreign, expired, from the future or at odds with the
announcement's root is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nostrllm.core.pays import Coin, coins_taken
from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.announcement import (
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
