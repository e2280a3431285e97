"""Prices that move: seldom, with reasons, kept over restarts, and never against a promise."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nostrllm.client.watch import Seen
from nostrllm.devnet.children import Child
from nostrllm.errors import ConfigError, RemoteError
from nostrllm.ports import Filter
from nostrllm.service.config import ProviderConfig
from nostrllm.service.market import market
from nostrllm.service.place import place
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import ModelOffer, Price, PricePage, parse_price_page
from nostrllm.wire.tick import Tick, parse_tick
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import MODEL, Buyer, Stall, buying, config_text, selling
from tests.roles.test_provider_orders import writes
from tests.roles.test_provider_requests import check_books
from tests.roles.test_provider_units import USD_PER_BTC, told, town

LIST = Price(input=20_000_000, output=60_000_000, request=1_000)
WAIT_S = 30.0

#: The operator's own program: the price that stands in a file, so that a test can move it.
SCRIPT = """
[pricing]
command = ["cat", "{file}"]
every_s = 0.1
rivals_s = 0.2
{more}
"""


def asks(file: Path, price: float) -> Path:
    """Have the program ask this multiple from now on."""
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(f"{price}\n")
    return part.replace(file)


@asynccontextmanager
async def shop(
    tmp: Path, relay: str, mint: str, price: float = 1.0, more: str = "", script: Any = writes
) -> AsyncIterator[tuple[Stall, Path, str]]:
    """A provider whose price is in a file."""
    file = asks(tmp / "price", price)
    async with scripted(script) as engine:
        text = config_text(tmp / "stall", [relay], mint, engine.url)
        text += SCRIPT.format(file=file, more=more)
        async with selling(text) as stall:
            yield stall, file, text


async def pages(buyer: Buyer, stall: Stall) -> list[PricePage]:
    wanted = Filter(kinds=(kinds.PRICE_LIST,), authors=(stall.pubkey,))
    return [parse_price_page(event) for event in await buyer.relays.fetch([wanted])]


def offered(stall: Stall) -> ModelOffer:
    return stall.daemon.announcer.current(MODEL)[0]


async def until_price(stall: Stall, output: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while offered(stall).price.output != output:  # noqa: ASYNC110 (no event says it)
            await asyncio.sleep(0.02)


async def bought(
    stall: Stall, buyer: Buyer, price: str, **fields: Any
) -> wire.Result | wire.Refused:
    """Order by this page."""
    async with buyer.listening() as replies:
        payment = wire.TokenPayment(token=await buyer.token(64))
        order = await buyer.order(
            stall.pubkey, payment, reply=replies.key, price=price, chunk_ms=None, **fields
        )
        await buyer.send(buyer.message(order), stall.pubkey)
        while True:
            said = await replies.next()
            if isinstance(said, wire.Result | wire.Refused):
                return said


async def test_an_order_pays_what_its_page_says_whatever_the_price_is_now(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, file, text),
        buying(relay_url, mint_url, tmp_path) as buyer,
    ):
        cheap = stall.daemon.announcer.current(MODEL)[1]
        asks(file, 3.0)
        await until_price(stall, 3 * LIST.output)
        dear = stall.daemon.announcer.current(MODEL)[1]
        first = await bought(stall, buyer, cheap)
        second = await bought(stall, buyer, dear)
        assert isinstance(first, wire.Result)
        assert isinstance(second, wire.Result)
        assert first.usage == second.usage
        assert second.cost_msat == 3 * first.cost_msat > 0
    await check_books(text)


async def test_a_change_is_published_with_its_reasons(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, file, _),
        buying(relay_url, mint_url, tmp_path, 0) as buyer,
    ):
        asks(file, 100.0)  # above what the operator allows
        await until_price(stall, 10 * LIST.output)
        async with asyncio.timeout(WAIT_S):
            while True:
                [page] = await pages(buyer, stall)
                if page.models[0].price.output == 10 * LIST.output:
                    break
        assert page.reasons == ["operator", "bound"]
        assert page.models[0].price == Price(
            input=10 * LIST.input, output=10 * LIST.output, request=10 * LIST.request
        )
        assert page.models[1].price == Price(input=0, output=0)  # free stays free


async def test_a_list_changes_six_times_an_hour_and_no_more_also_over_restarts(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    seen: set[int] = set()
    for start in range(2):
        async with shop(tmp_path, relay_url, mint_url, 1.0 + start) as (stall, file, _):
            announcer = stall.daemon.announcer
            for step in range(40):
                asks(file, 1.0 + step % 7)
                await asyncio.sleep(0.05)
                seen.add(offered(stall).price.output)
                assert announcer.tariff.limiter.left(stall.world.clock.now()) >= 0
            # each change is one list more, and the first and the one at the start are none
            left = announcer.tariff.limiter.left(stall.world.clock.now())
            explained = stall.daemon.pricer.explain()
            assert explained["changes_left"] == left
            last = offered(stall).price.output
            assert announcer.seq <= 2 + 6 + 2 * start
    assert left == 0
    assert explained["change_worth"] is None
    assert explained["next_change_at"] > stall.world.clock.now() + 3_000
    assert len(seen) <= 7
    async with shop(tmp_path, relay_url, mint_url, 50.0) as (stall, _, _):
        await asyncio.sleep(0.5)
        assert offered(stall).price.output == last


async def test_a_program_that_fails_leaves_the_last_price(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with shop(tmp_path, relay_url, mint_url, 2.0) as (stall, file, _):
        assert offered(stall).price.output == 2 * LIST.output  # in the first list already
        file.write_text("dear")
        await asyncio.sleep(0.5)
        assert offered(stall).price.output == 2 * LIST.output


async def test_no_price_is_below_cost(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    file = asks(tmp_path / "price", 0.01)
    async with scripted(writes) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        text = text.replace(
            "request_msat = 1_000",
            "request_msat = 1_000\ncost_input_msat_per_mtok = 4_000_000\n"
            "cost_output_msat_per_mtok = 30_000_000",
        )
        async with selling(text + SCRIPT.format(file=file, more="")) as stall:
            assert offered(stall).price.output == 1.05 * 30_000_000
            [pool] = stall.daemon.pricer.explain()["pools"].values()
            assert pool["reasons"] == ("operator", "cost-floor")
            assert pool["cost_floor"] == 0.525


async def test_what_was_learned_survives_a_restart(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(writes) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        text += '\n[pricing]\npolicy = "learned"\nevery_s = 0.05\nrivals_s = 0.2\n'
        async with selling(text) as stall, buying(relay_url, mint_url, tmp_path) as buyer:
            price = stall.daemon.announcer.current(MODEL)[1]
            for _ in range(3):
                assert isinstance(await bought(stall, buyer, price), wire.Result)
            await stall.daemon.pricer.tick()
            before = stall.daemon.announcer.tariff
            await before.save(
                {name: pool.learned for name, pool in stall.daemon.pricer._pools.items()}
            )
            learned = json.loads(json.dumps(before.learned))
            published = dict(before.multipliers)
            drought: Any = learned["openai"]["drought"]
            assert drought["orders"] > 2
        async with selling(text) as stall:
            after = stall.daemon.announcer.tariff
            assert after.multipliers == published
            assert after.limiter.snapshot() == before.limiter.snapshot()
            again: Any = stall.daemon.pricer._pools["openai"].learned
            assert again["drought"]["orders"] > 2
            assert again["elasticity"]["begun"]
    await check_books(text)


async def holds(wire: Wire) -> None:
    """An answer that takes its time."""
    await wire.open()
    for _ in range(100):
        await wire.text("word ")
        await asyncio.sleep(0.05)
    await wire.end()


async def test_load_raises_the_price_and_ticks_tell(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(holds) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        text += '\n[pricing]\npolicy = "learned"\nevery_s = 0.1\nrivals_s = 0.2\n'
        async with selling(text) as stall, buying(relay_url, mint_url, tmp_path, 2_000) as buyer:
            wanted = Filter(kinds=(kinds.TICK,), authors=(stall.pubkey,))
            before = offered(stall).price.output
            async with buyer.relays.subscribe("ticks", [wanted]) as ticks:
                price = stall.daemon.announcer.current(MODEL)[1]
                for _ in range(10):
                    payment = wire.TokenPayment(token=await buyer.token(64))
                    order = await buyer.order(
                        stall.pubkey, payment, reply=stall.world.keyring.signer(), price=price
                    )
                    await buyer.send(buyer.message(order), stall.pubkey)
                told = await first_dearer(ticks, before)
            assert told.reasons is not None
            assert "congestion" in told.reasons
            [pool] = stall.daemon.pricer.explain()["pools"].values()
            assert pool["utilisation"] > 0
            assert pool["state"]["queue_work"] > 0


async def first_dearer(ticks: Any, than: int) -> Tick:
    async with asyncio.timeout(WAIT_S):
        async for event in ticks:
            tick = parse_tick(event)
            if any(one.id == MODEL and one.price.output > than for one in tick.models):
                return tick
    raise AssertionError


async def test_others_prices_are_looked_at(
    relay_process: Child, mint_url: str, tmp_path: Path
) -> None:
    """Another shop on the same relay sells the same model at three times the price."""
    relay = relay_process.url
    async with (
        shop(tmp_path / "a", relay, mint_url, 3.0) as (dear, _, _),
        shop(tmp_path / "b", relay, mint_url, 1.0) as (stall, _, _),
    ):
        assert offered(dear).price.output == 3 * LIST.output
        async with asyncio.timeout(WAIT_S):
            while (found := rival(stall)) is None:  # noqa: ASYNC110 (no event says it)
                await asyncio.sleep(0.1)
        assert found == 3.0


async def test_a_client_sees_the_prices_of_lists_and_ticks(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    seen: list[Seen] = []
    async with (
        shop(tmp_path, relay_url, mint_url) as (stall, file, _),
        market(place(relays=[relay_url])) as look,
    ):
        steps = iter((2.0, 2.03))  # a change of the list; and one that is told by a tick alone
        async with asyncio.timeout(WAIT_S):
            async for one in look.prices(MODEL, stall.pubkey):
                seen.append(one)
                if one.price_event is None and seen[-2].price.output == 2 * LIST.output:
                    if one.price.output == 121_800_000:
                        break
                elif one.price_event is not None:
                    asks(file, next(steps))
    lists = [one for one in seen if one.price_event]
    assert [one.price.output for one in lists] == [LIST.output, 2 * LIST.output]
    assert lists[-1].reasons == ("operator",)
    assert seen[-1].price_event is None
    assert seen[-1].wait_s == 0
    assert {one.provider for one in seen} == {stall.pubkey}


def rival(stall: Stall) -> Any:
    """The competitors' price that the policy was last told."""
    [pool] = stall.daemon.pricer.explain()["pools"].values()
    return pool["state"]["comp_price"]


