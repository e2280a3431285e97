"""What comes back to a reply key: gift wraps with messages, and chunks of a stream.

Anybody can write to a visible key, so a message counts only when its seal is by the provider, and
a chunk only when its author is the session key that the acceptance names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from nostrllm.client.world import Square
from nostrllm.core.parts import Assemblies
from nostrllm.core.stream import Stream, unpad
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter, Signer, Subscription
from nostrllm.wire import kinds
from nostrllm.wire.event import Event
from nostrllm.wire.order import (
    Accepted,
    Answer,
    Refused,
    Result,
    Settled,
    parse_chunk,
    parse_from_provider,
)

Message = Accepted | Refused | Result | Settled | Answer

#: Messages and chunks that wait to be looked at.
WAITING_MAX: Final = 256
#: Gift wraps are dated back by up to two days (NIP-59).
BACKDATED_S: Final = 2 * 86_400 + 3_600
#: Chunks by keys not yet known are kept within these bounds.
EARLY_MAX: Final = 64
EARLY_BYTES_MAX: Final = 256_000
#: A stream is shown no further than this; a longer answer ends with the result.
TEXT_CHARS_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Listening:
    """Which reply key listens for which provider, and where.

    `stored_s`: how far back stored messages are wanted. `stream`: chunks too.
    """

    signer: Signer
    provider: str
    relays: tuple[str, ...]
    stream: bool = False
    stored_s: float = BACKDATED_S


class Replies:
    """The provider's messages and everybody's chunks, in the order they came."""

    def __init__(self, square: Square, listening: Listening) -> None:
        self._square = square
        self._listening = listening
        self._parts = Assemblies()
        self._came: asyncio.Queue[Message | Event] = asyncio.Queue(WAITING_MAX)

    async def next(self) -> Message | Event:
        """The next message of the provider, or a chunk still encrypted, however long it takes."""
        return await self._came.get()

    async def pump(self, inbox: Subscription) -> None:
        """Move what a subscription delivers into the queue, dropping what is not for us."""
        async for event in inbox:
            if event.kind == kinds.CHUNK:
                await self._came.put(event)
                continue
            message = await self._message(event)
            if message is not None:
                await self._came.put(message)

    async def _message(self, wrap: Event) -> Message | None:
        """The message in a wrap; None for a part, a stranger's or a broken one."""
        try:
            inner = await self._listening.signer.unwrap(wrap)
            if inner.pubkey != self._listening.provider:
                return None
            if inner.kind == kinds.PART:
                whole = self._parts.add(inner, self._square.clock.monotonic())
                if whole is None:
                    return None
                inner = whole
            return parse_from_provider(inner.content) if inner.kind == kinds.MESSAGE else None
        except RemoteError:
            return None


@asynccontextmanager
async def listen(square: Square, listening: Listening) -> AsyncIterator[Replies]:
    """Subscribe to a reply key until the block ends; ready to receive when the block begins."""
    key = listening.signer.pubkey
    replies = Replies(square, listening)
    wraps = square.relays.subscribe(
        f"reply-{key[:8]}",
        [Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (key,)})],
        to=listening.relays,
        signer=listening.signer,
        stored_s=listening.stored_s,
    )
    async with wraps as inbox:
        if not listening.stream:
            async with _pumping(replies, inbox):
                yield replies
            return
        chunks = square.relays.subscribe(
            f"chunk-{key[:8]}",
            [Filter(kinds=(kinds.CHUNK,), tags={"p": (key,)})],
            to=listening.relays,
            signer=listening.signer,
        )
        async with chunks as stream, _pumping(replies, inbox, stream):
            yield replies


@asynccontextmanager
async def _pumping(replies: Replies, *inboxes: Subscription) -> AsyncIterator[None]:
    """Pump while the block lasts; an error of the block leaves it as it is, not in a group."""
    group = await asyncio.TaskGroup().__aenter__()
    tasks = [group.create_task(replies.pump(inbox)) for inbox in inboxes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await group.__aexit__(None, None, None)


class Chunks:
    """The stream of one order: chunks in, text to show out.

    Chunks that come before the acceptance are kept, within bounds, until it names their key.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._stream = Stream()
        self._session: str | None = None
        self._early: list[Event] = []
        self._early_bytes = 0

    async def push(self, event: Event) -> str | None:
        """What can be shown now that this chunk came; None when it is nobody's we know."""
        if self._session is None:
            size = len(event.content)
            fits = len(self._early) < EARLY_MAX and self._early_bytes + size <= EARLY_BYTES_MAX
            if fits:
                self._early.append(event)
                self._early_bytes += size
            return None
        return await self._show(event)

    async def accepted(self, session: str) -> str:
        """What of the early chunks can be shown now that the session key is known."""
        if self._session is not None:
            return ""
        self._session = session
        early, self._early = self._early, []
        return "".join([await self._show(event) or "" for event in early])

    def finish(self, text: str) -> str:
        """What is left to show, the whole text being known."""
        return self._stream.finish(text)

    @property
    def diverged(self) -> bool:
        """Was text shown that is not how the result begins?"""
        return self._stream.diverged

    async def _show(self, event: Event) -> str | None:
        if event.pubkey != self._session or self._stream.shown_chars > TEXT_CHARS_MAX:
            return None
        try:
            chunk = parse_chunk(unpad(await self._signer.decrypt(event.content, event.pubkey)))
        except RemoteError:
            return None
        return self._stream.push(chunk.seq, chunk.text)
