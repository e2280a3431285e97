"""Each quirk flag against a server that refuses whoever does not set it."""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from typing import Any

import pytest

from nostrllm.adapters.engine_http import Limits
from nostrllm.adapters.engine_openai import OpenAIEngine, Quirks
from nostrllm.errors import ConfigError, EngineError
from nostrllm.ports import Delta, Task
from nostrllm.wire.order import Usage
from tests.adapters.quirky import Rules, quirky

PARTS = [{"type": "text", "text": "Capital"}, {"type": "text", "text": "of France?"}]
ASK: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": PARTS},
        {"role": "system", "content": "No jokes."},
        {"role": "user", "content": "Go."},
    ],
    "max_tokens": 5,
}
CALL = {"function": {"name": "f", "arguments": "{}"}, "type": "function"}
VECTORS = ([1.0, 0.5], [0.0, -2.0])


async def gather(
    engine: OpenAIEngine, body: dict[str, Any] | None = None, task: Task = "chat"
) -> list[Delta]:
    """Every delta of one answer."""
    return [delta async for delta in engine.stream(body or ASK, task)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    ("rules", "quirks"),
    [
        (Rules(stream_options=False), Quirks(include_usage=False)),
        (
            Rules(limit_field="max_completion_tokens"),
            Quirks(limit_field="max_completion_tokens"),
        ),
        (Rules(one_system=True), Quirks(one_system=True)),
        (Rules(key="sk-secret", key_header="api-key"), Quirks(key_header="api-key")),
    ],
)
async def test_a_flag_is_needed_and_enough(rules: Rules, quirks: Quirks) -> None:
    """Without it the server refuses; with it the answer comes."""
    async with quirky(rules) as server:
        with pytest.raises(EngineError) as caught:
            await gather(OpenAIEngine(server.url, api_key="sk-secret"))
        assert caught.value.code in {"message-invalid", "model-unavailable"}
        answer = await gather(OpenAIEngine(server.url, api_key="sk-secret", quirks=quirks))
    assert text_of(answer) == "Paris."
    assert answer[-1].finish_reason == "stop"
    assert (answer[-1].usage is None) == (not quirks.include_usage)


async def test_a_strict_plain_server_needs_no_flag() -> None:
    """Parts that are all text travel as a string, and a developer is a system to it."""
    async with quirky(Rules(parts=False)) as server:
        answer = await gather(OpenAIEngine(server.url))
    assert text_of(answer) == "Paris."
    assert answer[-1].usage == Usage(prompt=9, completion=2)
    sent = server.asked[0]["messages"]
    assert [each["role"] for each in sent] == ["system", "user", "system", "user"]
    assert sent[1]["content"] == "Capital\nof France?"


async def test_one_system_message_keeps_them_all() -> None:
    async with quirky(Rules(one_system=True)) as server:
        await gather(OpenAIEngine(server.url, quirks=Quirks(one_system=True)))
    sent = server.asked[0]["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief.\n\nNo jokes."}
    assert [each["role"] for each in sent] == ["system", "user", "user"]


async def test_a_server_without_a_list_of_models() -> None:
    """It is well as long as it says 404 to it; with the list expected, it is not."""
    async with quirky(Rules(lists_models=False)) as server:
        with pytest.raises(EngineError):
            await OpenAIEngine(server.url).health()
        engine = OpenAIEngine(server.url, quirks=Quirks(lists_models=False))
        assert await engine.models() == []
        await engine.health()
    with pytest.raises(EngineError):
        await engine.health()


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 9, "completion_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 2},
    ],
)
async def test_counts_that_cannot_be_are_none(usage: dict[str, Any] | None) -> None:
    """The provider estimates then; a free answer is nobody's wish."""
    async with quirky(Rules(usage=usage)) as server:
        assert (await gather(OpenAIEngine(server.url)))[-1].usage is None


