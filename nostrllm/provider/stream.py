"""The stream of one answer: ephemeral events by a key of this order alone.

A lost chunk is no loss, so nothing here waits for a relay's OK and nothing is stored.
"""

from __future__ import annotations

import asyncio

from nostrllm.core.stream import Chunker, pad
from nostrllm.ports import Signer
from nostrllm.provider.reply import Address
from nostrllm.provider.shop import World
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft
from nostrllm.wire.order import Chunk


class ChunkCast:
    """Sends pieces of an answer to the order's reply key (kind 25425); silent when not wanted."""

    def __init__(
        self, world: World, address: Address, session: Signer, chunk_s: float | None
    ) -> None:
        self._world = world
        self._address = address
        self._session = session
        self._chunker = Chunker(chunk_s) if chunk_s and address.dialect == "client" else None
        self._seq = 0
        #: Set when the first chunk is about to go out.
        self.begun = asyncio.Event()

    async def emit(self, text: str) -> None:
        """Take more of the answer; what is due goes out."""
        if self._chunker is not None:
            for piece in self._chunker.push(text, self._world.clock.monotonic()):
                await self._send(Chunk(seq=self._seq, text=piece))

    async def close(self, *, failed: bool) -> None:
        """Send what is left, with the end in the last of it."""
        if self._chunker is not None:
            *pieces, last = self._chunker.flush() or [""]
            for piece in pieces:
                await self._send(Chunk(seq=self._seq, text=piece))
            end = Chunk(seq=self._seq, frame="abort" if failed else "close", text=last)
            await self._send(end)

    async def _send(self, chunk: Chunk) -> None:
        if not self._seq:
            self.begun.set()
            await asyncio.sleep(0)  # the acceptance, which names our key, goes first
        self._seq += 1
        content = await self._session.encrypt(pad(chunk.as_json()), self._address.key)
        draft = Draft(kinds.CHUNK, content, self._world.now_s(), (("p", self._address.key),))
        event = await self._session.sign(draft)
        await self._world.relays.cast(event, to=self._address.relays)
