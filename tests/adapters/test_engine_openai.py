"""The OpenAI-compatible engine against llama.cpp's server, and against every fault we know."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrllm.adapters.engine_http import Limits
from nostrllm.adapters.engine_openai import OpenAIEngine, Quirks
from nostrllm.errors import ConfigError, EngineError
from nostrllm.ports import Delta
from nostrllm.wire.order import Usage
from tests.adapters.scripted import Script, Wire, scripted
from tests.benchmarks.mockengine import Connection

ASK = {
    "model": "smollm2",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "max_tokens": 24,
    "temperature": 0,
}
KEY = "sk-very-secret-key"


async def gather(engine: OpenAIEngine, body: dict[str, Any] | None = None) -> list[Delta]:
    """Every delta of one answer."""
    return [delta async for delta in engine.stream(body or ASK)]


async def fail(script: Script, **options: Any) -> EngineError:
    """The error that an answer by `script` ends in."""
    async with scripted(script) as server:
        engine = OpenAIEngine(server.url, api_key=KEY, **options)
        with pytest.raises(EngineError) as caught:
            await gather(engine)
    shown = "".join(traceback.format_exception(caught.value)) + repr(engine)
    assert KEY not in shown
    assert "capital of France" not in shown
    return caught.value


# against the real server


async def test_real_answer_has_text_usage_and_one_end(engine_url: str) -> None:
    """Text comes in pieces; the last delta alone carries finish reason and usage."""
    *pieces, last = await gather(OpenAIEngine(engine_url))
    assert "Paris" in "".join(piece.text for piece in pieces)
    assert all(piece.finish_reason is None and piece.usage is None for piece in pieces)
    assert last.finish_reason in {"stop", "length"}
    assert last.usage is not None
    assert last.usage.prompt > 20
    assert 1 <= last.usage.completion <= 24
    assert 0 <= last.usage.cached <= last.usage.prompt


async def test_real_limit_under_either_name(engine_url: str) -> None:
    """A limit on the answer's tokens holds, whatever the buyer or the server calls it."""
    asked = {**ASK, "max_completion_tokens": 3}
    del asked["max_tokens"]
    for quirks in (Quirks(), Quirks(limit_field="max_completion_tokens")):
        engine = OpenAIEngine(engine_url, quirks=quirks)
        last = (await gather(engine, asked))[-1]
        assert last.finish_reason == "length"
        assert last.usage is not None
        assert last.usage.completion == 3


async def test_real_models_and_health(engine_url: str) -> None:
    """The alias is listed."""
    engine = OpenAIEngine(engine_url)
    assert await engine.models() == ["smollm2"]
    await engine.health()


async def test_real_prompt_beyond_the_context(engine_url: str) -> None:
    """llama.cpp's refusal of a prompt longer than a slot is told apart."""
    messages = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(EngineError) as caught:
        await gather(OpenAIEngine(engine_url), {**ASK, "messages": messages})
    assert caught.value.code == "context-too-long"


async def test_real_generation_stops_when_the_iterator_is_closed(engine_url: str) -> None:
    """Nobody's answer burns no processor: the slot is free again."""
    endless = {**ASK, "max_tokens": 1900, "ignore_eos": True}
    async with aclosing(OpenAIEngine(engine_url).stream(endless)) as answer:
        await anext(answer)
        assert any(await busy_slots(engine_url))
    await all_free(engine_url)


async def test_real_generation_stops_when_its_task_is_cancelled(engine_url: str) -> None:
    """Cancellation is a way to close the iterator, too."""
    endless = {**ASK, "max_tokens": 1900, "ignore_eos": True}
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in OpenAIEngine(engine_url).stream(endless):
            begun.set()

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        await begun.wait()
        reading.cancel()
    await all_free(engine_url)


async def test_real_streams_side_by_side(engine_url: str) -> None:
    """More streams than slots all end, each with its usage."""
    engine = OpenAIEngine(engine_url)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(gather(engine, {**ASK, "max_tokens": 4})) for _ in range(6)]
    assert all(task.result()[-1].usage for task in tasks)


