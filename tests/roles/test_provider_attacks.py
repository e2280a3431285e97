"""What a hostile client may try, and what must not come of it: each was once possible."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import websockets

from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.event import Draft, rumor
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.relay_scripted import ScriptedRelay, until
from tests.adapters.scripted import Script, Wire, scripted
from tests.roles.market import (
    CLOCK,
    KEYRING,
    MODEL,
    Buyer,
    Stall,
    buying,
    config_text,
    question,
    selling,
)
from tests.roles.test_provider_orders import writes


@asynccontextmanager
async def market(
    script: Script, relay: str, mint: str, tmp: Path, amount: int = 500
) -> AsyncIterator[tuple[Stall, Buyer]]:
    async with (
        scripted(script) as engine,
        selling(config_text(tmp / "stall", [relay], mint, engine.url)) as stall,
        buying(relay, mint, tmp, amount=amount) as buyer,
    ):
        yield stall, buyer


async def bought(stall: Stall, buyer: Buyer, **fields: Any) -> wire.Result | wire.Refused:
    """How one order of 64 sat ends."""
    async with buyer.listening() as replies:
        payment = wire.TokenPayment(token=await buyer.token(64))
        order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
        await buyer.send(buyer.message(order), stall.pubkey)
        while True:
            message = await replies.next()
            if isinstance(message, wire.Result | wire.Refused):
                return message


@pytest.mark.parametrize("paid", [False, True])
async def test_a_reply_key_off_the_curve_disturbs_nobody(
    paid: bool, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def waits(asked: Wire) -> None:
        await asked.open()
        await asked.text("Hello")
        await go_on.wait()
        await asked.text(" there.", finish_reason="stop")
        await asked.end()

    async with market(waits, relay_url, mint_url, tmp_path) as (stall, buyer):
        async with buyer.listening() as replies:
            payment = wire.TokenPayment(token=await buyer.token(64))
            order = await buyer.order(stall.pubkey, payment, reply=replies.key)
            await buyer.send(buyer.message(order), stall.pubkey)
            await anext(aiter(replies.chunks))
            poison = wire.ReplyTo(key="ff" * 32, relays=order.reply.relays)
            if paid:
                payment = wire.TokenPayment(token=await buyer.token(64))
                bad = order.model_copy(update={"reply": poison, "payment": payment})
                await buyer.send(buyer.message(bad), stall.pubkey)
            else:
                await buyer.send(
                    buyer.message(wire.Query(reply=poison, what="balance")), stall.pubkey
                )
            await buyer.say(stall.pubkey, "/price")
            assert "per 1,000 tokens" in await buyer.heard(stall.pubkey)
            go_on.set()
            result = await replies.result()
        assert result.text == "Hello there."
        assert len(await stall.orders()) == 1


async def test_a_refund_of_many_small_coins_is_one_readable_token(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(writes, relay_url, mint_url, tmp_path, amount=2_000) as (stall, buyer):
        for _ in range(30):
            await buyer.say(stall.pubkey, f"/topup {await buyer.token(16)}")
            assert "added" in await buyer.heard(stall.pubkey)
        await buyer.say(stall.pubkey, "/refund")
        said = await buyer.heard_until(stall.pubkey, "cashuB")
        token = parse_token(said[-1])
        assert 430 <= token.amount < 450  # swapping so many coins has its price
        assert len(token.proofs) <= 64
        books = await stall.books()
        assert f"mint fee {450 - token.amount} sat; 0 sat stay here" in said[-2]
        assert books == {f"coins:sat:{mint_url}": token.amount * 1_000, **change_in(books)}
        assert await buyer.worth(said[-1]) == token.amount - 1


def change_in(books: dict[str, int]) -> dict[str, int]:
    return {name: msat for name, msat in books.items() if name.startswith("change:")}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"tools": [{"type": "function", "function": {"description": "x" * 15_000}}]}, "fit"),
        ({"response_format": {"type": "json_schema", "schema": "x" * 15_000}}, "fit"),
        ({"messages": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1"}}]}, "data:"),
    ],
)
async def test_all_that_the_model_reads_is_priced_and_nothing_is_fetched(
    fields: dict[str, Any], word: str, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(writes, relay_url, mint_url, tmp_path) as (stall, buyer):
        if "messages" in fields:
            content = wire.ChatMessage(role="user", content=fields["messages"])
            body = wire.ChatRequest(messages=[content])
        else:
            body = question("Hi", **fields)
        refused = await bought(stall, buyer, body=body)
        assert isinstance(refused, wire.Refused)
        assert word in refused.problem.message


async def test_coins_whose_signature_is_no_point_are_refused_at_once(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(writes, relay_url, mint_url, tmp_path) as (stall, buyer):
        token = parse_token(await buyer.token(64))
        fake = replace(token.proofs[0], C="02" + "ff" * 32, dleq=None)
        text = encode_token(replace(token, proofs=(fake, *token.proofs[1:])))
        async with buyer.listening() as replies:
            order = await buyer.order(
                stall.pubkey, wire.TokenPayment(token=text), reply=replies.key
            )
            await buyer.send(buyer.message(order), stall.pubkey)
            refused = await replies.next()
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "payment-token-invalid"
        assert await stall.orders() == []


async def test_one_silent_relay_holds_up_nobody_else(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async def swallow(socket: Any) -> None:
        async for _ in socket:
            await asyncio.sleep(0)

    server = await websockets.serve(swallow, "127.0.0.1", 0, close_timeout=0.2)
    silent = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
    try:
        async with (
            scripted(writes) as engine,
            selling(
                config_text(tmp_path / "s", [relay_url, silent], mint_url, engine.url)
            ) as stall,
            buying(relay_url, mint_url, tmp_path) as buyer,
        ):
            started = CLOCK.monotonic()
            for _ in range(5):
                payment = wire.TokenPayment(token=await buyer.token(32))
                order = await buyer.order(
                    stall.pubkey, payment, reply=KEYRING.signer(), ceiling_msat=30_000
                )
                reply = order.reply.model_copy(update={"relays": [silent]})
                hostile = order.model_copy(update={"reply": reply})
                await buyer.send(buyer.message(hostile), stall.pubkey)
            await until(lambda: len(engine.asked) == 5, timeout_s=30)
            await buyer.say(stall.pubkey, "/help")
            assert "/topup" in await buyer.heard(stall.pubkey)
            waited = CLOCK.monotonic() - started
            assert waited < 25, "five silent conversations of 5 s each were waited for"
    finally:
        server.close()
        await server.wait_closed()


async def test_an_answer_too_long_to_send_is_cut_and_charged(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async def floods(asked: Wire) -> None:
        await asked.open()
        for _ in range(60):
            await asked.text("\n" * 10_000)
        await asked.end()

    async with market(floods, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer)
        assert isinstance(result, wire.Result)
        assert result.finish_reason == "length"
        assert result.cost_msat > 0
        assert 10_000 <= len(result.text) < 200_000


async def test_an_engine_out_of_form_does_not_crash_the_order(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async def odd(asked: Wire) -> None:
        await asked.open()
        call = {"index": 0, "id": 7, "function": {"name": "f", "arguments": {"not": "a text"}}}
        await asked.event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
        await asked.text("Hello", finish_reason="x" * 500)
        await asked.end()

    async with market(odd, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer)
        assert isinstance(result, wire.Result)
        assert result.text == "Hello"
        assert len(result.finish_reason or "") <= 64


async def test_a_message_that_waited_at_the_relay_is_answered(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path) as person:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        async with selling(text) as stall:
            to = stall.pubkey
        await person.say(to, f"Hello? {await person.token(32)}")
        async with selling(text):
            said = await person.heard_until(to, "cashuB")
        assert said[0] == "Hello there."


async def test_an_order_that_was_refused_never_runs(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path) as buyer:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        async with buyer.listening() as replies:
            async with selling(text) as stall:
                to = stall.pubkey
                payment = wire.TokenPayment(token=await buyer.token(64))
                order = await buyer.order(to, payment, reply=replies.key, model="gpt-9")
                letter = buyer.message(order)
                await buyer.send(letter, to)
                assert isinstance(await replies.next(), wire.Refused)
            cheaper = text.replace(f'id = "{MODEL}"', 'id = "gpt-9"')
            async with selling(cheaper) as stall:
                await buyer.send(letter, to)
                await buyer.say(to, "/price")
                assert "gpt-9" in await buyer.heard(to)
                assert await stall.orders() == []
        assert engine.asked == []


async def test_a_refusal_that_could_not_be_sent_is_sent_later(
    mint_url: str, tmp_path: Path
) -> None:
    async with ScriptedRelay() as relay, scripted(writes) as engine:
        text = config_text(tmp_path / "stall", [relay.url], mint_url, engine.url)
        async with (
            selling(text) as stall,
            buying(relay.url, mint_url, tmp_path, amount=100) as person,
        ):
            spent = await person.token(32)
            await person.worth(spent)
            await person.say(stall.pubkey, f"Hi {spent}")
            assert "payment-token-spent" in await person.heard(stall.pubkey)
            rows = await stall.orders()
            assert [row["state"] for row in rows] == ["refused"]
            kept = await stall.world.store.read("outbox_of", owner=rows[0]["id"])
            assert len(kept) == 1


async def test_a_letter_without_a_readable_reply_is_dropped(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(writes, relay_url, mint_url, tmp_path) as (stall, buyer):
        for content in ("{", "[]", json.dumps({"v": 1, "type": "order"})):
            letter = rumor(Draft(kinds.MESSAGE, content, int(CLOCK.now())), buyer.me.pubkey)
            await buyer.send(letter, stall.pubkey)
        await buyer.say(stall.pubkey, "/price")
        assert "per 1,000 tokens" in await buyer.heard(stall.pubkey)
