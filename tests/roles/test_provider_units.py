"""Coins of several units and mints: cents at a promised rate, and mints at their own price."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.core.money import cost_msat, scaled
from nostrllm.errors import LocalError
from nostrllm.ports import Filter
from nostrllm.provider.books import read_books, summary
from nostrllm.provider.payout import Wish, deposit
from nostrllm.service.audit import stopped, withdraw
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import _Report
from nostrllm.service.rates import check_rates, check_units
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import PricePage, parse_price_page
from nostrllm.wire.token import Token, encode_token, parse_token
from tests.adapters.scripted import Script, scripted
from tests.faultymint import FaultyMint
from tests.roles.market import CLOCK, MODEL, WAIT_S, Buyer, Stall, buying, config_text, selling
from tests.roles.test_provider_orders import dies_mid_stream, writes
from tests.roles.test_provider_requests import check_books
from tests.roles.test_provider_requests_crash import at_rest, mortal

#: A bitcoin in dollars, and what a cent is then, in msat.
USD_PER_BTC, CENT = 1_428_571, 700
#: 10 tokens in and 3 out.
COST_MSAT = 1_380
PAID = 60


def told(tmp: Path, usd_per_btc: float = USD_PER_BTC, *, age_s: int = 0) -> Path:
    """Write down what a bitcoin costs, as of so long ago."""
    path = tmp / "rate"
    path.write_text(f"{usd_per_btc}\n")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def town(tmp: Path, relay: str, mint: str, engine: str, terms: str = "") -> str:
    """A provider that takes sats and cents of one mint, at a rate in a file, without a spread."""
    text = config_text(tmp / "stall", [relay], mint, engine)
    text = text.replace(f'mints = ["{mint}"]', "mints = []")
    terms = terms or 'units = ["sat", "usd"]'
    return f"""{text}
[[mint]]
url = "{mint}"
{terms}

