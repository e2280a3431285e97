"""A provider among relays that die, repeat, and carry rubbish."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from nostrllm.devnet.children import Child, start_relay
from nostrllm.ports import Filter
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.event import Draft, Event, rumor
from tests.adapters.relay_scripted import ScriptedRelay, until
from tests.adapters.scripted import scripted
from tests.roles.market import CLOCK, KEYRING, WAIT_S, Replies, Stall, buying, config_text, selling
from tests.roles.test_provider_orders import writes


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[list[Child]]:
    """Three relays of the test's own."""
    with ExitStack() as stack:
        yield [stack.enter_context(start_relay(tmp_path / f"relay{n}")) for n in range(3)]


def urls(relays: list[Child]) -> list[str]:
    return [relay.url for relay in relays]


async def all_up(stall: Stall, count: int) -> None:
    """Wait until the provider is connected to so many relays."""
    await until(
        lambda: sum(r.connected for r in stall.world.relays.status()) == count, timeout_s=WAIT_S
    )


async def test_an_order_five_times_over_three_relays_is_charged_once(
    relays: list[Child], mint_url: str, tmp_path: Path
) -> None:
    async with (
        scripted(writes) as engine,
        selling(config_text(tmp_path / "s", urls(relays), mint_url, engine.url)) as stall,
        buying(relays[0].url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        await all_up(stall, 3)
        payment = wire.TokenPayment(token=await buyer.token(64))
        order = await buyer.order(stall.pubkey, payment, reply=replies.key)
        letter = buyer.message(order)
        for _ in range(5):
            wrap = await buyer.me.wrap(letter, stall.pubkey)
            await buyer.relays.publish(wrap, to=urls(relays))
        result = await replies.result()
        assert result.problem is None
        assert len(engine.asked) == 1
        assert len(await stall.orders()) == 1
        assert -(await stall.books())["income"] == result.cost_msat


async def test_a_relay_that_is_down_at_the_start_and_one_that_dies_later(
    relays: list[Child], mint_url: str, tmp_path: Path
) -> None:
    relays[1].kill()
    async with (
        scripted(writes) as engine,
        selling(config_text(tmp_path / "s", urls(relays[:2]), mint_url, engine.url)) as stall,
        buying(relays[1].url, mint_url, tmp_path) as person,
    ):
        relays[1].start()
        await all_up(stall, 2)
        relays[0].kill()
        await until(lambda: person.relays.status()[0].connected, timeout_s=WAIT_S)
        await person.say(stall.pubkey, f"Hello? {await person.token(32)}")
        said = await person.heard_until(stall.pubkey, "cashuB")
        assert said[0] == "Hello there."
        relays[0].start()
        await all_up(stall, 2)


async def test_a_client_that_went_away_finds_its_result_later(
    relays: list[Child], mint_url: str, tmp_path: Path
) -> None:
    key = KEYRING.signer()
    async with (
        scripted(writes) as engine,
        selling(config_text(tmp_path / "s", urls(relays), mint_url, engine.url)) as stall,
    ):
        async with buying(relays[0].url, mint_url, tmp_path) as buyer:
            payment = wire.TokenPayment(token=await buyer.token(64))
            order = await buyer.order(stall.pubkey, payment, reply=key)
            await buyer.send(buyer.message(order), stall.pubkey)
        await until(lambda: len(engine.asked) == 1)
        async with buying(relays[0].url, mint_url, tmp_path, amount=0) as later:
            wanted = Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (key.pubkey,)})
            async with later.relays.subscribe("late", [wanted], stored_s=200_000) as wraps:
                result = await Replies(key, wraps, wraps).result()
        assert result.text == "Hello there."


async def test_rubbish_is_counted_and_nothing_stops(
    relays: list[Child], mint_url: str, tmp_path: Path
) -> None:
    async with (
        scripted(writes) as engine,
        selling(config_text(tmp_path / "s", urls(relays[:1]), mint_url, engine.url)) as stall,
        buying(relays[0].url, mint_url, tmp_path) as person,
    ):
        for event in await rubbish(stall.pubkey):
            await person.relays.publish(event)
        await person.say(stall.pubkey, f"Hello? {await person.token(32)}")
        said = await person.heard_until(stall.pubkey, "cashuB")
        assert said[0] == "Hello there."
        status = await stall.daemon.status()
        assert sum(status.dropped.values()) >= 5
        assert len(await stall.orders()) == 1


async def rubbish(to: str) -> list[Event]:
    """Wraps that hold what no honest client writes, each signed so that the relay takes it."""
    now, sender, other = int(CLOCK.now()), KEYRING.signer(), KEYRING.signer()
    tags = (("p", to),)
    hello = rumor(Draft(kinds.DM, "/help", now, tags), sender.pubkey)
    outer = KEYRING.signer()

    async def wrapped(text: str) -> Event:
        content = await outer.encrypt(text, to)
        return await outer.sign(Draft(kinds.GIFT_WRAP, content, now, tags))

    async def sealed(text: str, kind: int = kinds.SEAL) -> str:
        content = await other.encrypt(text, to)
        return json.dumps((await other.sign(Draft(kind, content, now))).as_dict())

    broken = json.loads(await sealed("x"))
    broken["sig"] = secrets.token_hex(64)
    long = rumor(Draft(kinds.DM, "x" * 40_000, now, tags), sender.pubkey)
    return [
        await outer.sign(Draft(kinds.GIFT_WRAP, "not NIP-44", now, tags)),
        await wrapped("not JSON"),
        await wrapped("{}"),
        await wrapped(json.dumps(broken)),
        await wrapped(await sealed("not a rumor")),
        await wrapped(await sealed(json.dumps(hello.as_dict()))),  # the seal is another's
        await wrapped(await sealed(json.dumps(hello.as_dict()), kind=1)),
        await other.wrap(rumor(Draft(7, "+", now, tags), other.pubkey), to),
        await other.wrap(rumor(Draft(kinds.MESSAGE, "{", now), other.pubkey), to),
        await other.wrap(rumor(Draft(kinds.PART, "eA==", now), other.pubkey), to),
        replace(await sender.wrap(hello, to), created_at=now - 1),  # the relay refuses this one
        await sender.wrap(long, to),
        await outer.sign(Draft(kinds.DM_LEGACY, "x?iv=y", now, tags)),
    ]


async def test_an_expired_order_is_not_read_though_a_relay_kept_it(
    mint_url: str, tmp_path: Path
) -> None:
    async with (
        ScriptedRelay() as relay,
        scripted(writes) as engine,
        selling(config_text(tmp_path / "s", [relay.url], mint_url, engine.url)) as stall,
    ):
        sender, now = KEYRING.signer(), int(CLOCK.now())
        hello = rumor(Draft(kinds.DM, "/help", now, (("p", stall.pubkey),)), sender.pubkey)
        await relay.broadcast(await sender.wrap(hello, stall.pubkey, expiration=now - 5))
        while not (await stall.daemon.status()).dropped.get("message-stale"):
            await CLOCK.sleep(0.02)
        assert await stall.world.store.read("outbox_of", owner=hello.id) == []
