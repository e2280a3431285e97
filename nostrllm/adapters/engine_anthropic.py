"""A model server that speaks Anthropic's Messages API: Anthropic, llama.cpp.

The stream: `message_start` with the prompt's count; per block `content_block_start`,
`content_block_delta`…, `content_block_stop`; `message_delta` with the stop reason and the counts so
far; `message_stop`. `ping` may come anywhere, `error` ends it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from nostrllm.adapters.anthropic_request import Version, messages_body
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

PAGES_MAX: Final = 10

_FINISHES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicEngine:
    """`ports.Engine` over HTTP. `base_url` ends where `/messages` begins, mostly in /v1.

    `version` of the API; the older one takes `temperature` and `top_p`. The API key appears in no
    error, log line or repr.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        limits: Limits | None = None,
        version: Version = "2026-10-21",
    ) -> None:
        self._limits = limits or Limits()
        self._version: Version = version
        headers: dict[str, str] = {"anthropic-version": version}
        if api_key:
            headers["x-api-key"] = api_key
        place = Place(base_url, headers)
        self._host = place.host
        self._server = Server(place, self._limits)

    async def __aenter__(self) -> AnthropicEngine:
        """Keep connections for further requests until the block ends."""
        await self._server.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._server.close()

    def __repr__(self) -> str:
        return f"AnthropicEngine({self._host})"

    async def models(self) -> list[str]:
        """See ports.Engine; the list comes in pages."""
        found: list[str] = []
        path = "/models?limit=1000"
        for _ in range(PAGES_MAX):
            page = await self._server.ask("GET", path, within_s=self._limits.list_s)
            found += listed_ids(page)
            last = mapping(page).get("last_id")
            if not mapping(page).get("has_more") or not isinstance(last, str):
                break
            path = f"/models?limit=1000&after_id={quote(last, safe='')}"
        return found

    async def health(self) -> None:
        """See ports.Engine: it lists its models."""
        await self._server.ask("GET", "/models?limit=1", within_s=self._limits.list_s)

    async def load(self) -> Load:
        """See ports.Engine: the API has no word for it."""
        return Load()

    def stream(self, body: Mapping[str, Any], task: Task = "chat") -> AsyncGenerator[Delta, None]:
        """See ports.Engine; chat alone. Raises EngineError `message-invalid` for anything else."""
        if task != "chat":
            raise EngineError("this model server only chats", code="message-invalid")
        return self._server.stream("/messages", messages_body(body, self._version), _Answer())


class _Answer:
    """engine_http.Answer of Anthropic's events."""

    def __init__(self) -> None:
        self.done = False
        self.finish_reason: str | None = None
        self._counts: dict[str, int] = {}
        self._calls: dict[int, int] = {}

    def take(self, events: Sequence[str]) -> list[Delta]:
        """See Answer."""
        deltas = []
        for event in events:
            delta = self._add(parsed(event))
            if delta.text or delta.reasoning or delta.tool_calls:
                deltas.append(delta)
            if self.done:
                break
        return deltas

    def last(self) -> Delta:
        """See Answer."""
        if self.finish_reason is None:
            raise EngineError("the model server broke off its answer")
        return Delta(finish_reason=self.finish_reason, usage=self._usage())

    def _add(self, event: Mapping[str, Any]) -> Delta:
        match event.get("type"):
            case "error":
                error = mapping(event.get("error"))
                raise refusal(_STATUS.get(str(error.get("type")), 500), error)
            case "message_start":
                self._note(mapping(event.get("message")).get("usage"))
            case "content_block_start":
                return self._begun(event)
            case "content_block_delta":
                return self._grown(event)
            case "message_delta":
                self._note(event.get("usage"))
                reason = mapping(event.get("delta")).get("stop_reason")
                if isinstance(reason, str):
                    self.finish_reason = _FINISHES.get(reason, "stop")
            case "message_stop":
                self.done = True
        return Delta()  # ping, content_block_stop, and whatever they add later

    def _begun(self, event: Mapping[str, Any]) -> Delta:
        block = mapping(event.get("content_block"))
        if block.get("type") != "tool_use":
            return Delta(text=text_of(block.get("text")), reasoning=text_of(block.get("thinking")))
        index = self._calls.setdefault(count(event.get("index")), len(self._calls))
        function = {"name": text_of(block.get("name")), "arguments": ""}
        call = {
            "index": index,
            "id": text_of(block.get("id")),
            "type": "function",
            "function": function,
        }
        return Delta(tool_calls=(call,))

    def _grown(self, event: Mapping[str, Any]) -> Delta:
        delta = mapping(event.get("delta"))
        match delta.get("type"):
            case "text_delta":
                return Delta(text=text_of(delta.get("text")))
            case "thinking_delta":
                return Delta(reasoning=text_of(delta.get("thinking")))
            case "input_json_delta":
                piece = text_of(delta.get("partial_json"))
                index = self._calls.get(count(event.get("index")))
                if piece and index is not None:
                    return Delta(tool_calls=({"index": index, "function": {"arguments": piece}},))
        return Delta()  # signatures, citations

    def _note(self, usage: Any) -> None:
        """Counts are cumulative: a later one stands for the earlier."""
        said = dict(mapping(usage))
        details = mapping(said.get("output_tokens_details"))
        said["reasoning_tokens"] = details.get("thinking_tokens", details.get("reasoning_tokens"))
        self._counts |= {name: value for name, value in said.items() if is_count(value)}

    def _usage(self) -> Usage | None:
        """All counts, if the two that matter were told. Cached tokens are no part of
        `input_tokens` there."""
        if not {"input_tokens", "output_tokens"} <= self._counts.keys():
            return None
        told = self._counts.get
        cached = told("cache_read_input_tokens", 0)
        completion = self._counts["output_tokens"]
        prompt = self._counts["input_tokens"] + told("cache_creation_input_tokens", 0) + cached
        reasoning = min(told("reasoning_tokens", 0), completion)
        return Usage(prompt=prompt, completion=completion, cached=cached, reasoning=reasoning)
