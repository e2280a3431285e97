"""Relays that lose, repeat, delay and reorder, and everybody's connections to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nostrllm.ports import Filter, Published, RelayStatus, Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Event
from tests.sim.life import Life
from tests.sim.weather import Weather

RELAYS = ("wss://one.example", "wss://two.example")
CATCH_UP_S = 40.0


class SimSubscription:
    """ports.Subscription. Repeats come through: what the adapter remembers has an end too."""

    def __init__(self, filters: Sequence[Filter], stored_s: float | None) -> None:
        self.filters = filters
        self.stored_s = stored_s
        self.seen: set[str] = set()
        #: The number of the newest event that arrived, in the order in which they were sent.
        self.newest = 0
        #: What each relay has for it.
        self.stored: dict[str, dict[str, Event]] = {url: {} for url in RELAYS}
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._wanted: dict[str, bool] = {}

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self._queue.get()

    def put(self, event: Event) -> None:
        self.seen.add(event.id)
        self._queue.put_nowait(event)

    def wants(self, event: Event) -> bool:
        wanted = self._wanted.get(event.id)
        if wanted is None:
            wanted = any(_matches(wish, event) for wish in self.filters)
            self._wanted[event.id] = wanted
        return wanted


def _matches(wanted: Filter, event: Event) -> bool:
    if wanted.kinds and event.kind not in wanted.kinds:
        return False
    if wanted.authors and event.pubkey not in wanted.authors:
        return False
    return all(
        not set(values).isdisjoint(event.values(name)) for name, values in wanted.tags.items()
    )


@dataclass
class Network:
    """What the relays keep, and who listens. A relay that is down forgets who listened."""

    weather: Weather
    rng: random.Random
    stored: dict[str, dict[str, Event]] = field(default_factory=lambda: {url: {} for url in RELAYS})
    listeners: dict[int, tuple[str, SimSubscription]] = field(default_factory=dict)
    _last: int = 0
    _sent: int = 0

    def cut(self, party: str, url: str) -> bool:
        """Is there no way from a party to a relay now?"""
        weather = self.weather
        if weather.is_down(url):
            weather.happened["relay_down"] += 1
            return True
        if weather.is_down(f"{party}>{url}"):
            weather.happened["partition"] += 1
            return True
        return False

    def later(self, most_s: float, subscription: SimSubscription, event: Event) -> None:
        """Deliver an event after a delay; sometimes a long one."""
        delay = self.rng.uniform(0.001, most_s)
        if self.weather.draw("delay"):
            delay += self.rng.uniform(0, 20.0)
        self._sent += 1
        loop = asyncio.get_running_loop()
        loop.call_later(delay, self._arrive, self._sent, subscription, event)

    def _arrive(self, number: int, subscription: SimSubscription, event: Event) -> None:
        self.weather.happened["reorder"] += number < subscription.newest
        subscription.newest = max(number, subscription.newest)
        subscription.put(event)

    def accept(self, url: str, event: Event) -> None:
        """An event reaches a relay, which stores it and passes it on."""
        if self.weather.is_down(url):
            return
        is_kept = not kinds.is_ephemeral(event.kind)
        if is_kept:
            self.stored[url][event.id] = event
        for party, subscription in list(self.listeners.values()):
            if subscription.wants(event):
                if is_kept:
                    subscription.stored[url][event.id] = event
                self._pass_on(party, url, subscription, event)

    def _pass_on(self, party: str, url: str, subscription: SimSubscription, event: Event) -> None:
        if self.cut(party, url):
            return
        if not self.weather.draw("loss"):
            self.later(0.2, subscription, event)
        if self.weather.draw("replay"):
            self.later(5.0, subscription, event)

    def listen(self, party: str, subscription: SimSubscription) -> int:
        """Begin to pass on what a subscription wants, and look regularly for what it missed."""
        self._last += 1
        self.listeners[self._last] = (party, subscription)
        for url, events in self.stored.items():
            found = {n: event for n, event in events.items() if subscription.wants(event)}
            subscription.stored[url] = found
        if subscription.stored_s is not None:
            self._catch_up(self._last)
        return self._last

    def _catch_up(self, number: int) -> None:
        if number not in self.listeners:
            return
        party, subscription = self.listeners[number]
        draw = self.weather.draw
        for url in RELAYS:
            if self.cut(party, url):
                continue
            for event in subscription.stored[url].values():
                missed = event.id not in subscription.seen or draw("replay_stored")
                if missed and not draw("loss"):
                    subscription.seen.add(event.id)
                    self.later(0.5, subscription, event)
        loop = asyncio.get_running_loop()
        loop.call_later(CATCH_UP_S * self.rng.uniform(0.5, 1.0), self._catch_up, number)


class SimRelays:
    """ports.Relays for one party; `life` is the provider's, or one that does not end."""

    def __init__(self, network: Network, party: str, life: Life) -> None:
        self._network = network
        self._party = party
        self._life = life

    async def publish(
        self, event: Event, *, to: Sequence[str] = (), timeout_s: float = 5.0
    ) -> Published:
        """See ports.Relays."""
        self._life.boundary("before publish")
        ok: list[str] = []
        failed: dict[str, str] = {}
        wait_s = 0.05
        for url in to or RELAYS:
            error, waited_s = self._send(event, url, timeout_s)
            wait_s = max(wait_s, waited_s)
            if error:
                failed[url] = error
            else:
                ok.append(url)
        self._life.boundary("after publish")
        await asyncio.sleep(wait_s)
        self._life.check()
        return Published(tuple(ok), failed)

    def _send(self, event: Event, url: str, timeout_s: float) -> tuple[str, float]:
        network = self._network
        if network.cut(self._party, url):
            return "no connection", 0.0
        if network.weather.draw("loss"):
            return "no OK in time", timeout_s
        network.accept(url, event)  # a relay says OK only of what it has stored
        if network.weather.draw("loss"):
            return "no OK in time", timeout_s
        return "", network.rng.uniform(0.0, 0.4)

    async def cast(self, event: Event, *, to: Sequence[str] = ()) -> None:
        """See ports.Relays."""
        self._life.boundary("before cast")
        for url in to or RELAYS:
            self._send(event, url, 0.0)
        self._life.boundary("after cast")

    @asynccontextmanager
    async def subscribe(
        self,
        name: str,
        filters: Sequence[Filter],
        *,
        to: Sequence[str] = (),
        signer: Signer | None = None,
        stored_s: float | None = None,
    ) -> AsyncIterator[SimSubscription]:
        """See ports.Relays."""
        self._life.check()
        subscription = SimSubscription(filters, stored_s)
        number = self._network.listen(self._party, subscription)
        try:
            yield subscription
        finally:
            del self._network.listeners[number]

    async def fetch(
        self, filters: Sequence[Filter], *, to: Sequence[str] = (), timeout_s: float = 5.0
    ) -> list[Event]:
        """See ports.Relays."""
        self._life.check()
        await asyncio.sleep(self._network.rng.uniform(0.0, timeout_s))
        self._life.check()
        found: dict[str, Event] = {}
        for url in to or RELAYS:
            if not self._network.cut(self._party, url):
                for event in self._network.stored[url].values():
                    if any(_matches(wanted, event) for wanted in filters):
                        found[event.id] = event
        return sorted(found.values(), key=lambda event: (-event.created_at, event.id))

    def status(self) -> list[RelayStatus]:
        """See ports.Relays."""
        return [RelayStatus(url, True, 1, 0.0, 0, None) for url in RELAYS]
