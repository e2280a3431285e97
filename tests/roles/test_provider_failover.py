"""A model with several routes: what a client notices when one of them fails, and what it costs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from nostrllm.ports import Filter
from nostrllm.provider.stock import APART_S
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_price_page
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import CLOCK, MODEL, Buyer, Replies, Stall, buying, config_text, selling

TWO = """
[[backend]]
kind = "openai"
name = "first"
url = "{first}"
models = ["smollm2"]
slots = 1

[[backend]]
kind = "openai"
name = "second"
url = "{second}"
slots = 2
prefix = "message"
"""
SPARE = """
[[model.route]]
backend = "second"
upstream = "smol"
weight = 0

[[model]]
id = "free"
backend = "second"
"""


def text_of(state: Path, relay: str, mint: str, first: str, second: str) -> str:
    """Both models; the paid one has the second server as a spare."""
    backend = TWO.replace("{first}", first).replace("{second}", second)
    text = config_text(state, [relay], mint, "", backend=backend)
    return text.replace('\n[[model]]\nid = "free"\n', SPARE)


async def models(asked: Wire, *names: str) -> bool:
    """Answer the question which models there are."""
    if asked.path.endswith("/models"):
        await asked.status(200, {"data": [{"id": name} for name in names]})
    return asked.path.endswith("/models")


async def writes(asked: Wire, *words: str, prompt: int = 20) -> None:
    """A whole answer, a token per word."""
    await asked.open()
    for word in words:
        await asked.text(word)
    usage = {"prompt_tokens": prompt, "completion_tokens": len(words)}
    await asked.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    await asked.event({"choices": [], "usage": usage})
    await asked.end()


async def breaks(asked: Wire, *words: str) -> None:
    """The beginning of an answer, then a closed connection."""
    await asked.open()
    for word in words:
        await asked.text(word)
    await asyncio.sleep(0.05)
    asked.writer.close()


async def ask(buyer: Buyer, stall: Stall, replies: Replies, **fields: Any) -> wire.Result:
    payment = wire.TokenPayment(token=await buyer.token(64))
    order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
    await buyer.send(buyer.message(order), stall.pubkey)
    return await replies.result()


async def test_a_route_that_fails_before_its_first_token_is_not_noticed(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """Whether it refuses, breaks off or is silent; and it is asked less and less."""
    how = "refuses"

    async def first(asked: Wire) -> None:
        if await models(asked, "smollm2"):
            return
        if how == "refuses":
            await asked.status(500)
        elif how == "silent":
            await asyncio.sleep(60.0)
        else:
            await breaks(asked)

    async def second(asked: Wire) -> None:
        assert asked.body.get("model") in {None, "smol"}
        if not await models(asked, "smol"):
            await writes(asked, "It ", "is ", "Paris.")

    async with scripted(first, lists=True) as one, scripted(second, lists=True) as other:
        text = text_of(tmp_path / "stall", relay_url, mint_url, one.url, other.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
            buyer.listening() as replies,
        ):
            for how in ("refuses", "breaks", "silent"):
                deadline = int(CLOCK.now()) + (6 if how == "silent" else 30)
                result = await ask(buyer, stall, replies, deadline=deadline)
                assert result.problem is None
                assert (result.text, result.model) == ("It is Paris.", MODEL)
                assert result.usage == wire.Usage(prompt=20, completion=3)
                assert result.cost_msat == 20 * 20 + 3 * 60 + 1_000
            status = {each.name: each for each in (await stall.daemon.status()).backends}
            assert (status["first"].running, status["first"].waiting) == (0, 0)
            # A silence that the client's own deadline ended is not held against it.
            assert status["first"].failures == 2
            counts = await stall.books()
    assert sum(counts.values()) == 0


async def test_after_its_first_token_an_order_is_free_or_carried_on_as_the_client_chose(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """What both wrote is charged once: the second server's prompt held what the first wrote."""

    async def first(asked: Wire) -> None:
        if not await models(asked, "smollm2"):
            await breaks(asked, "It ", "is ")

    async def second(asked: Wire) -> None:
        if not await models(asked, "smol"):
            await writes(asked, "Paris", ".", prompt=22)

    async with scripted(first, lists=True) as one, scripted(second, lists=True) as other:
        text = text_of(tmp_path / "stall", relay_url, mint_url, one.url, other.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
            buyer.listening() as replies,
        ):
            failed = await ask(buyer, stall, replies)
            assert failed.problem is not None
            assert (failed.problem.code, failed.cost_msat) == ("generation-failed", 0)
            carried = await ask(buyer, stall, replies, **{"continue": True})
            assert carried.problem is None
            assert carried.text == "It is Paris."
            assert carried.usage == wire.Usage(prompt=20, completion=4)
            assert carried.cost_msat == 20 * 20 + 4 * 60 + 1_000
            assert not [each for each in await stall.orders() if each["state"] == "running"]
    [asked] = [each for each in other.asked if not each.path.endswith("/models")]
    assert asked.body["messages"][-1] == {"role": "assistant", "content": "It is "}
    assert asked.body["max_tokens"] == 24 - 2


async def test_a_model_that_no_route_has_is_refused_within_seconds_and_leaves_the_list(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """And comes back into it at its price."""
    names = ["smol", "smollm2"]

    async def one(asked: Wire) -> None:
        if not await models(asked, *names):
            await writes(asked, "Yes.")

    async def listed(buyer: Buyer, stall: Stall) -> dict[str, Any]:
        wanted = Filter(kinds=(kinds.PRICE_LIST,), authors=(stall.pubkey,))
        [page, *_] = await buyer.relays.fetch([wanted])
        return {model.id: model.price for model in parse_price_page(page).models}

    async with scripted(one, lists=True) as server:
        text = text_of(tmp_path / "stall", relay_url, mint_url, server.url, server.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
            buyer.listening() as replies,
        ):
            assert (await ask(buyer, stall, replies)).text == "Yes."
            before = await listed(buyer, stall)
            names = ["smollm2"]  # the spare of the one, and the only route of none
            await until(lambda: len(stall.daemon.announcer.offers) == 2)
            names = ["other"]
            began = CLOCK.monotonic()
            await until(lambda: not stall.daemon.stock.has(MODEL), 5.0)
            assert CLOCK.monotonic() - began < 5.0
            payment = wire.TokenPayment(token=await buyer.token(64))
            order = await buyer.order(stall.pubkey, payment, reply=replies.key)
            await buyer.send(buyer.message(order), stall.pubkey)
            refused = await replies.next()
            assert isinstance(refused, wire.Refused)
            assert refused.problem.code == "model-unavailable"
            await until(lambda: not stall.daemon.announcer.offers, APART_S + 15.0)
            async with asyncio.timeout(10.0):
                while await listed(buyer, stall):
                    await CLOCK.sleep(0.2)
            names = ["smol", "smollm2"]
            await until(lambda: len(stall.daemon.announcer.offers) == 2, APART_S + 15.0)
            async with asyncio.timeout(10.0):
                while await listed(buyer, stall) != before:
                    await CLOCK.sleep(0.2)
            assert (await ask(buyer, stall, replies)).text == "Yes."


async def until(true: Any, within_s: float = 10.0) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(within_s):
        while not true():
            await CLOCK.sleep(0.05)
