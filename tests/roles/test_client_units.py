"""Our client pays in cents, and at mints with a price of their own; what it pays is told before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from nostrllm.cli.ask import paid_with
from nostrllm.client.bargain import breaches
from nostrllm.client.purchases import Purchases
from nostrllm.client.quote import Quote
from nostrllm.errors import LocalError, RemoteError
from nostrllm.service.client import Client
from nostrllm.wire.order import Result
from tests.adapters.scripted import Script, scripted
from tests.roles.market import MODEL, Stall, selling
from tests.roles.test_client_ask import FUND, held
from tests.roles.test_provider_orders import dies_mid_stream, writes
from tests.roles.test_provider_requests import check_books
from tests.roles.test_provider_units import CENT, COST_MSAT, USD_PER_BTC, told, town


@asynccontextmanager
async def wallet(tmp: Path, relay: str, mint: str, unit: str = "usd") -> AsyncIterator[Client]:
    """A client with 100 coins of a unit."""
    async with Client(state=tmp / "client", relays=[relay], mint=mint) as client:
        quote = await client.wallet.fund(FUND, unit)
        assert await client.wallet.claim(quote.quote, wait_s=10)
        yield client


@asynccontextmanager
async def shop(
    tmp: Path, relay: str, mint: str, *, script: Script = writes, terms: str = ""
) -> AsyncIterator[tuple[Stall, str]]:
    """A provider that takes cents, and his file."""
    async with scripted(script) as engine:
        text = town(tmp, relay, mint, engine.url, terms)
        async with selling(text) as stall:
            yield stall, text
        await check_books(text)


@pytest.mark.parametrize("pay", ["locked", "token"])
async def test_an_answer_for_cents(
    relay_url: str, mint_url: str, tmp_path: Path, pay: Literal["locked", "token"]
) -> None:
    quotes: list[Quote] = []
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, _),
        wallet(tmp_path, relay_url, mint_url) as client,
    ):
        answer = client.ask(
            "Hello?", provider=stall.pubkey, model=MODEL, pay=pay, on_quote=quotes.append
        )
        outcome = await answer.done()
        assert outcome.breaches == ()
        assert outcome.cost_msat == COST_MSAT
        [quoted] = quotes
        assert (quoted.unit, quoted.unit_msat, quoted.pay) == ("usd", CENT, "token")
        assert quoted.amount * CENT >= quoted.ceiling_msat >= outcome.cost_msat + outcome.fee_msat
        assert quoted.rate_at is not None
        said = paid_with(quoted, quoted.rate_at + 5)
        assert f"pays 0.{quoted.amount:02d} USD" in said
        assert "0.01 USD counts 0.7 sat, a rate of 5 s ago" in said
        assert await held(client) >= FUND - -(-(outcome.cost_msat + outcome.fee_msat) // CENT) - 3


async def test_a_failed_answer_brings_every_cent_back(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        shop(tmp_path, relay_url, mint_url, script=dies_mid_stream) as (stall, _),
        wallet(tmp_path, relay_url, mint_url) as client,
    ):
        with pytest.raises(RemoteError) as failed:
            await client.ask("Hello?", provider=stall.pubkey, model=MODEL).done()
        assert failed.value.code == "generation-failed"
        assert "bargain" not in failed.value.message
        assert await held(client) >= FUND - 4  # the fee of his swap, and of our own


async def test_no_rate_makes_an_answer_cost_more_cents_than_the_user_said(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, _),
        wallet(tmp_path, relay_url, mint_url) as client,
    ):
        with pytest.raises(LocalError) as refused:
            await client.ask("Hello?", provider=stall.pubkey, max_cents=1).done()
        assert refused.value.code == "payment-amount-low"
        assert "more than 0.01 USD" in refused.value.message
        assert await held(client) == FUND
        quotes: list[Quote] = []
        answer = client.ask("Hello?", provider=stall.pubkey, max_cents=None, on_quote=quotes.append)
        assert (await answer.done()).breaches == ()
        assert quotes[0].amount > 1


async def test_the_cheapest_coins_pay(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    quotes: list[Quote] = []
    terms = 'units = ["sat", "usd"]\npercent = 200'
    async with (
        shop(tmp_path, relay_url, mint_url, terms=terms) as (stall, _),
        wallet(tmp_path, relay_url, mint_url, "sat") as client,
    ):
        answer = client.ask("Hello?", provider=stall.pubkey, model=MODEL, on_quote=quotes.append)
        outcome = await answer.settled(5)
        assert outcome.breaches == ()
        assert outcome.cost_msat == 2 * COST_MSAT
        assert quotes[0].percent == 200
        assert "200 percent" in paid_with(quotes[0], 0)
        assert paid_with(quotes[0], 0).endswith("sat")
        with pytest.raises(LocalError) as refused:
            await client.ask("Hello?", provider=stall.pubkey, change="account").done()
        assert refused.value.code == "payment-rate-unknown"


async def test_a_rate_that_moved_meanwhile_is_the_promised_one(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, _),
        wallet(tmp_path, relay_url, mint_url) as client,
    ):
        first = await client.market.listings()
        told(tmp_path, USD_PER_BTC * 2)
        async with asyncio.timeout(30):
            page = stall.daemon.announcer.current(MODEL)[1]
            while page == first[0].offers[0].price_event_id:
                await asyncio.sleep(0.1)
                page = stall.daemon.announcer.current(MODEL)[1]
        outcome = await client.ask("Hello?", provider=stall.pubkey, model=MODEL).done()
        assert outcome.breaches == ()
        assert outcome.change_msat % CENT == 0
        assert outcome.credit_msat < CENT


async def test_change_is_judged_at_the_rate_of_the_list(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, _),
        wallet(tmp_path, relay_url, mint_url) as client,
    ):
        await client.ask("Hello?", provider=stall.pubkey, model=MODEL).done()
        purchases = Purchases(client._world)
        [bought] = await purchases.beside(await purchases.reserve("order", stall.pubkey))
        bargain, result = bought.bargain, bought.reply
        assert bargain is not None
        assert isinstance(result, Result)
        assert result.change is not None
        assert bargain.coin_msat == CENT
        assert "change-short" not in breaches(bargain, result)
        less = result.change.model_copy(update={"amount": result.change.amount - 1})
        short = result.model_copy(update={"change": less})
        assert "change-short" in breaches(bargain, short)
