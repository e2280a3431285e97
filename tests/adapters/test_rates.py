"""Rates from the operator, from a file, and from the web: looked up, or an error."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.rates import BYTES_MAX, FileRate, FixedRate, Source, WebRates, pointed
from nostrllm.core.rates import Rate
from nostrllm.errors import WorldError

CLOCK = SystemClock()

#: What price lists on the web answer, shortened: Coinbase, Kraken, Bitstamp, mempool.space.
ANSWERS = {
    "/coinbase": '{"data":{"amount":"100000.00","base":"BTC","currency":"USD"}}',
    "/kraken": '{"error":[],"result":{"XXBTZUSD":{"c":["101000.10000","0.00026200"]}}}',
    "/bitstamp": '{"timestamp":"1","last":"99000","pair":"BTC/USD"}',
    "/mempool": '{"time":1,"USD":50000,"EUR":1}',
    "/odd": '{"USD":"soon"}',
    "/none": "{}",
    "/huge": '{"USD":1' + "0" * BYTES_MAX + "}",
    "/text": "a page",
    "/deep": "[" * 60_000,
}
POINTERS = {
    "/coinbase": "/data/amount",
    "/kraken": "/result/XXBTZUSD/c/0",
    "/bitstamp": "/last",
}


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """A web server with all of them; every other path is moved to one."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path not in ANSWERS:
            raise web.HTTPFound("/coinbase")
        return web.Response(text=ANSWERS[request.path], content_type="application/json")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield str(site.name)
    finally:
        await runner.cleanup()


async def asked(names: Sequence[str], at_least: int) -> Rate:
    async with served() as url:
        sources = [Source(url + name, POINTERS.get(name, "/USD")) for name in names]
        return await WebRates(sources, at_least, CLOCK).latest("usd")


async def test_the_operators_own_number_is_as_of_now() -> None:
    rate = await FixedRate(100_000, CLOCK).latest("usd")
    assert rate.msat == 10_000
    assert abs(rate.at - CLOCK.now()) < 5
    with pytest.raises(ValueError, match="not a price"):
        FixedRate(0, CLOCK)


async def test_a_file_is_as_old_as_it_is_and_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "rate"
    rates = FileRate(path)
    with pytest.raises(WorldError, match="No such file") as failed:
        await rates.latest("usd")
    assert failed.value.code == "payment-rate-unknown"
    path.write_text("100000\n")
    os.utime(path, (1_000, 1_000))
    assert await rates.latest("usd") == await rates.latest("usd") == Rate(10_000, 1_000)
    path.write_text("50000")
    os.utime(path, (2_000, 2_000))
    assert await rates.latest("usd") == Rate(20_000, 2_000)
    path.write_text("no price")
    with pytest.raises(WorldError, match="not a price"):
        await rates.latest("usd")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(WorldError, match="UnicodeDecodeError"):
        await rates.latest("usd")


async def test_sources_on_the_web_are_taken_by_their_median() -> None:
    rate = await asked(["/coinbase", "/kraken", "/bitstamp", "/mempool", "/none"], 3)
    assert rate.msat == 10_000  # the lower one of the middle two
    assert abs(rate.at - CLOCK.now()) < 5


@pytest.mark.parametrize("name", ["/odd", "/none", "/huge", "/text", "/deep", "/moved"])
async def test_a_source_that_does_not_answer_does_not_count(name: str) -> None:
    assert (await asked([name, "/coinbase"], 1)).msat == 10_000
    with pytest.raises(WorldError, match="fewer than 2") as failed:
        await asked([name, "/coinbase"], 2)
    assert failed.value.code == "payment-rate-unknown"


async def test_nobody_there_is_no_rate() -> None:
    with pytest.raises(WorldError, match="fewer than 1"):
        await WebRates([Source("http://127.0.0.1:9/", "")], 1, CLOCK).latest("usd")


async def test_no_other_unit_has_a_rate() -> None:
    for rates in (FixedRate(1e5, CLOCK), FileRate(Path("none")), WebRates([], 1, CLOCK)):
        with pytest.raises(WorldError, match="eur"):
            await rates.latest("eur")


def test_pointers() -> None:
    value = {"a/b": [{"m~n": 5}], "": 1}
    assert pointed(value, "") is value
    assert pointed(value, "/a~1b/0/m~0n") == 5
    assert pointed(value, "/") == 1
    for wrong in ("/x", "/a~1b/1", "/a~1b/-", "/a~1b/0/m~0n/x"):
        with pytest.raises(ValueError, match="nothing at"):
            pointed(value, wrong)