DOLLARS = """
[rates]
file = "{rate}"
every_s = 1
"""


async def test_prices_in_dollars_follow_the_rate_and_go_when_it_is_stale(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    cent = 10**11 // (100 * 100_000)  # msat, where a bitcoin is 100,000 dollars
    async with scripted(writes) as engine, buying(relay_url, mint_url, tmp_path) as buyer:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        text = text.replace("input_msat_per_mtok = 20_000_000", "input_usd_per_mtok = 0.2")
        text = text.replace("output_msat_per_mtok = 60_000_000", "output_usd_per_mtok = 0.6")
        text = text.replace("request_msat = 1_000", "request_usd = 0.0001")
        text += DOLLARS.format(rate=told(tmp_path, 100_000))
        text += "\n[pricing]\nevery_s = 0.1\n"
        async with selling(text) as stall:
            offer, page = stall.daemon.announcer.current(MODEL)
            asked = cent * 101 // 100
            assert offer.price == Price(input=20 * asked, output=60 * asked, request=asked // 100)
            told(tmp_path, 50_000)
            await until_price(stall, 60 * 2 * asked)
            told(tmp_path, 50_000, age_s=3_700)
            async with asyncio.timeout(WAIT_S):
                while MODEL in {one.id for one in stall.daemon.announcer.offers}:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            with pytest.raises(RemoteError) as unknown:
                stall.daemon.announcer.current(MODEL)
            assert unknown.value.code == "model-unavailable"
            assert {one.id for one in stall.daemon.announcer.offers} == {"free"}
            result = await bought(stall, buyer, page)  # the page promised it
            assert isinstance(result, wire.Result)
            assert result.problem is None
            assert result.cost_msat > 0
            told(tmp_path, 100_000)
            async with asyncio.timeout(WAIT_S):
                while MODEL not in {one.id for one in stall.daemon.announcer.offers}:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert stall.daemon.announcer.tariff.limiter.left(stall.world.clock.now()) >= 0
    await check_books(text)


async def test_a_rate_that_moves_coins_and_prices_is_one_change(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    text = town(tmp_path, relay_url, mint_url, "http://127.0.0.1:9/v1")
    text = text.replace("input_msat_per_mtok = 20_000_000", "input_usd_per_mtok = 0.2")
    text = text.replace("output_msat_per_mtok = 60_000_000", "output_usd_per_mtok = 0.6")
    text = text.replace("request_msat = 1_000", "")
    async with selling(text + "\n[pricing]\nevery_s = 0.05\n") as stall:
        asked, tariff = offered(stall).price.output, stall.daemon.announcer.tariff
        for step in (1, 2):
            told(tmp_path, USD_PER_BTC / 2**step)
            await until_price(stall, asked * 2**step)
            await asyncio.sleep(0.3)
            assert tariff.limiter.left(stall.world.clock.now()) == 6 - step
            assert stall.daemon.announcer.seq == 2 + step


async def test_dollars_without_a_rate_are_no_configuration(tmp_path: Path) -> None:
    text = config_text(tmp_path / "s", ["ws://127.0.0.1:9"], "http://127.0.0.1:9", "http://x/v1")
    text = text.replace("input_msat_per_mtok = 0", "input_usd_per_mtok = 1")
    for wrong in (text, text.replace("output_msat_per_mtok = 0", "output_usd_per_mtok = 1")):
        config = ProviderConfig.model_validate(tomllib.loads(wrong))
        with pytest.raises(ConfigError, match="usd"):
            config.shop("0")