async def test_timings_stand_in_for_usage() -> None:
    """llama.cpp counts there what it was not asked to report."""
    timings = {"cache_n": 4, "prompt_n": 5, "predicted_n": 3, "predicted_per_second": 9.1}
    chunks = (
        {"choices": [{"delta": {"content": "Paris"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": timings},
    )
    async with quirky(Rules(stream_options=False, chunks=chunks)) as server:
        answer = await gather(OpenAIEngine(server.url, quirks=Quirks(include_usage=False)))
    assert answer[-1].usage == Usage(prompt=9, completion=3, cached=4)


async def test_tool_calls_without_an_index_stay_apart() -> None:
    """Whole calls, told apart by their ids; a piece without one belongs to the last."""
    calls = [{**CALL, "id": "a"}, {**CALL, "id": "b"}]
    chunks = (
        {"choices": [{"delta": {"tool_calls": calls}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": " "}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    )
    async with quirky(Rules(chunks=chunks)) as server:
        answer = await gather(OpenAIEngine(server.url))
    assert [call["index"] for delta in answer for call in delta.tool_calls] == [0, 1, 1]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_under_either_name(name: str) -> None:
    chunks = (
        {"choices": [{"delta": {name: "hm"}}]},
        {"choices": [{"delta": {"content": "ok"}, "finish_reason": "eos_token"}]},
    )
    async with quirky(Rules(chunks=chunks, done=False)) as server:
        answer = await gather(OpenAIEngine(server.url))
    assert answer[0] == Delta(reasoning="hm")
    assert answer[-1].finish_reason == "stop"


async def test_an_error_in_the_old_form_of_vllm() -> None:
    chunks = ({"object": "error", "message": "CUDA out of memory: Paris", "code": 400},)
    async with quirky(Rules(chunks=chunks)) as server:
        with pytest.raises(EngineError) as caught:
            await gather(OpenAIEngine(server.url))
    assert caught.value.code == "message-invalid"
    assert "Paris" not in caught.value.message


async def test_numbers_of_any_length_reach_the_server() -> None:
    """A schema may bound a number where 64 bits end."""
    schema = {"type": "integer", "maximum": 10**30}
    body = {**ASK, "tools": [{"type": "function", "function": {"parameters": schema}}]}
    async with quirky(Rules()) as server:
        await gather(OpenAIEngine(server.url), body)
    assert server.asked[0]["tools"][0]["function"]["parameters"] == schema


async def test_a_completion_is_streamed() -> None:
    async with quirky(Rules()) as server:
        body = {"model": "m", "prompt": "The capital of France is", "max_tokens": 4}
        answer = await gather(OpenAIEngine(server.url), body, "completion")
    assert text_of(answer) == "Paris."
    assert answer[-1] == Delta(finish_reason="stop", usage=Usage(prompt=9, completion=2))


@pytest.mark.parametrize("packed", [False, True])
async def test_vectors_come_in_the_order_of_the_texts(packed: bool) -> None:
    """Whether the server sends numbers or base64."""
    raw = [struct.pack("<2f", *vector) for vector in VECTORS]
    vectors = tuple(b64encode(each).decode() for each in raw) if packed else VECTORS
    async with quirky(Rules(vectors=vectors)) as server:
        body = {"model": "m", "input": ["a", "b"]}
        first, last = await gather(OpenAIEngine(server.url), body, "embedding")
    assert [b64decode(each) for each in json.loads(first.text)] == raw
    assert last == Delta(finish_reason="stop", usage=Usage(prompt=9))


@pytest.mark.parametrize(
    "vectors",
    [
        ([1.0],),
        ([1.0], [1.0, 2.0]),
        ([], []),
        ([1e39], [1.0]),
        (["x"], [1.0]),
        ("*", "*"),
        (None, None),
        ("", ""),
        (b64encode(struct.pack("<f", float("nan"))).decode(),) * 2,
    ],
)
async def test_vectors_that_are_none(vectors: tuple[Any, ...]) -> None:
    async with quirky(Rules(vectors=vectors)) as server:
        with pytest.raises(EngineError) as caught:
            await gather(OpenAIEngine(server.url), {"input": ["a", "b"]}, "embedding")
    assert caught.value.code == "generation-failed"


async def test_only_so_many_requests_are_out_at_once() -> None:
    """One more waits as long as for its first piece, then it is told that we are busy."""
    async with quirky(Rules()) as server:
        engine = OpenAIEngine(server.url, limits=Limits(connections=1, first_s=0.3))
        first = engine.stream(ASK)
        await anext(first)
        with pytest.raises(EngineError) as caught:
            await gather(engine)
        assert caught.value.code == "busy"
        await first.aclose()
        assert text_of(await gather(engine)) == "Paris."


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-ü", "x" * 5_000])
def test_a_key_that_cannot_be_sent_is_named_but_not_shown(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIEngine("http://127.0.0.1/v1", api_key=key)
    assert key not in str(caught.value)