async def busy_slots(engine_url: str) -> list[bool]:
    """Which slots of llama.cpp's server are at work."""
    url = engine_url.removesuffix("/v1") + "/slots"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return [slot["is_processing"] for slot in await response.json()]


async def all_free(engine_url: str) -> None:
    """Wait until no slot is at work."""
    async with asyncio.timeout(20):
        while any(await busy_slots(engine_url)):
            continue


# against a scripted server


async def test_request_is_streamed_with_usage_whatever_was_asked() -> None:
    """The buyer's `stream` and `n` do not reach the server; his other fields do."""

    async def script(wire: Wire) -> None:
        await wire.open()
        await wire.text("ok", finish_reason="stop")
        await wire.end()

    async with scripted(script) as server:
        body = {**ASK, "stream": False, "n": 3, "seed": 7, "stream_options": {"x": 1}}
        engine = OpenAIEngine(server.url + "/", api_key=KEY, headers={"X-Title": "t"})
        await gather(engine, body)
    (wire,) = server.asked
    assert wire.path == "/v1/chat/completions"
    assert wire.headers["authorization"] == f"Bearer {KEY}"
    assert wire.headers["x-title"] == "t"
    assert wire.body == {
        **ASK,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_quirk_flags_change_the_request() -> None:
    """No stream_options for a server that refuses it, and its own name for the limit."""

    async def script(wire: Wire) -> None:
        await wire.open()
        await wire.text("ok", finish_reason="stop")
        await wire.end()

    async with scripted(script) as server:
        quirks = Quirks(include_usage=False, limit_field="max_completion_tokens")
        answer = await gather(OpenAIEngine(server.url, quirks=quirks))
    body = server.asked[0].body
    assert "stream_options" not in body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 24
    assert answer == [Delta(text="ok"), Delta(finish_reason="stop", usage=None)]


async def test_reasoning_tools_and_details_are_passed_on() -> None:
    """reasoning_content, tool call pieces as they come, cached and reasoning counts."""
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a'}}

    async def script(wire: Wire) -> None:
        await wire.open()
        await wire.part(b": keep-alive\n\ndata:\n\n")
        await wire.event({"choices": [{"delta": {"role": "assistant", "content": None}}]})
        await wire.event({"choices": [{"delta": {"reasoning_content": "hm"}}], "timings": {}})
        await wire.event({"choices": [{"delta": {"reasoning": "so"}}]})
        await wire.event({"choices": [{"delta": {"tool_calls": [call]}}]})
        await wire.event({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        await wire.event({"choices": [], "usage": usage})
        await wire.end()

    async with scripted(script) as server:
        answer = await gather(OpenAIEngine(server.url))
    assert answer == [
        Delta(reasoning="hm"),
        Delta(reasoning="so"),
        Delta(tool_calls=(call,)),
        Delta(
            finish_reason="tool_calls",
            usage=Usage(prompt=9, completion=5, cached=4, reasoning=2),
        ),
    ]


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "9"}, 5]
)
async def test_usage_that_cannot_be_believed_is_none(usage: Any) -> None:
    """An answer without a usable count is still an answer."""

    async def script(wire: Wire) -> None:
        await wire.open()
        await wire.text("ok", finish_reason="stop")
        await wire.event({"choices": [], "usage": usage})
        await wire.end()

    async with scripted(script) as server:
        assert (await gather(OpenAIEngine(server.url)))[-1] == Delta(finish_reason="stop")


REFUSALS = [
    (400, {"error": {"type": "exceed_context_size_error"}}, "context-too-long"),
    (400, {"error": {"code": "context_length_exceeded"}}, "context-too-long"),
    (400, {"error": {"message": "This model's maximum context length is 9"}}, "context-too-long"),
    (400, {"error": {"code": "model_not_found"}}, "model-unavailable"),
    (400, {"error": {"message": "Invalid model name passed in model=x"}}, "model-unavailable"),
    (400, {"error": {"message": "capital of France"}}, "message-invalid"),
    (422, ["?"], "message-invalid"),
    (401, {"error": KEY}, "model-unavailable"),
    (404, None, "model-unavailable"),
    (429, {"message": "slow down"}, "busy"),
    (503, {"error": {"message": "Loading model"}}, "busy"),
    (500, {"error": {"message": "capital of France"}}, "generation-failed"),
    (302, None, "generation-failed"),
]


