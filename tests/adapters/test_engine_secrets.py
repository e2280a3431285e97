"""No key and no prompt comes out of an engine, whatever its server does with them."""

from __future__ import annotations

import io
import json
import string
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.engine_anthropic import AnthropicEngine
from nostrllm.adapters.engine_http import Limits
from nostrllm.adapters.engine_openai import OpenAIEngine, Quirks
from nostrllm.core.breaker import FAILURES_MAX
from nostrllm.errors import ConfigError, EngineError
from nostrllm.ports import Engine, Task
from nostrllm.provider.backend import Backend
from nostrllm.provider.slots import Slots
from nostrllm.service.backend_tables import AnthropicBackend, OpenAIBackend
from nostrllm.service.backends import check_backends
from nostrllm.service.logs import setup
from tests.adapters.scripted import Wire, scripted

LIMITS = Limits(first_s=20.0, idle_s=20.0)

keys = st.text(string.ascii_letters + string.digits, min_size=12, max_size=60)
makers: st.SearchStrategy[Callable[[str, str], Engine]] = st.sampled_from(
    [
        lambda url, key: OpenAIEngine(url, api_key=key, limits=LIMITS),
        lambda url, key: OpenAIEngine(
            url, api_key=key, limits=LIMITS, quirks=Quirks(key_header="api-key")
        ),
        lambda url, key: AnthropicEngine(url, api_key=key, limits=LIMITS),
    ]
)
ways = st.sampled_from(
    ["status", "event", "garbage", "no http", "redirect", "cut", "no stream", "hang up"]
)
statuses = st.sampled_from([301, 400, 401, 403, 404, 413, 429, 500, 503, 529])
tasks: st.SearchStrategy[Task] = st.sampled_from(["chat", "completion", "embedding"])


def bodies(prompt: str) -> dict[Task, dict[str, Any]]:
    """A request of each kind."""
    messages = [{"role": "user", "content": prompt}]
    return {
        "chat": {"model": "m", "messages": messages, "max_tokens": 5},
        "completion": {"model": "m", "prompt": prompt, "max_tokens": 5},
        "embedding": {"model": "m", "input": [prompt]},
    }


async def _answer(wire: Wire, way: str, status: int, said: str) -> None:
    """All that the server knows, in the worst of places."""
    error = {"type": "error", "error": {"type": said, "code": said, "message": said}}
    match way:
        case "status":
            await wire.status(status, error)
        case "no stream":
            await wire.status(200, error)
        case "redirect":
            head = f"HTTP/1.1 302 {said}\r\nLocation: http://127.0.0.1:9/{said}\r\n"
            await wire.send(f"{head}Content-Length: 0\r\n\r\n".encode())
        case "no http":
            await wire.send(said.encode() + b"\r\n\r\n")
        case "hang up":
            return
        case _:
            await wire.open()
            await wire.event(error if way == "event" else said)
            if way != "cut":
                await wire.end()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(key=keys, prompt=keys, make=makers, way=ways, status=statuses, task=tasks)
async def test_no_way_to_fail_tells_the_key_or_the_prompt(
    key: str, prompt: str, make: Callable[[str, str], Engine], way: str, status: int, task: Task
) -> None:
    """Neither in the error, its traceback, the engine's name, nor the log of the back-end."""

    async def script(wire: Wire) -> None:
        said = f"{key} {prompt} {wire.headers.get('authorization')}"
        await _answer(wire, way, status, said)

    shown = io.StringIO()
    setup(stream=shown)
    async with scripted(script) as server:
        engine = make(server.url, key)
        clock = SystemClock()
        backend = Backend("b", engine, Slots(1, 0, clock), clock)
        for _ in range(FAILURES_MAX):
            try:
                async for _ in backend.stream(bodies(prompt)[task], task):
                    pass
            except EngineError as error:
                structlog.get_logger().exception("part_failed", part="x")
                shown.write("".join(traceback.format_exception(error)))
                shown.write(repr(error) + repr(error.__dict__))
        for ask in (engine.health, engine.models):
            try:
                await ask()
            except EngineError as error:
                shown.write("".join(traceback.format_exception(error)))
    shown.write(repr(engine) + repr(vars(engine)) + repr(backend.status))
    structlog.reset_defaults()
    assert key not in shown.getvalue()
    assert prompt not in shown.getvalue()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(key=keys, kind=st.sampled_from([OpenAIBackend, AnthropicBackend]), where=st.booleans())
async def test_check_tells_no_key(
    key: str, kind: type[OpenAIBackend | AnthropicBackend], where: bool, tmp_path_factory: Any
) -> None:
    """A file that others can read, a key that cannot be sent, a server that says it back."""

    async def script(wire: Wire) -> None:
        await wire.status(401, {"error": {"message": key}})

    path = tmp_path_factory.mktemp("key") / "key"
    path.touch(mode=0o644 if where else 0o600)
    path.write_text(key)
    async with scripted(script) as server:
        name = "openai" if kind is OpenAIBackend else "anthropic"
        table = kind.model_validate({"kind": name, "url": server.url, "key_file": path})
        found = await check_backends({"b": table}, [], path.parent)
    assert found[0][1] is not None
    assert key not in json.dumps(found)
    for bad in (f"{key}\n{key}", f"{key}é"):
        with pytest.raises(ConfigError) as caught:
            OpenAIEngine("http://127.0.0.1/v1", api_key=bad)
        assert key not in "".join(traceback.format_exception(caught.value))
