"""A model's prices as they change: lists as they are published, ticks in between.

A tick is the provider's word for this moment; what an order pays is what its list says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from nostrllm.client.world import Square
from nostrllm.core.listings import Listing, listings
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter
from nostrllm.wire import kinds
from nostrllm.wire.announcement import LABEL, Price, parse_price_page
from nostrllm.wire.event import Event
from nostrllm.wire.tick import parse_tick

#: How far back lists are read: no announcement lives longer without being published again.
STORED_S: Final = 7_200
#: A tick is news for so long.
TICK_S: Final = 120
#: Providers that are kept in mind; of more, those that were heard first are forgotten.
PROVIDERS_MAX: Final = 2_000
#: Events of one of them: an announcement, and the pages of a list.
EVENTS_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Seen:
    """A price that is new: of a list, which `price_event` names, or of a tick, where that is None.

    `wait_s`: how long an order would wait, as a tick says. `at` is when it was signed.
    """

    provider: str
    name: str
    price: Price
    at: int
    reasons: tuple[str, ...] = ()
    wait_s: int | None = None
    price_event: str | None = None


class PriceWatch:
    """What is known of each provider of one model. `provider` (key, hex): of this one alone."""

    def __init__(self, model: str, provider: str | None = None) -> None:
        self._model = model
        self._provider = provider
        self._events: dict[str, dict[str, Event]] = {}
        self._listed: dict[str, Price] = {}
        self._told: dict[str, tuple[Price, int]] = {}

    def heard(self, event: Event, now: float) -> Iterator[Seen]:
        """What an event (verified) says that is new. Nothing for what is not ours or not alive."""
        if self._provider in (None, event.pubkey):
            yield from (
                self._tick(event, now) if event.kind == kinds.TICK else self._list(event, now)
            )

    def _list(self, event: Event, now: float) -> Iterator[Seen]:
        if event.pubkey not in self._events and len(self._events) == PROVIDERS_MAX:
            self._forget(next(iter(self._events)))
        known = self._events.setdefault(event.pubkey, {})
        before = known.get(event.address)
        if before is not None and before.created_at > event.created_at:
            return
        if before is None and len(known) == EVENTS_MAX:
            return
        known[event.address] = event
        for listing in self._alive(event.pubkey, now):
            for offer in listing.offers:
                price = offer.model.price
                if offer.model.id != self._model or self._listed.get(event.pubkey) == price:
                    continue
                self._listed[event.pubkey] = price
                self._told.pop(event.pubkey, None)
                page = next(one for one in known.values() if one.id == offer.price_event_id)
                reasons = tuple(parse_price_page(page).reasons or ())
                yield Seen(
                    *(event.pubkey, offer.name, price, page.created_at, reasons),
                    price_event=page.id,
                )

    def _tick(self, event: Event, now: float) -> Iterator[Seen]:
        if abs(now - event.created_at) > TICK_S or event.pubkey not in self._listed:
            return
        try:
            tick = parse_tick(event)
        except RemoteError:
            return
        for listing in self._alive(event.pubkey, now):
            if tick.seq < listing.announcement.price_seq:
                continue
            for live in tick.models:
                told = (live.price, live.wait_s)
                if live.id == self._model and self._told.get(event.pubkey) != told:
                    self._told[event.pubkey] = told
                    name, why = listing.announcement.profile.name, tuple(tick.reasons or ())
                    yield Seen(
                        *(event.pubkey, name, live.price, event.created_at, why),
                        wait_s=live.wait_s,
                    )

    def _alive(self, provider: str, now: float) -> list[Listing]:
        return listings(self._events[provider].values(), now)

    def _forget(self, provider: str) -> None:
        del self._events[provider]
        self._listed.pop(provider, None)
        self._told.pop(provider, None)


async def watched(square: Square, model: str, provider: str | None = None) -> AsyncIterator[Seen]:
    """The prices of a model now, and then each that is new, for ever."""
    watch = PriceWatch(model, provider)
    authors = () if provider is None else (provider,)
    tags = {"t": (LABEL,)}
    wanted = [
        Filter(kinds=(kind,), authors=authors, tags=tags)
        for kind in (kinds.ANNOUNCEMENT, kinds.PRICE_LIST, kinds.TICK)
    ]
    async with square.relays.subscribe("prices", wanted, stored_s=STORED_S) as events:
        async for event in events:
            for seen in watch.heard(event, square.clock.now()):
                yield seen