@pytest.mark.parametrize(("status", "said", "code"), REFUSALS)
async def test_refusals_have_codes(status: int, said: Any, code: str) -> None:
    """Each refusal maps to one code, and none repeats what the server said."""

    async def script(wire: Wire) -> None:
        await wire.status(status, said)

    assert (await fail(script)).code == code


async def test_a_server_that_hangs_up_after_each_answer_is_asked_anew() -> None:
    """It promised to keep the connection, so the next request may meet its end at any moment."""

    async def script(wire: Wire) -> None:
        if len(server.asked) % 3 == 0:
            await wire.status(500)
            return
        await wire.open()
        await wire.text("Paris")
        await wire.text("", finish_reason="stop")
        await wire.end()

    async with scripted(script) as server, OpenAIEngine(server.url) as engine:
        for number in range(1, 61):
            for _ in range(number % 4):
                await asyncio.sleep(0)
            if number % 3 == 0:
                with pytest.raises(EngineError) as caught:
                    await gather(engine)
                assert caught.value.message.endswith("(500)")
            else:
                assert (await gather(engine))[0].text == "Paris"
    assert len(server.asked) == 60


async def test_connections_are_kept_and_closed_at_the_end() -> None:
    opened: list[Connection] = []

    def connection() -> Connection:
        opened.append(Connection(group, 3, 0.0))
        return opened[-1]

    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, OpenAIEngine(f"http://127.0.0.1:{port}/v1") as engine:
            for _ in range(5):
                assert "".join(delta.text for delta in await gather(engine)) == " tok0 tok1 tok2"
        assert len(opened) == 1


async def test_refusal_inside_the_stream() -> None:
    """An error event counts as a refusal."""

    async def script(wire: Wire) -> None:
        await wire.open()
        await wire.text("Par")
        await wire.event({"error": {"code": 429, "message": "overloaded"}})

    assert (await fail(script)).code == "busy"


async def _dies_at_once(_: Wire) -> None:
    return


async def _dies_mid_stream(wire: Wire) -> None:
    await wire.open()
    await wire.text("Par")


async def _ends_without_end(wire: Wire) -> None:
    await wire.open()
    await wire.text("Par")
    await wire.send(b"0\r\n\r\n")


async def _ends_empty(wire: Wire) -> None:
    await wire.open()
    await wire.end()


async def _is_no_stream(wire: Wire) -> None:
    await wire.status(200, {"choices": [{"message": {"content": "Paris"}}]})


async def _sends_garbage(wire: Wire) -> None:
    await wire.open()
    await wire.event("{not json")


async def _sends_a_list(wire: Wire) -> None:
    await wire.open()
    await wire.event([1])


async def _sends_number_as_text(wire: Wire) -> None:
    await wire.open()
    await wire.event({"choices": [{"delta": {"content": 5}}]})


async def _is_no_http(wire: Wire) -> None:
    await wire.send(b"\x00\x01\x02 hello\r\n\r\n")


async def _sends_huge_line(wire: Wire) -> None:
    await wire.open()
    await wire.part(b"data: " + b"x" * 3000)
    await wire.text("never read")


async def _never_ends(wire: Wire) -> None:
    await wire.open()
    while True:
        await wire.text("x" * 100)


FAULTS = [
    (_dies_at_once, "reached"),
    (_dies_mid_stream, "broke off"),
    (_ends_without_end, "broke off"),
    (_ends_empty, "no answer"),
    (_is_no_stream, "did not stream"),
    (_sends_garbage, "not JSON"),
    (_sends_a_list, "not an object"),
    (_sends_number_as_text, "not text"),
    (_is_no_http, "reached"),
    (_sends_huge_line, "too long"),
    (_never_ends, "too large"),
]


