"""A model server that speaks the OpenAI chat API: llama.cpp, vLLM, Ollama, SGLang, OpenAI and more.

The answer is always streamed, also for a buyer who wants it whole: closing the connection of a
stream stops the generation, while a plain request goes on burning the processor for nobody. A
connection whose answer was read to its end is used again, if the engine is used as `async with`;
servers announce keep-alive and then hang up, so a request that such a one loses is sent anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeGuard
from urllib.parse import urlsplit

import aiohttp
import orjson

from nostrllm.adapters.sse import LINE_BYTES_MAX, EventStream
from nostrllm.errors import ConfigError, EngineError
from nostrllm.ports import Delta
from nostrllm.wire.order import Usage

REFUSAL_BYTES_MAX: Final = 1 << 16
LIST_BYTES_MAX: Final = 1 << 22
TOKENS_MAX: Final = 1 << 32
DONE: Final = "[DONE]"
#: An unused connection is kept for less than the 5 s after which many servers hang up.
KEPT_S: Final = 4.0

_TOO_LONG_CODES: Final = {"exceed_context_size_error", "context_length_exceeded"}
_TOO_LONG_WORDS: Final = ("context length", "context size", "context window", "maximum context")
_OURS: Final = {"stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a server departs from the API.

    `include_usage`: false for one that refuses `stream_options`; its answers have no usage.
    `limit_field`: what it calls the limit on the answer's tokens.
    """

    include_usage: bool = True
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a server, in seconds, and how much to take from it, in bytes.

    `first_s` runs from the request to the first piece of the answer, `idle_s` from piece to piece;
    comments that only keep the connection open count for neither.
    """

    connect_s: float = 5.0
    first_s: float = 120.0
    idle_s: float = 60.0
    list_s: float = 10.0
    line_bytes_max: int = LINE_BYTES_MAX
    total_bytes_max: int = 1 << 26


class OpenAIEngine:
    """`ports.Engine` over HTTP. `base_url` ends where `/chat/completions` begins, mostly in /v1.

    The API key appears in no error, log line or repr, and neither does what the server says, since
    that may quote the prompt.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        quirks: Quirks | None = None,
        limits: Limits | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("an engine's url must begin with http:// or https://")
        if parts.username or parts.password:
            raise ConfigError("an engine's url must hold no password; use its API key")
        self._url = base_url.rstrip("/")
        self._headers = {"Accept-Encoding": "identity", **(headers or {})}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._quirks = quirks or Quirks()
        self._limits = limits or Limits()
        self._host = parts.hostname
        self._kept: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> OpenAIEngine:
        """Keep connections for further requests until the block ends."""
        self._kept = self._session(keep=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()

    def __repr__(self) -> str:
        return f"OpenAIEngine({self._host})"

    async def models(self) -> list[str]:
        """The model ids it serves now. Raises EngineError."""
        deadline = self._after(self._limits.list_s)
        async with self._request("GET", "/models", deadline=deadline) as response:
            body = await _read(response, LIST_BYTES_MAX, deadline)
        return _model_ids(body)

    async def health(self) -> None:
        """Return if it lists its models. Raises EngineError."""
        await self.models()

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Delta, None]:
        """Run one chat request; closing the iterator stops the generation. Raises EngineError.

        The last delta alone has the finish reason, and the usage if the server told it. Codes:
        `context-too-long`, `model-unavailable`, `busy`, `message-invalid`, `generation-failed`.
        """
        limits = self._limits
        sent = orjson.dumps(_request_body(body, self._quirks))
        deadline = self._after(limits.first_s)
        answer = _Answer()
        events = EventStream(line_bytes_max=limits.line_bytes_max)
        path = "/chat/completions"
        async with self._request("POST", path, deadline=deadline, sent=sent) as response:
            _check_stream(response)
            taken_bytes = 0
            while not answer.done and (block := await _block(response, deadline, answer)):
                taken_bytes += len(block)
                if taken_bytes > limits.total_bytes_max:
                    raise EngineError("the model server's answer is too large")
                for delta in answer.take(events.feed(block)):
                    yield delta
                    deadline = self._after(limits.idle_s)
        yield answer.last()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, deadline: float, sent: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**self._headers, "Content-Type": "application/json"} if sent else self._headers
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._asked(stack, method, path, data=sent, headers=headers)
                    await stack.enter_async_context(response)
                    if response.status != 200:
                        raise _refusal(response.status, await _read_some(response))
            except TimeoutError:
                raise EngineError("the model server took too long") from None
            except (aiohttp.ClientError, OSError, ValueError):
                raise EngineError("the model server cannot be reached") from None
            yield response

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
        # aiohttp would start a C resolver for every connector where aiodns happens to be installed
        resolver = aiohttp.ThreadedResolver()
        connector = (
            aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S, resolver=resolver)
            if keep
            else aiohttp.TCPConnector(force_close=True, resolver=resolver)
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @staticmethod
    def _after(seconds: float) -> float:
        return asyncio.get_running_loop().time() + seconds


