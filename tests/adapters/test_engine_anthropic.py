"""The Anthropic engine against a server that checks as theirs does, and against llama.cpp's own."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrllm.adapters.anthropic_request import messages_body
from nostrllm.adapters.engine_anthropic import AnthropicEngine
from nostrllm.adapters.engine_http import Limits
from nostrllm.errors import EngineError
from nostrllm.ports import Delta
from nostrllm.wire.order import Usage
from tests.adapters.messages_server import (
    ANSWER,
    KEY,
    PING,
    Event,
    Messages,
    block,
    ended,
    failed,
    messages_server,
    started,
    text,
)

ASK: dict[str, Any] = {
    "model": "claude",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "max_tokens": 24,
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"


async def gather(
    server: Messages, body: dict[str, Any] | None = None, **options: Any
) -> list[Delta]:
    """Every delta of one answer."""
    engine = AnthropicEngine(server.url, api_key=KEY, **options)
    return [delta async for delta in engine.stream(body or ASK)]


async def fail(server: Messages, **options: Any) -> EngineError:
    """The error that an answer ends in; nothing of key or prompt is in it."""
    with pytest.raises(EngineError) as caught:
        await gather(server, **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert "capital of France" not in shown
    return caught.value


async def test_an_answer_has_text_and_usage() -> None:
    async with messages_server() as server:
        *pieces, last = await gather(server)
    assert "".join(piece.text for piece in pieces) == "The capital is Paris."
    assert last == Delta(finish_reason="stop", usage=Usage(prompt=10, completion=5))
    assert server.asked[0]["system"] == [{"type": "text", "text": "You are a helpful assistant."}]


async def test_cached_and_thought_tokens_are_told_apart() -> None:
    """Their `input_tokens` leave cached ones out; the later count stands for the earlier."""
    async with messages_server() as server:
        details = {"output_tokens_details": {"thinking_tokens": 3}}
        server.events = [
            started(cache_creation_input_tokens=2, cache_read_input_tokens=4),
            *block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "France…"},
                {"type": "signature_delta", "signature": "Eq"},
            ),
            *block(1, {"type": "redacted_thinking", "data": "x"}),
            *text(2, "Paris"),
            {"type": "something_new"},
            *ended("end_turn", input_tokens=11, **details),
        ]
        answer = await gather(server)
    assert answer == [
        Delta(reasoning="France…"),
        Delta(text="Paris"),
        Delta(
            finish_reason="stop",
            usage=Usage(prompt=17, completion=5, cached=4, reasoning=3),
        ),
    ]


async def test_tools_there_and_back() -> None:
    """Two calls in one answer; then their results, as one message of the user."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    called: list[Event] = []
    for index, city in enumerate(("Paris", "Rome"), 1):
        content = {"type": "tool_use", "id": f"toolu_{index}", "name": "weather", "input": {}}
        pieces = ("", '{"city": ', f'"{city}"}}')
        deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
        called += block(index, content, *deltas)
    async with messages_server() as server:
        server.events = [started(), *text(0, "Let me see."), *called, *ended("tool_use")]
        body = {**ASK, "tools": [tool], "tool_choice": "required"}
        answer = await gather(server, body)
        assert answer[-1].finish_reason == "tool_calls"
        calls = [call for delta in answer for call in delta.tool_calls]
        assert [call["index"] for call in calls] == [0, 0, 0, 1, 1, 1]
        made = [
            {
                "id": f"toolu_{index + 1}",
                "type": "function",
                "function": {
                    "name": "weather",
                    "arguments": "".join(
                        call["function"]["arguments"] for call in calls if call["index"] == index
                    ),
                },
            }
            for index in (0, 1)
        ]
        server.events = list(ANSWER)
        body["messages"] = [
            *ASK["messages"],
            {"role": "assistant", "content": None, "tool_calls": made},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "sun"},
            {"role": "tool", "tool_call_id": "toolu_2", "content": "rain"},
        ]
        await gather(
            server, {**body, "tool_choice": {"type": "function", "function": {"name": "weather"}}}
        )
    first, second = server.asked
    assert first["tool_choice"] == {"type": "any"}
    assert first["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert second["tool_choice"] == {"type": "tool", "name": "weather"}
    assert second["messages"][1]["content"][1]["input"] == {"city": "Rome"}
    assert [each["type"] for each in second["messages"][2]["content"]] == ["tool_result"] * 2


async def test_images_and_every_parameter_are_mapped() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "text", "text": ""},
    ]
    schema = {"type": "object", "properties": {"it": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    body = {
        **ASK,
        "messages": [{"role": "user", "content": parts}, {"role": "user", "content": "Say."}],
        "temperature": 1.7,
        "top_p": 0.5,
        "stop": "\n",
        "response_format": form,
    }
    async with messages_server() as server:
        with pytest.raises(EngineError):
            await gather(server, body)
        await gather(server, body, version="2023-06-01")
    sent = server.asked[0]
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert sent["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": source},
                {"type": "text", "text": "Say."},
            ],
        }
    ]
    assert (sent["temperature"], sent["top_p"], sent["stop_sequences"]) == (1.0, 0.5, ["\n"])
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "system" not in sent