@pytest.mark.parametrize(("script", "words"), FAULTS)
async def test_faults_are_failed_generations(
    script: Callable[[Wire], Awaitable[None]], words: str
) -> None:
    """Whatever a server does wrong is a failed generation, in words of our own."""
    error = await fail(script, limits=Limits(line_bytes_max=2000, total_bytes_max=20_000))
    assert error.code == "generation-failed"
    assert words in error.message


async def test_nobody_listens() -> None:
    """A server that is not there is a failed generation, also for the list of models."""
    async with scripted(_dies_at_once) as server:
        url = server.url
    engine = OpenAIEngine(url)
    with pytest.raises(EngineError, match="reached"):
        await gather(engine)
    with pytest.raises(EngineError, match="reached"):
        await engine.health()


async def test_answer_without_its_done_still_counts() -> None:
    """A cut after the finish reason costs the usage, not the answer."""

    async def script(wire: Wire) -> None:
        await wire.open()
        await wire.text("ok", finish_reason="stop")

    async with scripted(script) as server:
        assert await gather(OpenAIEngine(server.url)) == [
            Delta(text="ok"),
            Delta(finish_reason="stop"),
        ]


async def _says_nothing(wire: Wire) -> None:
    await asyncio.Event().wait()


async def _only_comments(wire: Wire) -> None:
    await wire.open()
    while True:
        await wire.part(b": processing\n\n")
        await asyncio.sleep(0.01)


async def _stalls(wire: Wire) -> None:
    await wire.open()
    await wire.text("Par")
    await asyncio.Event().wait()


@pytest.mark.parametrize("script", [_says_nothing, _only_comments, _stalls])
async def test_slow_server_is_given_up(script: Callable[[Wire], Awaitable[None]]) -> None:
    """Waiting has an end, before and after the first token, and comments do not extend it."""
    error = await fail(script, limits=Limits(first_s=0.2, idle_s=0.1))
    assert error.code == "generation-failed"
    assert "too long" in error.message


async def test_closing_hangs_up_on_the_server() -> None:
    """The server sees the connection end when the iterator is closed."""
    async with scripted(_stalls) as server:
        async with aclosing(OpenAIEngine(server.url).stream(ASK)) as answer:
            assert await anext(answer) == Delta(text="Par")
        async with asyncio.timeout(10):
            await server.hung_up.wait()


@pytest.mark.parametrize("body", [None, [], {"data": 5}, {}])
async def test_list_of_models_that_is_none(body: Any) -> None:
    """Only an OpenAI list counts."""

    async def script(wire: Wire) -> None:
        await wire.status(200, body)

    async with scripted(script) as server:
        with pytest.raises(EngineError):
            await OpenAIEngine(server.url).models()


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://me:pass@host/v1"])
def test_wrong_urls_are_refused(url: str) -> None:
    """A password in the URL would end in logs."""
    with pytest.raises(ConfigError) as caught:
        OpenAIEngine(url)
    assert "pass@" not in str(caught.value)


async def test_endless_list_of_models_is_given_up() -> None:
    """Neither its size nor its slowness can hold us."""

    async def huge(wire: Wire) -> None:
        await wire.status(200, "x" * (5 << 20))

    async def slow(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
        await asyncio.Event().wait()

    for script, list_s in ((huge, 60.0), (slow, 0.5)):
        async with scripted(script, lists=True) as server:
            with pytest.raises(EngineError, match=r"no usable answer|too long"):
                await OpenAIEngine(server.url, limits=Limits(list_s=list_s)).models()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "usage", "error", "tool_calls"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chunks=st.lists(JSON, max_size=4))
async def test_any_chunks_give_an_answer_or_an_engine_error(chunks: list[Any]) -> None:
    """The reading of a hostile server's chunks is total."""

    async def script(wire: Wire) -> None:
        await wire.open()
        for chunk in chunks:
            await wire.event(chunk)
        await wire.end()

    async with scripted(script) as server:
        try:
            answer = await gather(OpenAIEngine(server.url))
        except EngineError:
            return
    assert answer[-1].finish_reason is not None
