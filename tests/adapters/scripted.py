"""A model server that does exactly what a test tells it: the faults no real one shows on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Script = Callable[["Wire"], Awaitable[None]]


@dataclass
class Wire:
    """One request as it came, and the bytes to answer it with."""

    body: dict[str, Any]
    headers: dict[str, str]
    writer: asyncio.StreamWriter
    path: str = ""

    async def send(self, data: bytes) -> None:
        """Raw bytes. Raises ConnectionResetError once the client has hung up."""
        if self.writer.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def status(self, status: int, error: Any = None) -> None:
        """A whole answer that is no stream."""
        body = json.dumps(error).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
        await self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def open(self) -> None:
        """The head of a stream."""
        await self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def part(self, data: bytes) -> None:
        """One HTTP chunk of the stream."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, value: Any) -> None:
        """One event; a str goes out as it is."""
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        await self.part(b"data: " + data + b"\n\n")

    async def text(self, text: str, **more: Any) -> None:
        """A chunk with a piece of text."""
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
        await self.event({"object": "chat.completion.chunk", "choices": [choice]})

    async def end(self) -> None:
        """[DONE] and the end of the stream."""
        await self.event("[DONE]")
        await self.send(b"0\r\n\r\n")


@dataclass
class Scripted:
    """The server's address, what it was asked, and whether its client hung up."""

    url: str
    asked: list[Wire] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def scripted(script: Script, *, lists: bool = False) -> AsyncIterator[Scripted]:
    """Serve every request by `script`, one request per connection, then close it.

    It has no list of models, which a provider asks for now and then, unless the script `lists`.
    """
    told: Scripted

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            wire = await _request(reader, writer)
            if wire.path.endswith("/models") and not lists:
                await wire.status(404)
                return
            told.asked.append(wire)
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(_hang_up(reader, told.hung_up))
                await script(wire)
                listening.cancel()
        except* ConnectionError:
            told.hung_up.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    told = Scripted(f"http://127.0.0.1:{port}/v1")
    async with server:
        yield told


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Wire:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    size = int(headers.get("content-length", "0"))
    body = json.loads(await reader.readexactly(size)) if size else {}
    return Wire(body, headers, writer, head[0].split(" ")[1])


async def _hang_up(reader: asyncio.StreamReader, hung_up: asyncio.Event) -> None:
    while await reader.read(4096):
        continue
    hung_up.set()
