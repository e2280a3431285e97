"""`ports.Relays` on raw WebSockets.

Connections are keyed by address and identity: one without a key to each relay, which publishes and
reads in public, and one for every key that subscribes with `signer`, so that a relay that asks for
AUTH (NIP-42) learns of each key by itself. Own events are echoed: what we publish comes back on a
subscription that asks for it, as it would to anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType

from nostrllm.adapters.relay_answers import Verdict
from nostrllm.adapters.relay_connection import RelayConnection, Shared
from nostrllm.adapters.relay_intake import Basket, Counts, Inbox, Intake
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_request import Request
from nostrllm.adapters.relay_wire import event_frame, needs_auth
from nostrllm.errors import ConfigError, LocalError, RemoteError
from nostrllm.ports import Clock, Filter, Keyring, Published, RelayStatus, Signer
from nostrllm.wire.event import Event
from nostrllm.wire.kinds import is_ephemeral
from nostrllm.wire.places import relay_url

_Key = tuple[str, str | None]


class WebsocketRelays:
    """Several relays at once; use it as `async with`, in one task.

    Subscriptions deliver each event once as long as its id is among the last `seen_max` ones.
    """

    def __init__(
        self,
        urls: Sequence[str],
        keyring: Keyring,
        clock: Clock,
        limits: RelayLimits | None = None,
    ) -> None:
        """`urls`: the configured relays, connected at once and for good. Raises ConfigError."""
        self._limits = limits or RelayLimits()
        self._clock = clock
        self._counts = Counts()
        self._nobody = keyring.signer()
        intake = Intake(keyring, self._limits)
        self._shared = Shared(keyring, clock, self._limits, intake, self._counts)
        try:
            self._urls = tuple(dict.fromkeys(relay_url(url) for url in urls))
        except RemoteError as exc:
            raise ConfigError(exc.message) from None
        self._connections: dict[_Key, RelayConnection] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._inboxes: set[Inbox] = set()
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> WebsocketRelays:
        """Begin to connect; returns at once."""
        group = await asyncio.TaskGroup().__aenter__()
        self._group = group
        self._reaper = group.create_task(self._reap())
        for url in self._urls:
            self._start((url, None), None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection; returns when no task and no socket is left."""
        group, self._group = self._group, None
        for inbox in self._inboxes:
            inbox.close()
        self._reaper.cancel()
        for task in self._tasks.values():
            task.cancel()
        self._connections.clear()
        self._tasks.clear()
        if group is not None:
            # not the block's error: the group would wrap it into an ExceptionGroup
            await group.__aexit__(None, None, None)

    # publishing

    async def publish(
        self, event: Event, *, to: Sequence[str] = (), timeout_s: float = 5.0
    ) -> Published:
        """Send to every relay of `to` (default: all configured) and wait for their OK.

        A relay that wants AUTH gets the event once more: through the authenticated connection of a
        subscription with its author's key, else through one with a key made for that. Ephemeral
        events count as sent when no OK comes, for some relays never answer them.
        """
        found = self._connections_to(to)
        if len(found) == 1:  # the usual reply: saves the task
            ((url, connection),) = found.items()
            reasons = {url: (await self._publish(connection, event, timeout_s)).reason}
        else:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    url: group.create_task(self._publish(connection, event, timeout_s))
                    for url, connection in found.items()
                }
            reasons = {url: task.result().reason for url, task in tasks.items()}
        ok = tuple(url for url, reason in reasons.items() if not reason)
        return Published(ok, {url: reason for url, reason in reasons.items() if reason})

    async def _publish(
        self, connection: RelayConnection | None, event: Event, timeout_s: float
    ) -> Verdict:
        if connection is None:
            return Verdict("no relay address, or too many connections")
        verdict = None
        try:
            async with asyncio.timeout(timeout_s):
                verdict = await connection.publish(event)
                if needs_auth(verdict.reason):
                    known = self._authenticating(connection.url, event.pubkey)
                    if known is not None:
                        verdict = await known.publish(event)
        except TimeoutError:
            if verdict is not None:
                return verdict
            if not connection.connected:
                return Verdict(f"not connected: {connection.error or 'no answer'}")
            return Verdict("" if is_ephemeral(event.kind) else "no answer")
        return verdict

    def _authenticating(self, url: str, pubkey: str) -> RelayConnection | None:
        """The connection to `url` with the author's key, or with one that is nobody's.

        Through another key of ours the relay would learn that the two are one person.
        """
        return self._connections.get((url, pubkey)) or self._connection(url, self._nobody)

    async def cast(self, event: Event, *, to: Sequence[str] = ()) -> None:
        """Send without waiting for an OK (chunks, ticks); a relay that is down misses it."""
        frame = event_frame(event)
        connections = list({c for c in self._connections_to(to).values() if c is not None})
        if len(connections) == 1:  # saves the task on the way of every chunk
            await connections[0].cast(frame)
            return
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(connection.cast(frame))

    # reading

    @asynccontextmanager
    async def subscribe(
        self,
        name: str,
        filters: Sequence[Filter],
        *,
        to: Sequence[str] = (),
        signer: Signer | None = None,
        stored_s: float | None = None,
    ) -> AsyncIterator[Inbox]:
        """A live subscription on `to` (default: all configured), kept alive until the block ends.

        The block begins when every reachable relay has sent what it had, or after `settle_s`.
        Without `stored_s` the filters go out as they stand, and there is no catch-up.
        """
        inbox = Inbox(name, filters, self._limits)
        connections = {c for c in self._connections_to(to, signer).values() if c is not None}
        asked = [(c, Request(inbox, filters, stored_s=stored_s)) for c in connections]
        self._inboxes.add(inbox)
        try:
            for connection, request in asked:
                connection.add(request)
            await self._settle(asked)
            yield inbox
        finally:
            inbox.close()
            self._inboxes.discard(inbox)
            for connection, request in asked:
                connection.close(request)
                if signer is not None and not connection.subscriptions:
                    self._stop((connection.url, signer.pubkey))

    async def _settle(self, asked: Sequence[tuple[RelayConnection, Request]]) -> None:
        """Give the relays a moment to answer."""

        async def one(connection: RelayConnection, request: Request) -> None:
            if await connection.ready(patience=1):
                await request.answered.wait()

        try:
            async with asyncio.timeout(self._limits.settle_s), asyncio.TaskGroup() as group:
                for connection, request in asked:
                    group.create_task(one(connection, request))
        except TimeoutError:
            self._counts["unsettled"] += 1

    async def fetch(
        self, filters: Sequence[Filter], *, to: Sequence[str] = (), timeout_s: float = 5.0
    ) -> list[Event]:
        """Stored events from all relays of `to`, verified, each once, newest first.

        A relay is done with its EOSE or CLOSED; what it holds beyond its own limit is not asked.
        """
        basket = Basket(filters, self._limits)
        connections = {c for c in self._connections_to(to).values() if c is not None}

        async def one(connection: RelayConnection) -> None:
            if not await connection.ready():
                return
            request = Request(basket, filters, once=True)
            try:
                connection.add(request)
                await request.answered.wait()
            finally:
                connection.close(request)

        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(one(connection))
        except TimeoutError:
            self._counts["fetch-timeout"] += 1
        return basket.newest_first()

    # telling

    def status(self) -> list[RelayStatus]:
        """How each relay stands; the connections of several keys to one relay are summed up."""
        by_url: dict[str, list[RelayConnection]] = {url: [] for url in self._urls}
        for (url, _), connection in self._connections.items():
            by_url.setdefault(url, []).append(connection)
        now = self._clock.monotonic()
        return [_status(url, connections, now) for url, connections in by_url.items()]

    def counts(self) -> Mapping[str, int]:
        """What came in since the start, by what became of it: for metrics."""
        return dict(self._counts)

    # connections

    def _connections_to(
        self, urls: Sequence[str], signer: Signer | None = None
    ) -> dict[str, RelayConnection | None]:
        """A connection for each of `urls`, or of those configured; None where it may not be."""
        return {url: self._connection(url, signer) for url in urls or self._urls}

    def _connection(self, url: str, signer: Signer | None) -> RelayConnection | None:
        """The connection to `url` for this key, opened if need be; None when it may not be."""
        if self._group is None:
            raise LocalError("the relays are not open")
        try:
            key = (relay_url(url), None if signer is None else signer.pubkey)
        except RemoteError:
            return None
        found = self._connections.get(key)
        if found is not None:
            return found
        if len(self._connections) >= self._limits.connections_max and not self._evict():
            self._counts["too-many-connections"] += 1
            return None
        return self._start(key, signer)

    def _start(self, key: _Key, signer: Signer | None) -> RelayConnection | None:
        if self._group is None:
            return None
        connection = RelayConnection(key[0], signer, self._shared)
        self._connections[key] = connection
        self._tasks[key] = self._group.create_task(connection.run())
        return connection

    def _stop(self, key: _Key) -> None:
        self._connections.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def _spare(self) -> Iterable[tuple[float, _Key]]:
        """Since when each connection that need not be is idle."""
        for key, connection in self._connections.items():
            idle_since = connection.idle_since
            if idle_since is not None and not (key[1] is None and key[0] in self._urls):
                yield idle_since, key

    def _evict(self) -> bool:
        """Close the connection that has been idle longest; False when none is."""
        oldest = min(self._spare(), key=lambda spare: spare[0], default=None)
        if oldest is None:
            return False
        self._stop(oldest[1])
        return True

    async def _reap(self) -> None:
        """Close what has been idle for long."""
        while True:
            await self._clock.sleep(self._limits.idle_s / 4)
            limit = self._clock.monotonic() - self._limits.idle_s
            for idle_since, key in list(self._spare()):
                if idle_since <= limit:
                    self._stop(key)


def _status(url: str, connections: Sequence[RelayConnection], now: float) -> RelayStatus:
    heard = [c.heard_at for c in connections if c.heard_at is not None]
    return RelayStatus(
        url=url,
        connected=any(c.connected for c in connections),
        subscriptions=sum(c.subscriptions for c in connections),
        heard_s=now - max(heard) if heard else None,
        reconnects=sum(c.reconnects for c in connections),
        error=next((c.error for c in connections if c.error), None),
    )
