"""The way of an event from a relay's message to a subscriber's queue.

The order is by cost: whether it was seen, asked for, and fits is settled before the curve is
touched. A seen id is one whose signature was verified, so a forgery that goes ahead under the id
of a true event keeps nobody from getting that one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_wire import Matcher
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter, Keyring
from nostrllm.wire.event import Event, parse_event


class Fate(StrEnum):
    """What became of an event that came in."""

    NEW = "new"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    GARBAGE = "garbage"
    UNSOLICITED = "unsolicited"
    FORGED = "forged"


#: What an honest relay never sends.
STRIKES = frozenset({Fate.GARBAGE, Fate.UNSOLICITED, Fate.FORGED})


class Sink(Protocol):
    """Where the events of one request go."""

    matcher: Matcher

    def has(self, number: str) -> bool:
        """Has an event of this id been put already?"""

    def full(self, size_bytes: int) -> bool:
        """Is there no room for so much more?"""

    def put(self, event: Event, size_bytes: int) -> None:
        """Take a verified event."""


class Intake:
    """Parses and verifies events once, however many relays and subscriptions bring them."""

    __slots__ = ("_keyring", "_limits", "_verified")

    def __init__(self, keyring: Keyring, limits: RelayLimits) -> None:
        self._keyring = keyring
        self._limits = limits
        self._verified = _Verified(limits.verified_max, limits.verified_bytes_max)

    def take(self, raw: Mapping[str, Any], size_bytes: int, sink: Sink) -> Fate:
        """Put the event into the sink if it is new there, asked for, and true.

        `size_bytes`: the length of the message it came in.
        """
        number, kind, kinds = raw.get("id"), raw.get("kind"), sink.matcher.kinds
        if not isinstance(number, str) or not isinstance(kind, int):
            return Fate.GARBAGE
        if sink.has(number):
            return Fate.DUPLICATE
        if kinds is not None and kind not in kinds:
            return Fate.UNSOLICITED
        if size_bytes > self._limits.event_bytes_max or sink.full(size_bytes):
            return Fate.DROPPED
        fate, event = self._check(number, raw, sink.matcher)
        if event is not None:
            self._verified.add(event, size_bytes)
            sink.put(event, size_bytes)
        return fate

    def _check(
        self, number: str, raw: Mapping[str, Any], matcher: Matcher
    ) -> tuple[Fate, Event | None]:
        """The event if it is wanted and true; a known id gives the event that was verified."""
        event = known = self._verified.get(number)
        try:
            event = event or parse_event(raw)
        except RemoteError:
            return Fate.GARBAGE, None
        if not matcher.matches(event):
            return Fate.UNSOLICITED, None
        if known is None and not self._keyring.verify(event):
            return Fate.FORGED, None
        return Fate.NEW, event


class _Verified:
    """The last verified events by id, bounded in number and in bytes."""

    __slots__ = ("_bytes", "_bytes_max", "_events", "_max")

    def __init__(self, most: int, bytes_max: int) -> None:
        self._events: OrderedDict[str, tuple[Event, int]] = OrderedDict()
        self._max = most
        self._bytes = 0
        self._bytes_max = bytes_max

    def get(self, number: str) -> Event | None:
        found = self._events.get(number)
        return None if found is None else found[0]

    def add(self, event: Event, size_bytes: int) -> None:
        if event.id in self._events:
            return
        self._events[event.id] = (event, size_bytes)
        self._bytes += size_bytes
        while len(self._events) > self._max or self._bytes > self._bytes_max:
            _, (_, size) = self._events.popitem(last=False)
            self._bytes -= size


class Seen:
    """The last ids that were put, each re-sighting moving its id to the young end."""

    __slots__ = ("_ids", "_max")

    def __init__(self, most: int) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._max = most

    def has(self, number: str) -> bool:
        """Is the id among them?"""
        if number not in self._ids:
            return False
        self._ids.move_to_end(number)
        return True

    def add(self, number: str) -> None:
        """Remember the id, forgetting the one that was seen longest ago."""
        self._ids[number] = None
        if len(self._ids) > self._max:
            self._ids.popitem(last=False)


class Inbox:
    """A live subscription's queue: `ports.Subscription`, filled from several relays.

    When its reader lags, new events are dropped and counted and their ids stay unknown, so that
    the next catch-up brings them again.
    """

    def __init__(self, name: str, filters: Sequence[Filter], limits: RelayLimits) -> None:
        self.name = name
        self.matcher = Matcher(filters)
        self._seen = Seen(limits.seen_max)
        self._events: deque[tuple[Event, int]] = deque()
        self._max = limits.queue_max
        self._bytes = 0
        self._bytes_max = limits.queue_bytes_max
        self._filled = asyncio.Event()
        self._closed = False

    def has(self, number: str) -> bool:
        """Has an event of this id been put already?"""
        return self._seen.has(number)

    def full(self, size_bytes: int) -> bool:
        """Is there no room for so much more?"""
        return len(self._events) >= self._max or self._bytes + size_bytes > self._bytes_max

    def put(self, event: Event, size_bytes: int) -> None:
        """Queue a verified event."""
        self._seen.add(event.id)
        self._events.append((event, size_bytes))
        self._bytes += size_bytes
        self._filled.set()

    def close(self) -> None:
        """End the iteration; what is still queued is not delivered."""
        self._closed = True
        self._events.clear()
        self._filled.set()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Event:
        """The next event, however long it takes; ends when the subscription's block does."""
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        event, size_bytes = self._events.popleft()
        self._bytes -= size_bytes
        return event


class Basket:
    """What one `fetch` collects from all its relays, each event once, up to a bound."""

    def __init__(self, filters: Sequence[Filter], limits: RelayLimits) -> None:
        self.matcher = Matcher(filters)
        self._events: dict[str, Event] = {}
        self._max = limits.fetch_events_max
        self._bytes = 0
        self._bytes_max = limits.fetch_bytes_max

    def has(self, number: str) -> bool:
        """Is it in here?"""
        return number in self._events

    def full(self, size_bytes: int) -> bool:
        """Is there no room for so much more?"""
        return len(self._events) >= self._max or self._bytes + size_bytes > self._bytes_max

    def put(self, event: Event, size_bytes: int) -> None:
        """Keep a verified event."""
        self._events[event.id] = event
        self._bytes += size_bytes

    def newest_first(self) -> list[Event]:
        """All of them; of one second, the lower id first (NIP-01)."""
        return sorted(self._events.values(), key=lambda event: (-event.created_at, event.id))


Counts = Counter[str]
