"""OpenAI-compatible servers that refuse what the strict among the real ones refuse.

aiohttp's own server on a free port; a request that breaks the rules is answered as they do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]

KNOWN = {
    *("model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens"),
    *("max_completion_tokens", "temperature", "top_p", "seed", "stop", "response_format", "tools"),
    *("tool_choice", "presence_penalty", "frequency_penalty", "dimensions"),
}


@dataclass(frozen=True)
class Rules:
    """What a server refuses, and how it answers; the defaults are those of a plain one."""

    stream_options: bool = True
    limit_field: str = "max_tokens"
    lists_models: bool = True
    key_header: str = "authorization"
    key: str = ""
    roles: frozenset[str] = frozenset(("system", "user", "assistant", "tool"))
    one_system: bool = False
    parts: bool = True
    usage: Body | None = field(
        default_factory=lambda: {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    )
    chunks: tuple[Body, ...] = ()
    done: bool = True
    vectors: tuple[Any, ...] = ()


class Refusal(Exception):
    """400 with these words."""


@dataclass
class Quirky:
    """A server that runs: where, and what it was sent."""

    url: str
    asked: list[Body] = field(default_factory=list)


@asynccontextmanager
async def quirky(rules: Rules) -> AsyncIterator[Quirky]:
    """Serve by these rules."""
    told = Quirky("")

    async def answer(request: web.Request) -> web.StreamResponse:
        if rules.key and request.headers.get(rules.key_header) != rules.key:
            return _error(401, "invalid_api_key", f"Incorrect API key provided: {rules.key}")
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
        body = json.loads(await request.read())
        told.asked.append(body)
        try:
            _check(body, rules)
        except Refusal as refused:
            return _error(400, "invalid_request_error", str(refused))
        if request.path == "/v1/embeddings":
            return web.json_response(_embedding(rules))
        return await _stream(request, body, rules)

    app = web.Application()
    app.router.add_post("/v1/{path:(chat/)?completions|embeddings}", answer)
    if rules.lists_models:
        app.router.add_get("/v1/models", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield told
    finally:
        await runner.cleanup()


def _check(body: Body, rules: Rules) -> None:
    if unknown := set(body) - KNOWN:
        raise Refusal(f"Unrecognized request argument supplied: {unknown}")
    limits = {"max_tokens", "max_completion_tokens"} - {rules.limit_field}
    if found := limits & set(body):
        raise Refusal(f"Unsupported parameter: {found} is not supported with this model")
    if "stream_options" in body and not rules.stream_options:
        raise Refusal("stream_options: Extra inputs are not permitted")
    if "input" not in body and body.get("stream") is not True:
        raise Refusal("only streams here")
    for place, message in enumerate(body.get("messages", ())):
        if message["role"] not in rules.roles:
            raise Refusal(f"{message['role']!r} is not one of {sorted(rules.roles)}")
        if not rules.parts and not isinstance(message.get("content"), str):
            raise Refusal("content: Input should be a valid string")
        if rules.one_system and place and message["role"] == "system":
            raise Refusal("System message must be at the beginning.")


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _embedding(rules: Rules) -> Body:
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(rules.vectors)
    ]
    return {"object": "list", "data": data[::-1], "usage": rules.usage}


async def _stream(request: web.Request, body: Body, rules: Rules) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    chunks = rules.chunks or (_said(body, "Paris"), _said(body, "."), _said(body, "", "stop"))
    wants_usage = body.get("stream_options", {}).get("include_usage") is True
    if wants_usage and rules.usage is not None:
        chunks = (*chunks, {"choices": [], "usage": rules.usage})
    for chunk in chunks:
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    if rules.done:
        await response.write(b"data: [DONE]\n\n")
    return response


def _said(body: Body, text: str, finish: str | None = None) -> Body:
    choice: Body = {"index": 0, "finish_reason": finish}
    choice |= {"text": text} if "prompt" in body else {"delta": {"content": text} if text else {}}
    return {"id": "c", "object": "chunk", "model": "m", "choices": [choice]}
