"""A plain conversation with anybody, from the identity key (NIP-17).

What any Nostr client can do, so that a provider can be tried the way a stranger would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from nostrllm.client.world import Square
from nostrllm.errors import RelayError, RemoteError
from nostrllm.ports import Filter, Signer, Subscription
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, rumor
from nostrllm.wire.places import relay_url

#: Gift wraps are dated back by up to two days (NIP-59).
STORED_S: Final = 2 * 86_400 + 3_600
RELAYS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Message:
    """One direct message; `created_at` is the author's."""

    id: str
    author: str
    text: str
    created_at: int


class Conversation:
    """Messages to and from one person while the block of `converse` lasts."""

    def __init__(self, square: Square, identity: Signer, peer: str, inbox: Subscription) -> None:
        self._square = square
        self._identity = identity
        self._peer = peer
        self._inbox = inbox
        self._since = square.now_s() - 2  # clocks differ by a little
        self._seen: set[str] = set()

    async def send(self, text: str) -> Message:
        """Send `text` to the peer's DM relays. Raises RelayError when no relay took it."""
        now = self._square.now_s()
        draft = Draft(kinds.DM, text, now, (("p", self._peer),))
        message = rumor(draft, self._identity.pubkey)
        relays = await dm_relays(self._square, self._peer)
        await self._square.publish(await self._identity.wrap(message, self._peer), relays)
        return Message(message.id, message.pubkey, text, now)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """The peer's messages since the conversation began, as they come, each once."""
        async for wrap in self._inbox:
            message = await self._read(wrap)
            if message is not None and message.id not in self._seen:
                self._seen.add(message.id)
                yield message

    async def replies(self, wait_s: float) -> AsyncIterator[Message]:
        """The peer's messages until none has come for `wait_s`."""
        messages = aiter(self)
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    message = await anext(messages)
            except (TimeoutError, StopAsyncIteration):
                return
            yield message

    async def _read(self, wrap: Event) -> Message | None:
        try:
            inner = await self._identity.unwrap(wrap)
        except RemoteError:
            return None
        old = inner.created_at < self._since
        if inner.kind != kinds.DM or inner.pubkey != self._peer or old:
            return None
        return Message(inner.id, inner.pubkey, inner.content, inner.created_at)


@asynccontextmanager
async def converse(square: Square, identity: Signer, peer: str) -> AsyncIterator[Conversation]:
    """Listen for `peer` where the world knows that we read. Raises RelayError."""
    urls = await announce_relays(square, identity)
    wanted = Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (identity.pubkey,)})
    subscription = square.relays.subscribe(
        "dm", [wanted], to=urls, signer=identity, stored_s=STORED_S
    )
    async with subscription as inbox:
        yield Conversation(square, identity, peer, inbox)


async def announce_relays(square: Square, identity: Signer) -> tuple[str, ...]:
    """Publish where we read messages (10050, 10002) unless that was said before; returns where.

    Without kind 10050 a NIP-17 client must not write to us. What another program of the same
    identity has published is left as it is, and read as well. Raises RelayError.
    """
    urls = square.reply_relays
    for kind, name in ((kinds.RELAY_LIST, "r"), (kinds.DM_RELAYS, "relay")):
        if await square.to_replace(kind, identity.pubkey) is None:
            tags = tuple((name, url) for url in urls)
            await square.replace(identity, Draft(kind, "", square.now_s(), tags), None)
    return tuple(dict.fromkeys((*urls, *await _named(square, identity.pubkey))))


async def dm_relays(square: Square, pubkey: str) -> tuple[str, ...]:
    """Where this person reads messages, as far as we go there; our own relays for want of it."""
    urls = square.reachable(await _named(square, pubkey))[:RELAYS_MAX]
    if not urls:
        raise RelayError("it is not known where that person reads messages")
    return urls


async def _named(square: Square, pubkey: str) -> tuple[str, ...]:
    """The relays of a person's kind 10050."""
    event = await square.newest(kinds.DM_RELAYS, pubkey)
    found = []
    for text in () if event is None else event.values("relay"):
        with contextlib.suppress(RemoteError):
            found.append(relay_url(text))
    return tuple(dict.fromkeys(found))
