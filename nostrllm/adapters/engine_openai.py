"""A model server that speaks the OpenAI API: llama.cpp, vLLM, Ollama, SGLang, OpenAI and more.

All of them stream chat answers in the same form, and differ around it; `Quirks` says how.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal

import orjson

from nostrllm.adapters.engine_http import (
    Limits,
    Place,
    Server,
    count,
    is_count,
    listed_ids,
    mapping,
    parsed,
    refusal,
    text_of,
)
from nostrllm.errors import EngineError
from nostrllm.ports import Delta, Load, Task
from nostrllm.wire.order import Usage

DONE: Final = "[DONE]"
DIMENSIONS_MAX: Final = 1 << 16

_PATHS: Final[dict[Task, str]] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
}
_OURS: Final = {"stream", "stream_options", "n", "max_tokens", "max_completion_tokens"}
#: What servers call an end that OpenAI calls "stop".
_STOPS: Final = {"eos", "eos_token", "stop_sequence", "end_turn"}


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a server departs from the API.

    `include_usage`: false for one that refuses `stream_options`; mostly its answers have no usage.
    `limit_field`: what it calls the limit on the answer's tokens. `one_system`: it takes a single
    system message and only at the beginning, so all are joined there. `lists_models`: false for one
    without /models. `key_header`: the header that takes the bare key, instead of a bearer token.
    """

    include_usage: bool = True
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    one_system: bool = False
    lists_models: bool = True
    key_header: str | None = None


class OpenAIEngine:
    """`ports.Engine` over HTTP. `base_url` ends where `/chat/completions` begins, mostly in /v1.

    `socket`: a Unix socket to reach it by. The API key appears in no error, log line or repr.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        quirks: Quirks | None = None,
        limits: Limits | None = None,
        socket: str | None = None,
    ) -> None:
        self._quirks = quirks or Quirks()
        self._limits = limits or Limits()
        sent = dict(headers or {})
        if api_key and self._quirks.key_header:
            sent[self._quirks.key_header] = api_key
        elif api_key:
            sent["Authorization"] = f"Bearer {api_key}"
        place = Place(base_url, sent, socket)
        self._host = place.host
        self._server = Server(place, self._limits)

    async def __aenter__(self) -> OpenAIEngine:
        """Keep connections for further requests until the block ends."""
        await self._server.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._server.close()

    def __repr__(self) -> str:
        return f"OpenAIEngine({self._host})"

    async def models(self) -> list[str]:
        """See ports.Engine; none of a server that lists none."""
        if not self._quirks.lists_models:
            return []
        return listed_ids(await self._server.ask("GET", "/models", within_s=self._limits.list_s))

    async def health(self) -> None:
        """See ports.Engine: it lists its models, or says that it has no such list."""
        try:
            await self._server.ask("GET", "/models", within_s=self._limits.list_s)
        except EngineError as error:
            answered = error.code in {"model-unavailable", "message-invalid"}
            if self._quirks.lists_models or not answered:
                raise

    async def load(self) -> Load:
        """See ports.Engine: what OpenAI's API has no word for."""
        return Load()

    def stream(self, body: Mapping[str, Any], task: Task = "chat") -> AsyncGenerator[Delta, None]:
        """See ports.Engine. Codes: `context-too-long`, `model-unavailable`, `busy`,
        `message-invalid`, `generation-failed`.
        """
        if task == "embedding":
            return self._embed(body)
        sent = _request_body(body, self._quirks)
        return self._server.stream(_PATHS[task], sent, _Answer())

    async def _embed(self, body: Mapping[str, Any]) -> AsyncGenerator[Delta, None]:
        sent = {name: value for name, value in body.items() if name not in _OURS}
        within_s = self._limits.first_s
        said = await self._server.ask("POST", _PATHS["embedding"], sent, within_s=within_s)
        vectors = _vectors(said, len(body["input"]))
        yield Delta(text=orjson.dumps(vectors).decode())
        yield Delta(finish_reason="stop", usage=_embedding_usage(said))


class _Answer:
    """engine_http.Answer of OpenAI's chunks."""

    def __init__(self) -> None:
        self.done = False
        self.finish_reason: str | None = None
        self._usage: Usage | None = None
        self._pieces = 0
        self._calls: list[str] = []

    def take(self, events: Sequence[str]) -> list[Delta]:
        """See Answer; texts that came at once are joined."""
        deltas: list[Delta] = []
        texts: list[str] = []
        for event in events:
            if event == DONE:
                self.done = True
                break
            if not event:
                continue
            chunk = parsed(event)
            if text := _only_text(chunk):
                texts.append(text)
                continue
            deltas += _joined(texts)
            delta = self._add(chunk)
            if delta.text or delta.reasoning or delta.tool_calls:
                deltas.append(delta)
        deltas += _joined(texts)
        self._pieces += sum(delta.pieces for delta in deltas)
        return deltas

    def last(self) -> Delta:
        """See Answer. A count of no tokens for an answer of some is no count."""
        if self.finish_reason is None and not self.done:
            raise EngineError("the model server broke off its answer")
        if self.finish_reason is None and not self._pieces:
            raise EngineError("the model server gave no answer")
        usage = self._usage
        if usage is not None and self._pieces and not (usage.prompt and usage.completion):
            usage = None
        return Delta(finish_reason=self.finish_reason or "stop", usage=usage)

    def _add(self, chunk: Mapping[str, Any]) -> Delta:
        error = chunk if chunk.get("object") == "error" else chunk.get("error")
        if error:
            raise refusal(_status(error), error)
        told = _usage(chunk.get("usage")) or _timed(chunk.get("timings"))
        self._usage = told or self._usage
        choices = chunk.get("choices")
        choice = mapping(choices[0]) if isinstance(choices, list) and choices else {}
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = "stop" if reason in _STOPS else reason
        if "text" in choice:  # a completion has no delta
            return Delta(text=text_of(choice["text"]))
        return self._delta(mapping(choice.get("delta")))

    def _delta(self, delta: Mapping[str, Any]) -> Delta:
        calls = delta.get("tool_calls")
        return Delta(
            text=text_of(delta.get("content")) or text_of(delta.get("refusal")),
            reasoning=text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning")),
            tool_calls=tuple(self._numbered(call) for call in calls if isinstance(call, dict))
            if isinstance(calls, list)
            else (),
        )

    def _numbered(self, call: dict[str, Any]) -> Mapping[str, Any]:
        """A piece of a tool call with the index that some servers leave out: its id counts."""
        if is_count(call.get("index")):
            return call
        name = str(call.get("id") or "")
        if name and name not in self._calls:
            self._calls.append(name)
        index = self._calls.index(name) if name else max(0, len(self._calls) - 1)
        return {**call, "index": index}


