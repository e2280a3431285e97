"""LiteLLM's proxy in front of the real model: a second server of both APIs, in its own way."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.engine_anthropic import AnthropicEngine
from nostrllm.adapters.engine_openai import OpenAIEngine, Quirks
from nostrllm.errors import EngineError
from nostrllm.ports import Delta, Engine, Task

pytestmark = pytest.mark.interop

KEY = "sk-of-this-test"
CONFIG = """
model_list:
  - model_name: small
    litellm_params: {{model: openai/smollm2, api_base: "{url}", api_key: none}}
general_settings: {{master_key: "{key}"}}
"""
ASK: dict[str, Any] = {
    "model": "small",
    "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
    ],
    "max_tokens": 8,
}


@pytest.fixture(scope="session")
def proxy_url(engine_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The proxy, from NOSTRLLM_LITELLM or the path; ends in /v1."""
    program = os.environ.get("NOSTRLLM_LITELLM") or shutil.which("litellm")
    if program is None:
        pytest.skip("needs litellm[proxy]; name its program with NOSTRLLM_LITELLM")
    folder = tmp_path_factory.mktemp("litellm")
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(url=engine_url, key=KEY))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=log,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
    try:
        _await(f"http://127.0.0.1:{port}/health/liveliness", process, folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(log.read_text()[-2_000:])


async def gather(
    engine: Engine, body: dict[str, Any] | None = None, task: Task = "chat"
) -> list[Delta]:
    """Every delta of one answer."""
    return [delta async for delta in engine.stream(body or ASK, task)]


async def test_models_and_answers_with_usage(proxy_url: str) -> None:
    async with OpenAIEngine(proxy_url, api_key=KEY) as engine:
        assert await engine.models() == ["small"]
        await engine.health()
        complete = {"model": "small", "prompt": "The capital of France is", "max_tokens": 4}
        for answer in (await gather(engine), await gather(engine, complete, "completion")):
            usage = answer[-1].usage
            assert usage is not None
            assert usage.prompt >= 4
            assert 1 <= usage.completion <= 8


@pytest.mark.parametrize(
    "quirks", [Quirks(include_usage=False), Quirks(limit_field="max_completion_tokens")]
)
async def test_quirks(proxy_url: str, quirks: Quirks) -> None:
    answer = await gather(OpenAIEngine(proxy_url, api_key=KEY, quirks=quirks))
    assert answer[-1].finish_reason in {"stop", "length"}
    assert (answer[-1].usage is None) == (not quirks.include_usage)


async def test_refusals(proxy_url: str) -> None:
    engine = OpenAIEngine(proxy_url, api_key=KEY)
    long = [{"role": "user", "content": "word " * 4_000}]
    for body, code in (
        ({**ASK, "model": "none"}, "model-unavailable"),
        ({**ASK, "messages": long}, "context-too-long"),
    ):
        with pytest.raises(EngineError) as caught:
            await gather(engine, body)
        assert caught.value.code == code


async def test_closing_ends_the_answer(proxy_url: str) -> None:
    engine = OpenAIEngine(proxy_url, api_key=KEY)
    async with aclosing(engine.stream({**ASK, "max_tokens": 800})) as answer:
        await anext(answer)


async def test_messages_api(proxy_url: str) -> None:
    answer = await gather(AnthropicEngine(proxy_url, api_key=KEY))
    assert answer[-1].finish_reason in {"stop", "length"}
    assert answer[-1].usage is not None
    assert answer[-1].usage.completion >= 1