class _Answer:
    """What the events of one answer add up to."""

    def __init__(self) -> None:
        self.done = False
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._empty = True

    def take(self, events: Sequence[str]) -> list[Delta]:
        """The deltas with something in them, texts that came at once joined; the rest is kept for
        `last`."""
        deltas: list[Delta] = []
        texts: list[str] = []
        for event in events:
            if event == DONE:
                self.done = True
                break
            if not event:
                continue
            chunk = _parse(event)
            if text := _only_text(chunk):
                texts.append(text)
                continue
            deltas += _joined(texts)
            delta = self._add(chunk)
            if delta.text or delta.reasoning or delta.tool_calls:
                deltas.append(delta)
        deltas += _joined(texts)
        self._empty = self._empty and not deltas
        return deltas

    def last(self) -> Delta:
        """The closing delta. Raises EngineError when the stream ended before the answer did."""
        if self.finish_reason is None and not self.done:
            raise EngineError("the model server broke off its answer")
        if self.finish_reason is None and self._empty:
            raise EngineError("the model server gave no answer")
        return Delta(finish_reason=self.finish_reason or "stop", usage=self.usage)

    def _add(self, chunk: Mapping[str, Any]) -> Delta:
        if error := chunk.get("error"):
            raise _refusal(_status(error), error)
        self.usage = _usage(chunk.get("usage")) or self.usage
        choices = chunk.get("choices")
        choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = reason
        return _delta(_mapping(choice.get("delta")))


def _only_text(chunk: Mapping[str, Any]) -> str | None:
    """The text of a chunk that has nothing else to say, as most of them; None: look closely."""
    match chunk:
        case {"choices": [{"delta": {"content": str(text), **more}, **rest}]} if not (
            more or rest.get("finish_reason") or chunk.get("usage") or chunk.get("error")
        ):
            return text
    return None


def _joined(texts: list[str]) -> list[Delta]:
    """One delta of all the texts, which are gone then."""
    if not texts:
        return []
    delta = Delta("".join(texts), pieces=len(texts))
    texts.clear()
    return [delta]


def _request_body(body: Mapping[str, Any], quirks: Quirks) -> dict[str, Any]:
    sent = {name: value for name, value in body.items() if name not in _OURS}
    sent["stream"] = True
    if quirks.include_usage:
        sent["stream_options"] = {"include_usage": True}
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None:
        sent[quirks.limit_field] = limit
    return sent


def _check_stream(response: aiohttp.ClientResponse) -> None:
    if response.content_type != "text/event-stream":
        raise EngineError("the model server did not stream its answer")


async def _block(response: aiohttp.ClientResponse, deadline: float, answer: _Answer) -> bytes:
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


def _refusal(status: int, error: Any) -> EngineError:
    """A refusal in our words: theirs may quote the prompt."""
    said = _mapping(error)
    names = {str(said.get("type")), str(said.get("code"))}
    text = str(said.get("message", "")).lower()
    if names & _TOO_LONG_CODES or (
        status in {400, 413, 422} and any(word in text for word in _TOO_LONG_WORDS)
    ):
        return EngineError("the prompt is too long for the model", code="context-too-long")
    if status == 404 or "model_not_found" in names:
        return EngineError("the model server has no such model", code="model-unavailable")
    if status in {401, 403}:
        return EngineError("the model server refuses its API key", code="model-unavailable")
    if status in {429, 503, 529}:
        return EngineError("the model server is busy", code="busy")
    if 400 <= status < 500:
        return EngineError(
            f"the model server refuses the request ({status})", code="message-invalid"
        )
    return EngineError(f"the model server failed ({status})")


def _status(error: Any) -> int:
    code = _mapping(error).get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _model_ids(body: Any) -> list[str]:
    listed = _mapping(body).get("data")
    if not isinstance(listed, list):
        raise EngineError("the model server gave no list of models")
    ids = (_mapping(each).get("id") for each in listed)
    return [each for each in ids if isinstance(each, str)]


def _parse(event: str) -> Mapping[str, Any]:
    try:
        chunk = orjson.loads(event)
    except ValueError:
        raise EngineError("the model server sent a chunk that is not JSON") from None
    if not isinstance(chunk, dict):
        raise EngineError("the model server sent a chunk that is not an object")
    return chunk


def _delta(delta: Mapping[str, Any]) -> Delta:
    calls = delta.get("tool_calls")
    return Delta(
        text=_text(delta.get("content")) or _text(delta.get("refusal")),
        reasoning=_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")),
        tool_calls=tuple(call for call in calls if isinstance(call, dict))
        if isinstance(calls, list)
        else (),
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise EngineError("the model server sent a piece of text that is not text")
    return value


def _usage(said: Any) -> Usage | None:
    """The counts, or None when the server tells none that can be believed."""
    counts = _mapping(said)
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    cached = _mapping(counts.get("prompt_tokens_details")).get("cached_tokens")
    reasoning = _mapping(counts.get("completion_tokens_details")).get("reasoning_tokens")
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=min(cached, prompt) if _is_count(cached) else 0,
        reasoning=min(reasoning, completion) if _is_count(reasoning) else 0,
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