USER = {"role": "user", "content": "Hi"}
BAD_CALL = {"type": "function", "function": {"name": "f", "arguments": "["}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 7},
        {"presence_penalty": 1},
        {"temperature": 1.0},
        {"top_p": 1.0},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [BAD_CALL]}]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": 5}}]}]},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"messages": [{"role": "system", "content": [IMAGE]}, USER]},
        {"tools": [{"type": "code"}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "maybe"},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_cannot_be_mapped_is_refused(fields: dict[str, Any]) -> None:
    """A parameter is never dropped in silence."""
    with pytest.raises(EngineError) as caught:
        messages_body({**ASK, **fields}, "2026-10-21")
    assert caught.value.code == "message-invalid"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("of the future", "stop"),
    ],
)
async def test_stop_reasons(reason: str, finish: str) -> None:
    async with messages_server() as server:
        server.events = [started(), *text(0, "x"), *ended(reason)]
        assert (await gather(server))[-1].finish_reason == finish


REFUSALS = [
    ("invalid_request_error", "prompt is too long: 200001 tokens > 200000", "context-too-long"),
    ("invalid_request_error", "capital of France", "message-invalid"),
    ("authentication_error", KEY, "model-unavailable"),
    ("not_found_error", "model: x", "model-unavailable"),
    ("rate_limit_error", "slow down", "busy"),
    ("overloaded_error", "Overloaded", "busy"),
    ("api_error", "capital of France", "generation-failed"),
]


@pytest.mark.parametrize(("kind", "message", "code"), REFUSALS)
@pytest.mark.parametrize("when", ["at once", "in the stream"])
async def test_refusals_have_codes(kind: str, message: str, code: str, when: str) -> None:
    """The same, whether it comes as a status or as an event after the first words."""
    async with messages_server() as server:
        if when == "at once":
            server.refuse = (kind, message)
        else:
            server.events = [started(), *text(0, "The"), failed(kind, message)]
        assert (await fail(server)).code == code


async def test_a_wrong_key_is_no_secret_spilt() -> None:
    async with messages_server() as server:
        engine = AnthropicEngine(server.url, api_key="sk-ant-wrong")
        with pytest.raises(EngineError) as caught:
            await engine.health()
    assert caught.value.code == "model-unavailable"
    assert "wrong" not in str(caught.value) + repr(engine)


@pytest.mark.parametrize("length", range(len(ANSWER) - 2))
async def test_a_stream_that_is_cut_is_a_failed_generation(length: int) -> None:
    """Wherever before the stop reason."""
    async with messages_server() as server:
        server.events = ANSWER[:length]
        assert (await fail(server)).code == "generation-failed"


async def test_after_the_stop_reason_the_answer_stands() -> None:
    async with messages_server() as server:
        server.events = ANSWER[:-1]
        assert (await gather(server))[-1].usage == Usage(prompt=10, completion=5)


async def test_pings_keep_nobody_waiting_for_ever() -> None:
    async with messages_server() as server:
        server.events, server.stay_open = [started(), PING], True
        error = await fail(server, limits=Limits(first_s=0.3, idle_s=0.1))
    assert "too long" in error.message


async def test_closing_hangs_up_on_the_server() -> None:
    async with messages_server() as server:
        server.events, server.stay_open = [started(), *text(0, "The")], True
        engine = AnthropicEngine(server.url, api_key=KEY)
        async with aclosing(engine.stream(ASK)) as answer:
            assert await anext(answer) == Delta(text="The")
        async with asyncio.timeout(10):
            await server.hung_up.wait()


async def test_models_of_every_page() -> None:
    async with messages_server() as server, AnthropicEngine(server.url, api_key=KEY) as engine:
        assert await engine.models() == ["claude", "claude-old", "claude-new"]
        await engine.health()


async def test_only_chat() -> None:
    engine = AnthropicEngine("http://127.0.0.1:1/v1")
    with pytest.raises(EngineError) as caught:
        engine.stream({"prompt": "x"}, "completion")
    assert caught.value.code == "message-invalid"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "delta", "text", "usage", "error", "index", "content_block"]),
            inner | st.sampled_from(["content_block_start", "content_block_delta", "tool_use"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


WORDS = st.sampled_from(["type", "delta", "index", "usage"])
TYPES = st.sampled_from(["content_block_delta", "message_delta", "content_block_start"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(st.dictionaries(WORDS, JSON | TYPES, max_size=4), max_size=4))
async def test_any_events_give_an_answer_or_an_engine_error(events: list[Any]) -> None:
    """The reading of a hostile server's events is total."""
    async with messages_server() as server:
        server.events = [{"type": "x", **event} for event in events]
        try:
            answer = await gather(server)
        except EngineError:
            return
    assert answer[-1].finish_reason is not None


# against llama.cpp, which speaks this API too


async def test_real_answer(engine_url: str) -> None:
    engine = AnthropicEngine(engine_url)
    *pieces, last = [delta async for delta in engine.stream({**ASK, "model": "smollm2"})]
    assert "".join(piece.text for piece in pieces).strip()
    assert last.finish_reason in {"stop", "length"}
    assert last.usage is not None
    assert last.usage.prompt > 20
    assert 1 <= last.usage.completion <= 24
    assert await engine.models() == ["smollm2"]


async def test_real_prompt_beyond_the_context(engine_url: str) -> None:
    messages = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(EngineError) as caught:
        async for _ in AnthropicEngine(engine_url).stream({**ASK, "messages": messages}):
            pass
    assert caught.value.code == "context-too-long"