def _only_text(chunk: Mapping[str, Any]) -> str | None:
    """The text of a chunk that has nothing else to say, as most of them; None: look closely."""
    try:
        [choice] = chunk["choices"]
        delta = choice["delta"]
        text = delta["content"]
    except (KeyError, TypeError, ValueError):
        return None
    more = len(delta) > 1 or choice.get("finish_reason")
    more = more or chunk.get("usage") or chunk.get("error") or chunk.get("timings")
    return text if isinstance(text, str) and not more else None


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
    if "messages" in body:
        sent["messages"] = _messages(body["messages"], one_system=quirks.one_system)
    return sent


def _messages(messages: Sequence[Mapping[str, Any]], *, one_system: bool) -> list[dict[str, Any]]:
    """The messages in the form that most servers know: `developer` is their `system`, and parts
    that are all text are one string."""
    sent = [
        {**each, "role": "system" if each["role"] == "developer" else each["role"]}
        for each in messages
    ]
    for message in sent:
        if (text := plain_text(message.get("content"))) is not None:
            message["content"] = text
    systems = [each for each in sent if each["role"] == "system"]
    if not one_system or not systems:
        return sent
    joined = "\n\n".join(str(each.get("content") or "") for each in systems)
    others = [each for each in sent if each["role"] != "system"]
    return [{"role": "system", "content": joined}, *others]


def plain_text(content: object) -> str | None:
    """The text of a message's parts if they are nothing but text, else None."""
    if not isinstance(content, list):
        return None
    texts = [part.get("text") for part in content if part.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        return None
    return "\n".join(map(str, texts))


def _status(error: Any) -> int:
    code = mapping(error).get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _usage(said: Any) -> Usage | None:
    """The counts, or None when the server tells none that can be believed."""
    counts = mapping(said)
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if not (is_count(prompt) and is_count(completion)):
        return None
    cached = count(mapping(counts.get("prompt_tokens_details")).get("cached_tokens"))
    reasoning = count(mapping(counts.get("completion_tokens_details")).get("reasoning_tokens"))
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=min(cached, prompt),
        reasoning=min(reasoning, completion),
    )


def _timed(said: Any) -> Usage | None:
    """llama.cpp's `timings`, which it sends also where no usage was asked for."""
    timings = mapping(said)
    read, written = timings.get("prompt_n"), timings.get("predicted_n")
    if not (is_count(read) and is_count(written)):
        return None
    cached = count(timings.get("cache_n"))
    return Usage(prompt=read + cached, completion=written, cached=cached)


# embeddings


def _vectors(said: Any, wanted: int) -> list[str]:
    """As many vectors as texts, in their order, each base64 of little-endian float32.

    Raises EngineError.
    """
    listed = mapping(said).get("data")
    if not isinstance(listed, list) or len(listed) != wanted:
        raise EngineError("the model server gave another number of vectors")
    found = sorted(
        ((_index(each, place), _packed(mapping(each).get("embedding")))
         for place, each in enumerate(listed)),
        key=lambda pair: pair[0],
    )  # fmt: skip
    if [index for index, _ in found] != list(range(wanted)):
        raise EngineError("the model server's vectors are not numbered")
    if len({len(packed) for _, packed in found}) != 1:
        raise EngineError("the model server's vectors differ in length")
    return [b64encode(packed).decode() for _, packed in found]


def _index(each: Any, place: int) -> int:
    index = mapping(each).get("index", place)
    return index if is_count(index) else -1


def _packed(vector: Any) -> bytes:
    """A vector as float32, whether it came as numbers or as base64. Raises EngineError."""
    try:
        if isinstance(vector, str):
            raw = b64decode(vector, validate=True)
            numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
        else:
            numbers = tuple(float(number) for number in vector)
            raw = struct.pack(f"<{len(numbers)}f", *numbers)
    except (ValueError, TypeError, struct.error, OverflowError):
        raise EngineError("the model server sent a vector that is none") from None
    if not 1 <= len(numbers) <= DIMENSIONS_MAX or not all(map(isfinite, numbers)):
        raise EngineError("the model server sent a vector that is none")
    return raw


def _embedding_usage(said: Any) -> Usage | None:
    prompt = mapping(mapping(said).get("usage")).get("prompt_tokens")
    return Usage(prompt=prompt) if is_count(prompt) and prompt else None
