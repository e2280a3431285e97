"""What every model server behind HTTP has in common: connections, patience, sizes, refusals.

An answer is always streamed, also for a buyer who wants it whole: closing the connection of a
stream stops the generation, while a plain request goes on burning the processor for nobody. A
connection whose answer was read to its end is used again, if the server is used as `async with`;
servers announce keep-alive and then hang up, so a request that such a one loses is sent anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeGuard
from urllib.parse import urlsplit

import aiohttp
import orjson

from nostrllm.adapters.sse import LINE_BYTES_MAX, EventStream
from nostrllm.errors import ConfigError, EngineError
from nostrllm.ports import Delta

REFUSAL_BYTES_MAX: Final = 1 << 16
LIST_BYTES_MAX: Final = 1 << 22
TOKENS_MAX: Final = 1 << 32
KEY_CHARS_MAX: Final = 4_096
#: An unused connection is kept for less than the 5 s after which many servers hang up.
KEPT_S: Final = 4.0

_TOO_LONG_CODES: Final = {"exceed_context_size_error", "context_length_exceeded"}
_TOO_LONG_WORDS: Final = (
    *("context length", "context size", "context window", "maximum context", "context limit"),
    "prompt is too long",
)
_NO_MODEL: Final = ("invalid model name", "model not found")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a server, in seconds, and how much to take from it, in bytes.

    `first_s` runs from the request to the first piece of the answer, `idle_s` from piece to piece;
    comments that only keep the connection open count for neither. `connections` requests are out at
    once; one more waits for its turn as long as for its first piece.
    """

    connect_s: float = 5.0
    first_s: float = 120.0
    idle_s: float = 60.0
    list_s: float = 10.0
    line_bytes_max: int = LINE_BYTES_MAX
    total_bytes_max: int = 1 << 26
    connections: int = 256


class Answer(Protocol):
    """What the events of one streamed answer add up to."""

    done: bool
    finish_reason: str | None

    def take(self, events: Sequence[str]) -> list[Delta]:
        """The deltas with something in them; the rest is kept for `last`."""

    def last(self) -> Delta:
        """The closing delta. Raises EngineError when the stream ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is and what opens it.

    `url` ends where the API's paths begin; `socket` is a Unix socket to reach it by. `headers` hold
    the key, so they are in no repr.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    socket: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("an engine's url must begin with http:// or https://")
        if parts.username or parts.password or parts.query:
            raise ConfigError("an engine's url must hold no password; use its API key")
        for value in self.headers.values():
            if not value.isascii() or not value.isprintable() or len(value) > KEY_CHARS_MAX:
                raise ConfigError("an engine's key or header has characters that cannot be sent")

    @property
    def host(self) -> str:
        """The part of it that may be shown."""
        return urlsplit(self.url).hostname or ""


class Server:
    """One HTTP API. What it says appears in no error, since that may quote the prompt or the key.

    Every call raises EngineError.
    """

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place = place
        self._url = place.url.rstrip("/")
        self._headers = {"Accept-Encoding": "identity", **place.headers}
        self._limits = limits
        self._free = asyncio.Semaphore(limits.connections)
        self._kept: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Keep connections for further requests until `close`."""
        self._kept = self._session(keep=True)

    async def close(self) -> None:
        """Close them."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()

    async def ask(self, method: str, path: str, body: Any = None, *, within_s: float) -> Any:
        """The JSON answer to a request that takes no generation, or a short one."""
        deadline = _after(within_s)
        sent = None if body is None else packed(body)
        async with self._request(method, path, deadline=deadline, sent=sent) as response:
            return await _read(response, LIST_BYTES_MAX, deadline)

    async def stream(self, path: str, body: Any, answer: Answer) -> AsyncGenerator[Delta, None]:
        """The answer to one request as it comes; closing the iterator ends the connection."""
        limits = self._limits
        deadline = _after(limits.first_s)
        events = EventStream(line_bytes_max=limits.line_bytes_max)
        sent = packed(body)
        async with self._request("POST", path, deadline=deadline, sent=sent) as response:
            if response.content_type != "text/event-stream":
                raise EngineError("the model server did not stream its answer")
            taken_bytes = 0
            while not answer.done and (block := await _block(response, deadline, answer)):
                taken_bytes += len(block)
                if taken_bytes > limits.total_bytes_max:
                    raise EngineError("the model server's answer is too large")
                for delta in answer.take(events.feed(block)):
                    yield delta
                    deadline = _after(limits.idle_s)
        yield answer.last()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, deadline: float, sent: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**self._headers, "Content-Type": "application/json"} if sent else self._headers
        async with AsyncExitStack() as stack:
            await self._turn(stack, deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._asked(stack, method, path, data=sent, headers=headers)
                    await stack.enter_async_context(response)
                    if response.status != 200:
                        raise refusal(response.status, await _read_some(response))
            except TimeoutError:
                raise EngineError("the model server took too long") from None
            except (aiohttp.ClientError, OSError, ValueError):
                raise EngineError("the model server cannot be reached") from None
            yield response

    async def _turn(self, stack: AsyncExitStack, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await stack.enter_async_context(self._free)
        except TimeoutError:
            raise EngineError("too many requests are out already", code="busy") from None

    async def _asked(
        self, stack: AsyncExitStack, method: str, path: str, **sent: Any
    ) -> aiohttp.ClientResponse:
        """The head of the answer, over a connection that was kept if it is good still."""
        url = self._url + path
        if self._kept is not None:
            with suppress(aiohttp.ServerDisconnectedError, ConnectionError, aiohttp.ClientOSError):
                return await self._kept.request(method, url, allow_redirects=False, **sent)
        session = await stack.enter_async_context(self._session(keep=False))
        return await session.request(method, url, allow_redirects=False, **sent)

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector(keep=keep),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _connector(self, *, keep: bool) -> aiohttp.BaseConnector:
        kept: dict[str, Any] = (
            {"limit": 0, "keepalive_timeout": KEPT_S} if keep else {"force_close": True}
        )
        if self._place.socket is not None:
            return aiohttp.UnixConnector(self._place.socket, **kept)
        # aiohttp would start a C resolver for every connector where aiodns happens to be installed
        return aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver(), **kept)


def packed(body: Any) -> bytes:
    """A request as JSON; a schema may hold numbers that are too long for orjson."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body, ensure_ascii=True).encode()


