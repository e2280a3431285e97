"""A provider's back-ends of each kind, from an order to its paid answer, and one that fails."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from nostrllm.core.breaker import FAILURES_MAX
from nostrllm.devnet import weights
from nostrllm.wire import order as wire
from tests.adapters.messages_server import KEY, messages_server
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import (
    CLOCK,
    Buyer,
    Replies,
    Stall,
    buying,
    config_text,
    question,
    selling,
)

ANTHROPIC = """
[[backend]]
kind = "anthropic"
url = "{engine}"
key_file = "KEY_FILE"
models = ["smollm2"]

[[backend]]
kind = "openai"
name = "nobody"
url = "http://127.0.0.1:9/v1"
"""

LLAMACPP = """
[[backend]]
kind = "llamacpp"
gguf = "{engine}"
models = ["smollm2"]
threads = 1
slots = 2
"""


async def ask(
    buyer: Buyer, stall: Stall, replies: Replies, **fields: Any
) -> wire.Result | wire.Refused:
    """How an order that is paid by a token ends."""
    payment = wire.TokenPayment(token=await buyer.token(64))
    order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
    await buyer.send(buyer.message(order), stall.pubkey)
    while True:
        said = await replies.next()
        if isinstance(said, wire.Result | wire.Refused):
            return said


async def test_anthropic(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    """The model's back-end is the one that lists it; its usage is what is charged."""
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(KEY + "\n")
    async with messages_server() as server:
        backend = ANTHROPIC.replace("KEY_FILE", str(key))
        text = config_text(tmp_path / "stall", [relay_url], mint_url, server.url, backend=backend)
        text = text.replace('upstream = "smollm2"', 'upstream = "claude"')
        text = text.replace('models = ["smollm2"]', 'models = ["claude"]')
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
            buyer.listening() as replies,
        ):
            result = await ask(buyer, stall, replies)
            assert isinstance(result, wire.Result)
            assert result.text == "The capital is Paris."
            assert result.usage == wire.Usage(prompt=10, completion=5)
            assert result.cost_msat == 10 * 20 + 5 * 60 + 1_000
    assert server.asked[0]["system"][0]["text"] == "You are a helpful assistant."


