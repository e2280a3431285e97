"""A model server that answers at once with N ready-made chunks, to measure everything around it.

`python -m tests.benchmarks.mockengine PORT [CHUNKS [PAUSE_MS]]` on 127.0.0.1; PORT 0 takes a free
one, PAUSE_MS lies between two chunks. The first line on stdout is the base URL. Only for figures of
our own overhead: it generates nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

import uvloop

MODEL = "mock"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    """One server-sent event as an HTTP chunk."""
    return http_chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def answer(chunks: int) -> tuple[list[bytes], bytes]:
    """The pieces of an answer, and its end with usage."""
    base = {"id": "mock", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    pieces = [
        event(base | {"choices": [{"index": 0, "delta": {"content": f" tok{number}"}}]})
        for number in range(chunks)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": chunks, "total_tokens": chunks + 10}
    stop = base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    end = event(stop) + event(base | {"choices": [], "usage": usage})
    return pieces, end + http_chunk(b"data: [DONE]\n\n") + END


class Connection(asyncio.Protocol):
    """One client; requests one after another."""

    def __init__(self, group: asyncio.TaskGroup, chunks: int, pause_s: float) -> None:
        self._group = group
        self._pause_s = pause_s
        self._pieces, self._end = answer(chunks)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, _, length = head.partition(b"content-length:")
            size = int(length.split(b"\r\n")[0]) if length else 0
            if len(self._buffer) < end + 4 + size:
                return
            self._buffer = self._buffer[end + 4 + size :]
            self._group.create_task(self._reply(head))

    async def _reply(self, head: bytes) -> None:
        assert self._transport is not None
        if head.startswith(b"get"):
            listed = json.dumps({"data": [{"id": MODEL}]}).encode()
            self._transport.write(HEAD % b"application/json" + http_chunk(listed) + END)
            return
        self._transport.write(HEAD % b"text/event-stream")
        for piece in (*self._pieces, self._end):
            if self._transport.is_closing():  # whoever asked was killed
                return
            self._transport.write(piece)
            await asyncio.sleep(self._pause_s)  # one write for each chunk, as a real server does


async def serve(port: int, chunks: int, pause_s: float) -> None:
    """Serve until killed."""
    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(group, chunks, pause_s), "127.0.0.1", port
        )
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:4]]
    port, chunks, pause_ms = given + [0, 200, 0][len(given) :]
    uvloop.run(serve(port, chunks, pause_ms / 1_000))