[rates]
file = "{told(tmp)}"
every_s = 1
spread_percent = 0
stale_percent = 10
"""


async def cents(buyer: Buyer, amount: int = PAID) -> Token:
    """A token of so many cents, from a wallet that gets them first."""
    quote = await buyer.purse.fund(buyer.mint, 4 * amount, "usd")
    assert (await buyer.purse.claim_quote(quote.quote, wait_s=WAIT_S)).state == "DONE"
    return await buyer.purse.send(secrets.token_hex(8), buyer.mint, "usd", amount)


async def page_of(buyer: Buyer, stall: Stall) -> PricePage:
    """The newest price list."""
    wanted = Filter(kinds=(kinds.PRICE_LIST,), authors=(stall.pubkey,))
    event = max(await buyer.relays.fetch([wanted]), key=lambda one: one.created_at)
    return parse_price_page(event)


async def bought(
    stall: Stall, buyer: Buyer, paid: str | wire.LockedPayment, **fields: Any
) -> tuple[str, wire.Result | wire.Refused]:
    """Order an answer for a token; its id and how it ended."""
    async with buyer.listening() as replies:
        payment = wire.TokenPayment(token=paid) if isinstance(paid, str) else paid
        values = {"ceiling_msat": 30_000, "chunk_ms": None, **fields}
        order = await buyer.order(stall.pubkey, payment, reply=replies.key, **values)
        letter = buyer.message(order)
        await buyer.send(letter, stall.pubkey)
        while True:
            said = await replies.next()
            if isinstance(said, wire.Result | wire.Refused):
                return letter.id, said


async def test_an_answer_for_cents(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            page = await page_of(buyer, stall)
            assert [(pay.unit, pay.percent, pay.msat) for pay in page.pays or ()] == [
                ("sat", 100, None),
                ("usd", 100, CENT),
            ]
            order_id, result = await bought(stall, buyer, encode_token(await cents(buyer)))
            assert isinstance(result, wire.Result)
            assert result.cost_msat == COST_MSAT
            assert result.change is not None
            assert (result.change.unit, result.fee_msat % CENT) == ("usd", 0)
            back = result.change.amount * CENT + result.credit_msat
            assert result.cost_msat + result.fee_msat + back == PAID * CENT
            assert result.credit_msat < CENT
            await buyer.purse.receive("change", parse_token(result.change.token))
            await stall.daemon.recovery.book_spent_change()
            books = await stall.books()
            kept = PAID - result.fee_msat // CENT - result.change.amount
            assert books["exchange:usd"] == -kept == -books[f"coins:usd:{mint_url}"]
            assert books["exchange"] == kept * CENT
            assert books["income"] == -COST_MSAT
            assert f"change:usd:{order_id}" not in books
        await check_books(text)


async def test_a_person_pays_in_cents(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            await buyer.say(stall.pubkey, f"What now? {encode_token(await cents(buyer))}")
            said = await buyer.heard_until(stall.pubkey, "cashu")
            assert " usd" not in said[-2]
            assert "change 0.5" in said[-2]
            assert parse_token(said[-1]).unit == "usd"
        await check_books(text)


@pytest.mark.parametrize("what", ["topup", "credit", "dm"])
async def test_cents_fill_no_account(
    relay_url: str, mint_url: str, tmp_path: Path, what: str
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            token = encode_token(await cents(buyer))
            if what == "dm":
                await buyer.say(stall.pubkey, f"/topup {token}")
                assert "payment-mint-unaccepted" in await buyer.heard(stall.pubkey)
            elif what == "credit":
                _, said = await bought(stall, buyer, token, change="account")
                assert isinstance(said, wire.Refused)
                assert said.problem.code == "payment-mint-unaccepted"
            else:
                async with buyer.listening() as replies:
                    relay = buyer.relays.status()[0].url
                    reply = wire.ReplyTo(key=replies.key.pubkey, relays=[relay])
                    letter = buyer.message(wire.TopUp(reply=reply, token=token))
                    await buyer.send(letter, stall.pubkey)
                    refused = await replies.next()
                assert isinstance(refused, wire.Refused)
                assert refused.problem.code == "payment-mint-unaccepted"
            assert await buyer.worth(token) >= PAID - 1


async def test_an_answer_that_fails_gives_every_cent_back(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        scripted(dies_mid_stream) as engine,
        buying(relay_url, mint_url, tmp_path, amount=0) as buyer,
    ):
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            _, result = await bought(stall, buyer, encode_token(await cents(buyer)))
            assert isinstance(result, wire.Result)
            assert result.problem is not None
            assert result.change is not None
            assert result.change.amount == PAID - result.fee_msat // CENT
            assert (result.cost_msat, result.credit_msat) == (0, 0)
        await check_books(text)


async def test_a_stale_rate_takes_no_cents(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        told(tmp_path, age_s=3_700)
        async with selling(text) as stall:
            assert {pay.unit for pay in (await page_of(buyer, stall)).pays or ()} == {"sat"}
            token = encode_token(await cents(buyer))
            _, said = await bought(stall, buyer, token)
            assert isinstance(said, wire.Refused)
            assert said.problem.code == "payment-rate-unknown"
            assert await buyer.worth(token) >= PAID - 1
            told(tmp_path, age_s=1_950)  # half way to too old: 5 percent off
            async with asyncio.timeout(WAIT_S):
                while True:
                    pays = {pay.unit: pay.msat for pay in (await page_of(buyer, stall)).pays or ()}
                    if "usd" in pays:
                        break
                    await asyncio.sleep(0.2)
            assert CENT * 94 // 100 <= (pays["usd"] or 0) <= CENT * 95 // 100


async def test_a_list_keeps_its_rate_when_the_rate_has_moved(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            before = await buyer.price(stall.pubkey)
            told(tmp_path, USD_PER_BTC * 2)
            async with asyncio.timeout(WAIT_S):
                while await buyer.price(stall.pubkey) == before:  # noqa: ASYNC110  a relay's news
                    await asyncio.sleep(0.2)
            for price, cent in ((before, CENT), (None, CENT // 2)):
                pinned = {} if price is None else {"price": price}
                token = encode_token(await cents(buyer))
                _, result = await bought(stall, buyer, token, ceiling_msat=20_000, **pinned)
                assert isinstance(result, wire.Result)
                assert result.change is not None
                back = result.change.amount * cent + result.credit_msat
                assert result.cost_msat + result.fee_msat + back == PAID * cent
        await check_books(text)


async def test_a_source_that_is_suddenly_wrong_sells_no_sats_for_a_cent(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            told(tmp_path, USD_PER_BTC // 1_000)  # dollars where it said cents, or so
            rates = stall.daemon.announcer.rates
            await rates.look()
            await stall.daemon.announcer.publish()
            assert [pay.msat for pay in (await page_of(buyer, stall)).pays or ()] == [None, CENT]
            _, result = await bought(stall, buyer, encode_token(await cents(buyer)))
            assert isinstance(result, wire.Result)
            assert result.credit_msat < CENT
        await check_books(text)


@pytest.mark.parametrize("percent", [50, 150])
async def test_a_mint_has_its_own_price(
    relay_url: str, mint_url: str, tmp_path: Path, percent: int
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url, f"percent = {percent}")
        async with selling(text) as stall:
            page = await page_of(buyer, stall)
            _, result = await bought(stall, buyer, await buyer.token(40))
            assert isinstance(result, wire.Result)
            offer = next(one for one in page.models if one.id == MODEL)
            assert result.cost_msat == cost_msat(scaled(offer.price, percent), result.usage)
            token = await buyer.token(40)
            await buyer.say(stall.pubkey, f"/topup {token}")
            said = await buyer.heard(stall.pubkey)
            assert ("added" if percent <= 100 else "payment-mint-unaccepted") in said
        await check_books(text)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, 5))
async def test_the_end_at_any_commit_loses_no_cent(
    relay_url: str, mint_url: str, tmp_path: Path, commit: int, done: bool
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        token = encode_token(await cents(buyer))
        async with buyer.listening() as replies:
            async with mortal(text) as (stall, store):
                payment = wire.TokenPayment(token=token)
                fields: dict[str, Any] = {"ceiling_msat": 30_000, "chunk_ms": None}
                order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
                store.die_at(commit, done=done)
                await buyer.send(buyer.message(order), stall.pubkey)
                async with asyncio.timeout(WAIT_S):
                    await store.dead.wait()
            told(tmp_path, USD_PER_BTC // 3)  # what it ends at is what it was accepted at
            async with selling(text) as stall:
                result = await replies.result()
                async with asyncio.timeout(WAIT_S):
                    while not await at_rest(stall):  # noqa: ASYNC110  the outbox empties itself
                        await asyncio.sleep(0.05)
        assert result.change is not None
        back = result.change.amount * CENT + result.credit_msat
        assert result.cost_msat + result.fee_msat + back == PAID * CENT
        await check_books(text)


@pytest.mark.parametrize("faults", [["lost"], ["garbage"], ["code 0"]])
async def test_whatever_the_mint_answers_the_cents_count_once(
    relay_url: str, mint_url: str, tmp_path: Path, faults: list[str]
) -> None:
    script: Script = writes
    async with (
        FaultyMint(mint_url) as faulty,
        scripted(script) as engine,
        buying(relay_url, faulty.url, tmp_path, amount=0) as buyer,
    ):
        text = town(tmp_path, relay_url, faulty.url, engine.url)
        async with selling(text) as stall:
            token = encode_token(await cents(buyer))
            faulty.faults = list(faults)
            _, result = await bought(stall, buyer, token)
            assert isinstance(result, wire.Result)
            assert result.change is not None
            back = result.change.amount * CENT + result.credit_msat
            assert result.cost_msat + result.fee_msat + back == PAID * CENT
        await check_books(text)


async def locked_cents(buyer: Buyer, stall: Stall) -> str:
    """A token of cents that only the provider can spend for two hours."""
    await cents(buyer)
    lock = (stall.daemon.announcer._payment_key.public, int(time.time()) + 7_200)
    name = secrets.token_hex(8)
    return encode_token(await buyer.purse.send(name, buyer.mint, "usd", PAID, lock=lock))


@pytest.mark.parametrize("ceiling_msat", [30_000, 50_000])
async def test_locked_cents_are_swapped_first_and_given_back_when_they_are_refused(
    relay_url: str, mint_url: str, tmp_path: Path, ceiling_msat: int
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            payment = wire.LockedPayment(token=await locked_cents(buyer, stall), outputs=[])
            _, said = await bought(stall, buyer, payment, ceiling_msat=ceiling_msat)
            if ceiling_msat < PAID * CENT:
                assert isinstance(said, wire.Result)
                assert said.change is not None
                back = said.change.amount * CENT + said.credit_msat
                assert said.cost_msat + said.fee_msat + back == PAID * CENT
            else:
                assert isinstance(said, wire.Refused)
                assert said.problem.code == "payment-amount-low"
                assert said.release
        await check_books(text)


async def test_the_owner_takes_cents_out_but_those_that_credit_needs(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        async with selling(text) as stall:
            _, result = await bought(stall, buyer, encode_token(await cents(buyer)))
            assert isinstance(result, wire.Result)
            assert 0 < result.credit_msat < CENT
            now_s = stall.world.now_s
            assert (await deposit(stall.world.purse, await cents(buyer), now_s)).state == "DONE"
        config = ProviderConfig.model_validate(tomllib.loads(text))
        with pytest.raises(LocalError, match="are yours to take"):
            await withdraw(config, "withdraw-ffffffffffffffff", Wish(PAID + 10, "usd"))
        taken = await withdraw(config, "withdraw-0000000000000000", Wish(PAID - 5, "usd"))
        assert taken.token.unit == "usd"
        await check_books(text)
        async with stopped(config) as store:
            found = summary(await read_books(store)).exchange["usd"]
        assert found.withdrawn == PAID - 5 - (PAID - result.fee_msat // CENT)
        assert found.have > 0


async def test_check_and_status_tell_of_rates(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path, amount=0) as buyer:
        text = town(tmp_path, relay_url, mint_url, engine.url)
        config = ProviderConfig.model_validate(tomllib.loads(text))
        shop = config.shop("")
        async with CashuMints() as mints:
            what, wrong = await check_units(mints.at(mint_url), mint_url, shop)
            assert (what, wrong) == (f"coins of {mint_url}: sat, usd", None)
            _, wrong = await check_units(mints.at("http://127.0.0.1:9"), mint_url, shop)
            assert "payment-mint-unreachable" in (wrong or "")
        [(what, wrong)] = await check_rates(config.rates, shop, CLOCK)
        assert (f"counted as {CENT}" in what, wrong) == (True, None)
        told(tmp_path, age_s=4_000)
        [(_, wrong)] = await check_rates(config.rates, shop, CLOCK)
        assert "too old" in (wrong or "")
        told(tmp_path)
        async with selling(text) as stall:
            _, result = await bought(stall, buyer, encode_token(await cents(buyer)))
            assert isinstance(result, wire.Result)
            report = _Report(config.provider.state, stall.daemon, stall.world, shop)
            await report.write(ready=True)
            said = json.loads((config.provider.state / "status.json").read_text())["exchange"]
            kept = PAID - result.fee_msat // CENT - (result.change.amount if result.change else 0)
            assert said["usd"]["bought"] == kept
            assert said["usd"]["cost_msat"] == kept * CENT
            assert said["usd"]["rate_msat"] == CENT
