"""A relay whose manners a test decides: honest by default, every step can be overridden."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import websockets
from websockets.exceptions import ConnectionClosed

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_wire import Matcher
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.ports import Filter, Subscription
from nostrllm.wire.event import Event, parse_event
from nostrllm.wire.kinds import is_ephemeral

CLOCK = SystemClock()
KEYRING = LocalKeyring(CLOCK)

#: Everything fast, and no probe unless a test turns it on.
FAST = RelayLimits(
    connect_timeout_s=2.0,
    close_timeout_s=0.2,
    send_timeout_s=0.5,
    backoff_s=0.01,
    backoff_s_max=0.05,
    closed_backoff_s=0.01,
    closed_backoff_s_max=0.05,
    watch_s=0.01,
    probe_s=3_600.0,
)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return when the condition holds; fails after the timeout."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - a condition of any kind
            await asyncio.sleep(0.005)


async def first(inbox: Subscription, timeout_s: float = 10.0) -> Event:
    """The next event; fails after the timeout."""
    async with asyncio.timeout(timeout_s):
        return await anext(inbox)


class Peer:
    """One client's connection."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.requests: dict[str, Matcher] = {}

    async def say(self, *frame: object) -> None:
        """Send a frame, or a text as it is."""
        raw = frame[0] if len(frame) == 1 and isinstance(frame[0], str) else json.dumps(frame)
        await self.socket.send(raw)


class ScriptedRelay:
    """A relay in memory; `frames` is everything clients said, in order."""

    def __init__(self) -> None:
        self.frames: list[list[Any]] = []
        self.peers: list[Peer] = []
        self.connections = 0
        self.stored: list[Event] = []

    async def __aenter__(self) -> Self:
        self._server = await websockets.serve(self._serve, "127.0.0.1", 0, close_timeout=0.2)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where it listens."""
        sockets: Any = self._server.sockets
        return f"ws://127.0.0.1:{next(iter(sockets)).getsockname()[1]}"

    def said(self, verb: str) -> list[list[Any]]:
        """The frames of one kind."""
        return [frame for frame in self.frames if frame[0] == verb]

    async def broadcast(self, event: Event) -> None:
        """Send to whoever asked for it."""
        for peer in self.peers:
            for name, matcher in list(peer.requests.items()):
                if matcher.matches(event):
                    await peer.say("EVENT", name, event.as_dict())

    async def on_open(self, peer: Peer) -> None:
        """A client came."""

    async def on_req(self, peer: Peer, name: str, filters: list[dict[str, Any]]) -> None:
        """It asks: stored events, then EOSE."""
        matcher = peer.requests[name] = Matcher([_filter(asked) for asked in filters])
        limit = min(asked.get("limit", 500) for asked in filters)
        for event in self.stored[:limit]:
            if matcher.matches(event):
                await peer.say("EVENT", name, event.as_dict())
        await peer.say("EOSE", name)

    async def on_event(self, peer: Peer, event: Event) -> None:
        """It publishes: OK, then to everybody."""
        if not is_ephemeral(event.kind):
            self.stored.append(event)
        await peer.say("OK", event.id, True, "")
        await self.broadcast(event)

    async def on_auth(self, peer: Peer, event: Event) -> None:
        """It answers a challenge."""
        await peer.say("OK", event.id, True, "")

    async def _serve(self, socket: Any) -> None:
        peer = Peer(socket)
        self.connections += 1
        self.peers.append(peer)
        try:
            await self.on_open(peer)
            while True:
                await self._hear(peer, json.loads(await socket.recv()))
        except ConnectionClosed:
            return
        finally:
            self.peers.remove(peer)

    async def _hear(self, peer: Peer, frame: list[Any]) -> None:
        self.frames.append(frame)
        match frame:
            case ["REQ", name, *filters]:
                await self.on_req(peer, name, filters)
            case ["EVENT", raw]:
                await self.on_event(peer, parse_event(raw))
            case ["AUTH", raw]:
                await self.on_auth(peer, parse_event(raw))
            case ["CLOSE", name]:
                peer.requests.pop(name, None)


def _filter(raw: dict[str, Any]) -> Filter:
    tags = {name[1:]: tuple(values) for name, values in raw.items() if name.startswith("#")}
    return Filter(
        kinds=tuple(raw.get("kinds", ())),
        authors=tuple(raw.get("authors", ())),
        ids=tuple(raw.get("ids", ())),
        tags=tags,
        since=raw.get("since"),
        until=raw.get("until"),
    )