async def test_llamacpp(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    """The child is there for the order, and gone when the provider is."""
    pytest.importorskip("xllamacpp")
    gguf = str(weights.fetch())
    text = config_text(tmp_path / "stall", [relay_url], mint_url, gguf, backend=LLAMACPP)
    async with (
        selling(text) as stall,
        buying(relay_url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        result = await ask(buyer, stall, replies)
        assert isinstance(result, wire.Result)
        assert result.text
        assert 1 <= result.usage.completion <= 24
        assert result.usage.prompt > 20
        engine = stall.world.engines["llamacpp"]
        assert (await engine.load()).slots == 2


async def test_images_reach_a_model_that_sees_and_addresses_reach_none(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08"
    packed = b64encode(png).decode()
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(KEY)
    async with messages_server() as server:
        backend = ANTHROPIC.replace("KEY_FILE", str(key)).replace("smollm2", "claude")
        text = config_text(tmp_path / "stall", [relay_url], mint_url, server.url, backend=backend)
        text = text.replace("max_tokens = 64", 'max_tokens = 64\nmodalities = ["text", "image"]')
        text = text.replace('upstream = "smollm2"', 'upstream = "claude"')
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
            buyer.listening() as replies,
        ):
            body = picture(f"data:image/png;base64,{packed}")
            seen = await ask(buyer, stall, replies, body=body)
            assert isinstance(seen, wire.Result)
            assert seen.text == "The capital is Paris."
            for url in ("http://169.254.169.254/x.png", f"data:image/gif;base64,{packed}"):
                refused = await ask(buyer, stall, replies, body=picture(url))
                assert isinstance(refused, wire.Refused)
                assert refused.problem.code == "message-invalid"
            blind = await ask(buyer, stall, replies, body=body, model="free")
            assert isinstance(blind, wire.Refused)
    [asked] = server.asked
    source = {"type": "base64", "media_type": "image/png", "data": packed}
    assert asked["messages"][0]["content"][1] == {"type": "image", "source": source}


def picture(url: str) -> wire.ChatRequest:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return wire.ChatRequest(messages=[wire.ChatMessage(role="user", content=parts)], max_tokens=24)


async def test_vectors_are_bought(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    """Only the prompt is charged; the same model is not asked to chat."""
    pytest.importorskip("xllamacpp")
    backend = LLAMACPP + 'embeddings = true\npooling = "mean"\n'
    text = config_text(
        tmp_path / "stall", [relay_url], mint_url, str(weights.fetch()), backend=backend
    )
    text = text.replace('upstream = "smollm2"', 'upstream = "smollm2"\ntasks = ["embedding"]')
    async with (
        selling(text) as stall,
        buying(relay_url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        body = wire.EmbeddingRequest(input=["one", "two"])
        result = await ask(buyer, stall, replies, body=body)
        assert isinstance(result, wire.Result)
        assert [len(b64decode(each)) for each in json.loads(result.text)] == [576 * 4] * 2
        assert result.usage.prompt >= 2
        assert result.usage.completion == 0
        assert result.cost_msat == result.usage.prompt * 20 + 1_000
        refused = await ask(buyer, stall, replies)
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "message-invalid"


async def test_what_should_be_json_and_is_not_is_free(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    said = "```json"

    async def script(asked: Wire) -> None:
        await asked.open()
        await asked.text(said, finish_reason="stop")
        await asked.end()

    async with scripted(script, lists=True) as server:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, server.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
            buyer.listening() as replies,
        ):
            body = question("One?", response_format={"type": "json_object"})
            failed = await ask(buyer, stall, replies, body=body)
            assert isinstance(failed, wire.Result)
            assert failed.problem is not None
            assert failed.problem.code == "generation-failed"
            assert (failed.cost_msat, failed.text) == (0, "")
            said = '{"one": 1}'
            answered = await ask(buyer, stall, replies, body=body)
            assert isinstance(answered, wire.Result)
            assert answered.text == said


async def test_one_that_fails_is_asked_no_more_until_it_is_well(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """Its orders are free, then refused with nothing taken, and served again after a probe: one
    that writes, since it lists its models all the time."""
    well = False

    async def script(asked: Wire) -> None:
        if asked.path.endswith("/models"):
            await asked.status(200, {"data": [{"id": "smollm2"}]})
        elif not well:
            await asked.status(500)
        else:
            await asked.open()
            await asked.text("Paris.", finish_reason="stop")
            await asked.end()

    async with scripted(script, lists=True) as server:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, server.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path, 2_000) as buyer,
            buyer.listening() as replies,
        ):
            for _ in range(FAILURES_MAX):
                failed = await ask(buyer, stall, replies)
                assert isinstance(failed, wire.Result)
                assert failed.problem is not None
                assert (failed.problem.code, failed.cost_msat) == ("generation-failed", 0)
            [backend] = (await stall.daemon.status()).backends
            assert (backend.name, backend.well, backend.running) == ("openai", False, 0)
            asked = len(server.asked)
            refused = await ask(buyer, stall, replies)
            assert isinstance(refused, wire.Refused)
            assert refused.problem.code == "model-unavailable"
            assert refused.problem.retry_after_s is not None
            assert not [one for one in server.asked[asked:] if one.path.endswith("completions")]
            well = True
            while not (await stall.daemon.status()).backends[0].well:
                await CLOCK.sleep(0.1)
            answered = await ask(buyer, stall, replies)
            assert isinstance(answered, wire.Result)
            assert answered.text == "Paris."
            assert (await stall.daemon.status()).backends[0].failures == 0