def refusal(status: int, error: Any) -> EngineError:
    """A refusal in our words: theirs may quote the prompt."""
    said = mapping(error)
    names = {str(said.get("type")), str(said.get("code"))}
    text = str(said.get("message", "")).lower()
    if names & _TOO_LONG_CODES or (
        status in {400, 413, 422} and any(word in text for word in _TOO_LONG_WORDS)
    ):
        return EngineError("the prompt is too long for the model", code="context-too-long")
    if status == 404 or "model_not_found" in names or any(word in text for word in _NO_MODEL):
        return EngineError("the model server has no such model", code="model-unavailable")
    if status in {401, 402, 403}:
        return EngineError("the model server refuses its API key", code="model-unavailable")
    if status in {429, 503, 529}:
        return EngineError("the model server is busy", code="busy")
    if 400 <= status < 500:
        return EngineError(
            f"the model server refuses the request ({status})", code="message-invalid"
        )
    return EngineError(f"the model server failed ({status})")


# reading what a stranger says


def parsed(event: str) -> Mapping[str, Any]:
    """The JSON object in an event. Raises EngineError."""
    try:
        chunk = orjson.loads(event)
    except ValueError:
        raise EngineError("the model server sent a chunk that is not JSON") from None
    if not isinstance(chunk, dict):
        raise EngineError("the model server sent a chunk that is not an object")
    return chunk


def text_of(value: Any) -> str:
    """A piece of text, "" for none. Raises EngineError."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise EngineError("the model server sent a piece of text that is not text")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_count(value: Any) -> TypeGuard[int]:
    """Can this be a number of tokens?"""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX


def count(value: Any) -> int:
    """`value` if it can be a number of tokens, else 0."""
    return value if is_count(value) else 0


def listed_ids(body: Any) -> list[str]:
    """The model ids in a list as OpenAI and Anthropic give it. Raises EngineError."""
    listed = mapping(body).get("data")
    if not isinstance(listed, list):
        raise EngineError("the model server gave no list of models")
    ids = (mapping(each).get("id") for each in listed)
    return [each for each in ids if isinstance(each, str)]


async def _block(response: aiohttp.ClientResponse, deadline: float, answer: Answer) -> bytes:
    try:
        async with asyncio.timeout_at(deadline):
            return await response.content.readany()
    except TimeoutError:
        broken = EngineError("the model server took too long")
    except (aiohttp.ClientError, OSError):
        broken = EngineError("the model server broke off its answer")
    if answer.finish_reason is None:
        raise broken
    return b""  # everything but the usage had come


async def _read(response: aiohttp.ClientResponse, bytes_max: int, deadline: float) -> Any:
    try:
        async with asyncio.timeout_at(deadline):
            return orjson.loads(await _read_at_most(response, bytes_max))
    except (aiohttp.ClientError, OSError, ValueError):
        raise EngineError("the model server gave no usable answer") from None


async def _read_some(response: aiohttp.ClientResponse) -> Any:
    """What a refusal says, if it is JSON; the caller's deadline holds."""
    try:
        body = orjson.loads(await _read_at_most(response, REFUSAL_BYTES_MAX))
    except (aiohttp.ClientError, ValueError):
        return None
    return body.get("error", body) if isinstance(body, dict) else None


async def _read_at_most(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    body = bytearray()
    while block := await response.content.readany():
        body += block
        if len(body) > bytes_max:
            raise ValueError("too large")
    return bytes(body)


def _after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
