"""The one call, against a provider who is honest, and one who is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import nostrllm
from nostrllm.client.quote import Quote
from nostrllm.errors import CODES, LocalError, RemoteError, WorldError
from nostrllm.service.client import Client
from nostrllm.wire.body import ChatRequest
from tests.roles.counterpart import Counterpart, counterpart
from tests.roles.paying import TokenClient

TEXT = "Polly wants a cracker."
FUND = 100


@asynccontextmanager
async def funded(folder: Path, relay_url: str, mint_url: str) -> AsyncIterator[Client]:
    """A client with a wallet of 100 sat."""
    async with TokenClient(state=folder, relays=[relay_url], mint=mint_url) as client:
        quote = await client.wallet.fund(FUND)
        assert await client.wallet.claim(quote.quote, wait_s=10)
        yield client


@asynccontextmanager
async def both(
    tmp_path: Path, relay_url: str, mint_url: str, **manners: Any
) -> AsyncIterator[tuple[Client, Counterpart]]:
    """A funded client and a provider with these manners."""
    async with (
        counterpart(tmp_path / "bird", relay_url, mint_url, **manners) as bird,
        funded(tmp_path / "client", relay_url, mint_url) as client,
    ):
        yield client, bird


async def held(client: Client) -> int:
    """Sats in the wallet."""
    return sum((await client.wallet.balance()).values())


async def test_an_answer_is_streamed_paid_and_settled(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        quotes: list[Quote] = []
        answer = client.ask("Speak!", provider=bird.pubkey, on_quote=quotes.append)
        pieces = [piece async for piece in answer]
        result = answer.result
        assert "".join(pieces) == TEXT == result.text
        assert len(pieces) > 1
        assert quotes == [answer.quote]
        assert quotes[0].ceiling_msat == result.ceiling_msat >= result.cost_msat + result.fee_msat
        assert result.breaches == ()
        assert result.cost_msat == 500 + 12 + 60
        assert result.order_id == bird.orders[0][0].id
        assert (result.provider, result.model) == (bird.pubkey, "parrot")
        assert result.receipt is not None
        assert result.accepted is not None
        paid = quotes[0].amount * 1_000
        spent = result.cost_msat + result.fee_msat
        assert paid == spent + result.change_msat + result.credit_msat
        assert FUND - 5 <= await held(client) < FUND
        kept = await client.receipt(bird.pubkey)
        assert kept is not None
        assert kept.event == result.receipt
        assert bird.acks == []  # a relay told him that it took the result


async def test_the_buyer_is_a_pseudonym(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        first = await client.ask("a", provider=bird.pubkey).done()
        second = await client.ask("b", provider=bird.pubkey).done()
        letters = [letter for letter, _ in bird.orders]
        assert letters[0].pubkey == letters[1].pubkey != client.pubkey
        keys = {order.reply.key for _, order in bird.orders}
        assert len(keys) == 2
        assert not keys & {client.pubkey, letters[0].pubkey}
        assert first.order_id != second.order_id


async def test_no_stream_and_messages(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        messages = [{"role": "system", "content": "Be a bird."}, {"role": "user", "content": "?"}]
        answer = client.ask(
            messages,
            provider=bird.name,
            model="parrot",
            max_tokens=20,
            stream=False,
            parameters={"temperature": 0.0},
        )
        assert [piece async for piece in answer] == [TEXT]
        order = bird.orders[0][1]
        assert order.chunk_ms is None
        assert order.body.as_body() == {
            "messages": messages,
            "max_tokens": 20,
            "temperature": 0.0,
        }


async def test_a_long_prompt_travels_in_parts(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        bird.model = bird.model.model_copy(update={"context": 100_000})
        await bird.announce()
        prompt = "why? " * 9_000
        result = await client.ask(prompt, provider=bird.pubkey).done()
        assert result.breaches == ()
        body = bird.orders[0][1].body
        assert isinstance(body, ChatRequest)
        assert body.messages[0].content == prompt


@pytest.mark.parametrize(
    "manners",
    [
        {"shuffle_chunks": True},
        {"stray_chunks": 80},
        {"accept_late": True},
        {"twice": True},
        {"by_stranger_too": True},
        {"pieces": ["x" * 7_000] * 6},
    ],
)
async def test_disorder_changes_nothing(
    manners: dict[str, Any], tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, **manners) as (client, bird):
        answer = client.ask("Speak!", provider=bird.pubkey)
        text = "".join([piece async for piece in answer])
        assert text == "".join(bird.manners.pieces) == answer.result.text
        assert answer.result.breaches == ()
        again = await client.ask("And again!", provider=bird.pubkey).done()
        assert again.breaches == ()
        assert not any(one.open for one in await client.purchases())


@pytest.mark.parametrize(
    ("manners", "breach"),
    [
        ({"stream_other": True}, "stream-altered"),
        ({"overcharge_msat": 300}, "price-altered"),
        ({"charge_beyond_ceiling": True, "no_change": True}, "over-ceiling"),
        ({"prompt_tokens": 900}, "usage-implausible"),
        ({"other_model": True}, "model-altered"),
        ({"short_change": 2}, "change-short"),
        ({"no_change": True}, "change-short"),
        ({"broken_change": True}, "change-refused"),
        ({"forged_receipt": True}, "receipt-invalid"),
        ({"receipt_of_other": True}, "receipt-invalid"),
        ({"unsigned_statement": True}, "statement-invalid"),
    ],
)
async def test_a_breach_is_told(
    manners: dict[str, Any], breach: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, **manners) as (client, bird):
        result = await client.ask("Speak!", provider=bird.pubkey).done()
        assert breach in result.breaches
        row = (await client.purchases())[0]
        assert row.state == "done"
        assert breach in row.breaches
        if breach == "receipt-invalid":
            assert result.receipt is None
            assert await client.receipt(bird.pubkey) is None


@pytest.mark.parametrize("manner", ["accepted_by_stranger", "accepted_for_more"])
async def test_a_wrong_acceptance_is_none(
    manner: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, **{manner: True}) as (client, bird):
        answer = client.ask("Speak!", provider=bird.pubkey)
        assert [piece async for piece in answer] == [TEXT]  # the stream was not believed
        assert answer.result.accepted is None


async def test_an_altered_text_is_refused_and_its_change_taken(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, wrong_sha=True) as (client, bird):
        with pytest.raises(RemoteError, match="hash"):
            await client.ask("Speak!", provider=bird.pubkey, stream=False).done()
        assert await held(client) >= FUND - 5


async def test_a_refusal_brings_the_coins_back(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, refuse="busy") as (client, bird):
        with pytest.raises(RemoteError, match="not today") as caught:
            await client.ask("Speak!", provider=bird.pubkey).done()
        assert caught.value.code == "busy"
        assert caught.value.retryable
        assert await held(client) >= FUND - 2  # two swaps' fees
        assert (await client.purchases())[0].state == "failed"
        bird.manners.refuse = "never-heard-of"
        with pytest.raises(RemoteError) as unknown:
            await client.ask("Speak!", provider=bird.pubkey).done()
        assert unknown.value.code in CODES


async def test_a_failed_order_costs_nothing(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url, fail="generation-failed") as (client, bird):
        with pytest.raises(RemoteError) as caught:
            await client.ask("Speak!", provider=bird.pubkey).done()
        assert caught.value.code == "generation-failed"
        row = (await client.purchases())[0]
        assert (row.state, row.cost_msat, row.code) == ("done", 0, "generation-failed")
        assert await held(client) >= FUND - 4


async def test_silence_is_told_and_the_coins_come_back(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, silent=True) as (client, bird):
        with pytest.raises(WorldError) as caught:
            await client.ask("Speak!", provider=bird.pubkey, deadline_s=0.5).done()
        assert caught.value.code == "provider-silent"
        assert bird.orders[0][0].id in caught.value.message
        assert bird.queries == ["order", "order"]
        assert await held(client) >= FUND - 2


async def test_who_takes_and_is_silent_is_asked_again_later(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with counterpart(tmp_path / "bird", relay_url, mint_url, take_and_be_silent=True) as bird:
        async with funded(tmp_path / "client", relay_url, mint_url) as client:
            with pytest.raises(WorldError, match="stays open"):
                await client.ask("Speak!", provider=bird.pubkey, deadline_s=0.5).done()
            before = await held(client)
        bird.manners.take_and_be_silent = False
        letter, order = bird.orders[0]
        bird.manners.deaf = True
        # its purse knows the token under the order's id, so there is no second swap
        await bird.answer(letter, order)
        async with TokenClient(
            state=tmp_path / "client", relays=[relay_url], mint=mint_url
        ) as client:
            late = await client.resume()
            assert [outcome.text for outcome in late] == [TEXT]
            assert late[0].breaches == ()
            assert late[0].receipt is not None
            assert await held(client) > before
            assert await client.late() == late  # until they were seen
            await client.seen(late)
            assert await client.resume() == []
            assert not any(one.open for one in await client.purchases())


async def test_wishes_that_cannot_be_met_cost_nothing(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):

        async def code(**wishes: Any) -> str:
            with pytest.raises(nostrllm.NostrllmError) as caught:
                await client.ask(wishes.pop("prompt", "?"), **wishes).done()
            return caught.value.code

        me = {"provider": bird.pubkey}
        assert await code(provider="Nobody at all") == "provider-unknown"
        assert await code(provider="npub1damaged") == "config-invalid"
        assert await code(**me, model="gpt-17") == "model-unknown"
        assert await code(**me, prompt="x" * 20_000) == "context-too-long"
        assert await code(**me, max_msat=400) == "payment-amount-low"
        assert await code(**me, parameters={"temperature": 9}) == "message-invalid"
        assert await code(**me, parameters={"n": 2}) == "message-invalid"
        assert await code(**me, parameters={"seed": 2}) == "message-invalid"  # not on its list
        assert await code(**me, prompt=[{"role": "poet", "content": "?"}]) == "message-invalid"

        def too_dear(quote: Quote) -> None:
            raise LocalError("too dear", code="payment-amount-high")

        assert await code(**me, on_quote=too_dear) == "payment-amount-high"
        assert bird.orders == []
        assert await held(client) == FUND


async def test_without_any_relay_that_is_what_is_told(tmp_path: Path) -> None:
    async with Client(state=tmp_path, relays=["ws://127.0.0.1:1"]) as client:
        for work in (client.ask("?").done(), client.market.listings(), client.balance("Alba")):
            with pytest.raises(WorldError, match=r"ws://127\.0\.0\.1:1: .+") as caught:
                await work
            assert caught.value.code == "relay-unreachable"


async def test_the_limit_shortens_the_answer(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey, max_msat=3_000).done()
        assert result.ceiling_msat <= 3_000
        order = bird.orders[0][1]
        assert order.ceiling_msat == result.ceiling_msat
        assert 16 <= (order.body.max_tokens or 0) < 512


async def test_an_empty_wallet_is_told_before_anything(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with (
        counterpart(tmp_path / "bird", relay_url, mint_url) as bird,
        TokenClient(state=tmp_path / "client", relays=[relay_url], mint=mint_url) as client,
    ):
        with pytest.raises(LocalError) as caught:
            await client.ask("?", provider=bird.pubkey).done()
        assert caught.value.code == "wallet-empty"
        assert await client.purchases() == []


async def test_an_answer_has_no_result_before_its_end(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        answer = client.ask("?", provider=bird.pubkey)
        with pytest.raises(LocalError, match="not finished"):
            _ = answer.result
        await answer.done()


async def test_closing_the_client_leaves_the_order_for_the_next(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with counterpart(tmp_path / "bird", relay_url, mint_url) as bird:
        async with funded(tmp_path / "client", relay_url, mint_url) as client:
            answer = client.ask("?", provider=bird.pubkey)
            await bird.heard.wait()
        with pytest.raises(nostrllm.NostrllmError):
            _ = answer.result
        async with TokenClient(
            state=tmp_path / "client", relays=[relay_url], mint=mint_url
        ) as client:
            late = await client.resume()
            assert [outcome.text for outcome in late] == [TEXT]


async def test_closing_the_client_cancels_the_order(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with counterpart(tmp_path / "bird", relay_url, mint_url, silent=True) as bird:
        async with funded(tmp_path / "client", relay_url, mint_url) as client:
            client.ask("?", provider=bird.pubkey)
            await bird.heard.wait()
        async with asyncio.timeout(10):
            await bird.cancel.wait()
        assert bird.cancelled == [bird.orders[0][0].id]
