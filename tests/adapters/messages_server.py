"""A server of Anthropic's Messages API: checks a request as theirs does, streams what it is told.

`python -m tests.adapters.messages_server` serves ANSWER until killed and prints its address, to
point the maker's own SDK at it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Event = dict[str, Any]

KEY = "sk-ant-secret"
FIELDS = {
    *("model", "max_tokens", "messages", "stream", "system"),
    *("stop_sequences", "tools", "tool_choice", "output_config", "metadata", "thinking"),
}
#: By version of the API.
SAMPLING: dict[str, set[str]] = {
    "2023-06-01": {"temperature", "top_p", "top_k"},
    "2026-10-21": set(),
}
STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
}
IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}


def started(**usage: int) -> Event:
    """message_start."""
    message: Event = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def block(index: int, content: Event, *deltas: Event) -> list[Event]:
    """A block from its start to its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[Event]:
    """A text block."""
    deltas = ({"type": "text_delta", "text": piece} for piece in pieces)
    return block(index, {"type": "text", "text": ""}, *deltas)


def ended(reason: str, **usage: Any) -> list[Event]:
    """message_delta and message_stop."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    told = {"output_tokens": 5, **usage}
    return [
        {"type": "message_delta", "delta": delta, "usage": told},
        {"type": "message_stop"},
    ]


PING: Event = {"type": "ping"}
ANSWER: list[Event] = [started(), PING, *text(0, "The capital is", " Paris."), *ended("end_turn")]


def failed(kind: str, message: str) -> Event:
    """The error event, and the body of a refusal."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


class Refusal(Exception):
    """An answer of this kind and these words."""

    def __init__(self, message: str, kind: str = "invalid_request_error") -> None:
        self.body = failed(kind, message)
        self.status = STATUS[kind]
        super().__init__(message)


@dataclass
class Messages:
    """A server that runs: what it streams or refuses next, and what it was sent."""

    url: str = ""
    events: list[Event] = field(default_factory=lambda: list(ANSWER))
    refuse: tuple[str, str] | None = None
    stay_open: bool = False
    asked: list[Event] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages"""
        try:
            _check_head(request)
            body = json.loads(await request.read())
            self.asked.append(body)
            if self.refuse is not None:
                kind, message = self.refuse
                raise Refusal(message, kind)
            _check_body(body, SAMPLING[request.headers["anthropic-version"]])
        except Refusal as refused:
            return web.json_response(refused.body, status=refused.status)
        return await self._stream(request)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in self.events:
            data = json.dumps(event)
            await response.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
        try:
            while self.stay_open:
                await response.write(b'event: ping\ndata: {"type": "ping"}\n\n')
                await asyncio.sleep(0.05)
        except ConnectionError:
            self.hung_up.set()
            raise
        return response

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models, two a page whatever is asked"""
        try:
            _check_head(request)
        except Refusal as refused:
            return web.json_response(refused.body, status=refused.status)
        names = ["claude", "claude-old", "claude-new"]
        after = request.query.get("after_id")
        start = names.index(after) + 1 if after else 0
        page = names[start : start + 2]
        body = {
            "data": [{"type": "model", "id": name, "display_name": name} for name in page],
            "first_id": page[0],
            "last_id": page[-1],
            "has_more": start + 2 < len(names),
        }
        return web.json_response(body)


@asynccontextmanager
async def messages_server() -> AsyncIterator[Messages]:
    """Serve on a free port."""
    told = Messages()
    app = web.Application()
    app.router.add_post("/v1/messages", told.create)
    app.router.add_get("/v1/models", told.models)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield told
    finally:
        await runner.cleanup()


def _check_head(request: web.Request) -> None:
    bearer = request.headers.get("authorization") == f"Bearer {KEY}"
    if request.headers.get("x-api-key") != KEY and not bearer:
        raise Refusal("invalid x-api-key", "authentication_error")
    if request.headers.get("anthropic-version") not in SAMPLING:
        raise Refusal("anthropic-version: header is required")


def _check_body(body: Event, sampling: set[str]) -> None:
    if unknown := set(body) - FIELDS - sampling:
        raise Refusal(f"{min(unknown)}: Extra inputs are not permitted")
    if missing := {"model", "max_tokens", "messages"} - set(body):
        raise Refusal(f"{min(missing)}: Field required")
    if body["model"] != "claude":
        raise Refusal(f"model: {body['model']}", "not_found_error")
    if not 0 <= body.get("temperature", 1) <= 1:
        raise Refusal("temperature: range: 0..1")
    if not body["messages"] or body["messages"][0]["role"] != "user":
        raise Refusal("messages: first message must use the user role")
    _check_tools(body)
    for each in body.get("system", []):
        _check_block(each, {"text"})
    open_calls: set[str] = set()
    for message in body["messages"]:
        if message["role"] not in {"user", "assistant"}:
            raise Refusal("messages: Unexpected role; use the top-level `system` parameter")
        open_calls = _check_message(message, open_calls)


def _check_tools(body: Event) -> None:
    for tool in body.get("tools", []):
        if set(tool) - {"name", "description", "input_schema"} or not tool["name"]:
            raise Refusal("tools.0.custom: Extra inputs are not permitted")
        if tool["input_schema"].get("type") != "object":
            raise Refusal("tools.0.custom.input_schema.type: Field required")
    if "tool_choice" in body and not body.get("tools"):
        raise Refusal("tool_choice may only be specified while providing tools")


def _check_message(message: Event, open_calls: set[str]) -> set[str]:
    """The ids of the tool calls it leaves open, each to be answered by the next message."""
    if not message["content"]:
        raise Refusal("messages: all messages must have non-empty content")
    for each in message["content"]:
        _check_block(each, {"text", "image", "tool_use", "tool_result"})
    results = {each["tool_use_id"] for each in message["content"] if "tool_use_id" in each}
    if results != open_calls:
        raise Refusal("messages: unexpected `tool_use_id`, or `tool_use` without `tool_result`")
    return {each["id"] for each in message["content"] if each["type"] == "tool_use"}


def _check_block(each: Event, kinds: set[str]) -> None:
    if each["type"] not in kinds:
        raise Refusal(f"{each['type']} is not expected here")
    if each["type"] == "text" and not each["text"]:
        raise Refusal("messages: text content blocks must be non-empty")
    if each["type"] == "image" and each["source"]["media_type"] not in IMAGES:
        raise Refusal("messages: source.base64.media_type: Input should be 'image/jpeg' …")


async def _main() -> None:
    async with messages_server() as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
