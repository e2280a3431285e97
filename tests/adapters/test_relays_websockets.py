"""The relays port against real relays: coming, going, and everything delivered once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.devnet.children import Child, start_relay
from nostrllm.errors import ConfigError, LocalError
from nostrllm.ports import Filter, Signer
from nostrllm.wire.event import Draft, Event
from tests.adapters.relay_scripted import CLOCK, FAST, KEYRING, ScriptedRelay, first, until
from tests.faultproxy import FaultProxy

WATCHED = 20_000 + 777


def relays(*urls: str, **changes: float) -> WebsocketRelays:
    return WebsocketRelays(urls, KEYRING, CLOCK, replace(FAST, **changes))  # type: ignore[arg-type]


async def note(signer: Signer, text: str, *, kind: int = 1, age_s: int = 0) -> Event:
    return await signer.sign(Draft(kind, text, int(CLOCK.now()) - age_s))


@pytest.fixture
def second_relay(tmp_path: Path) -> Iterator[Child]:
    with start_relay(tmp_path / "second") as relay:
        yield relay


async def test_an_event_on_two_relays_arrives_once_and_own_events_are_echoed(
    relay_url: str, second_relay: Child
) -> None:
    author = KEYRING.signer()
    asked = [Filter(kinds=(1,), authors=(author.pubkey,))]
    async with relays(relay_url, second_relay.url) as mine:
        async with mine.subscribe("notes", asked) as inbox:
            one, two = await note(author, "one"), await note(author, "two")
            for event in (one, two):
                published = await mine.publish(event)
                assert set(published.ok) == {relay_url, second_relay.url}
                assert not published.failed
            assert {(await first(inbox)).id, (await first(inbox)).id} == {one.id, two.id}
            await until(lambda: mine.counts()["duplicate"] == 2)
        fetched = await mine.fetch(asked)
        assert [e.id for e in fetched] == sorted([one.id, two.id])


async def test_publishing_again_is_a_success(relay_url: str) -> None:
    event = await note(KEYRING.signer(), "again")
    async with relays(relay_url) as mine:
        assert (await mine.publish(event)).ok == (relay_url,)
        assert (await mine.publish(event)).ok == (relay_url,)


async def test_a_relay_that_is_down_at_the_start_is_used_when_it_comes(
    relay_process: Child,
) -> None:
    author = KEYRING.signer()
    relay_process.kill()
    async with (
        relays(relay_process.url, patience=2) as mine,
        mine.subscribe("n", [Filter(authors=(author.pubkey,))]) as inbox,
    ):
        await until(lambda: mine.status()[0].reconnects >= 2)
        status = mine.status()[0]
        assert (status.connected, status.heard_s, status.subscriptions) == (False, None, 1)
        assert status.error
        failed = await mine.publish(await note(author, "lost"))
        assert failed.failed[relay_process.url].startswith("not connected")
        assert await mine.fetch([Filter(kinds=(1,))]) == []
        relay_process.start()
        await until(lambda: mine.status()[0].connected)
        event = await note(author, "found")
        assert (await mine.publish(event)).ok
        assert (await first(inbox)).id == event.id
        status = mine.status()[0]
        assert status.error is None
        assert status.heard_s is not None


async def test_a_relay_that_dies_and_returns_is_asked_again(relay_process: Child) -> None:
    author = KEYRING.signer()
    async with (
        relays(relay_process.url) as mine,
        mine.subscribe("n", [Filter(authors=(author.pubkey,))], stored_s=60) as inbox,
    ):
        await mine.publish(await note(author, "before"))
        assert (await first(inbox)).content == "before"
        relay_process.restart()
        await until(lambda: mine.status()[0].reconnects > 0 and mine.status()[0].connected)
        async with relays(relay_process.url) as other:
            await other.publish(await note(author, "after"))
        assert (await first(inbox)).content == "after"


async def test_a_cut_connection_is_mended_while_a_publication_waits(relay_url: str) -> None:
    async with FaultProxy(relay_url) as proxy, relays(proxy.url) as mine:
        assert (await mine.publish(await note(KEYRING.signer(), "whole"))).ok
        proxy.swallow_up = True
        waiting = asyncio.ensure_future(mine.publish(await note(KEYRING.signer(), "cut")))
        await asyncio.sleep(0)
        proxy.swallow_up = False
        proxy.cut()
        assert (await waiting).ok == (proxy.url,)


async def test_a_half_open_connection_is_noticed(relay_url: str) -> None:
    async with (
        FaultProxy(relay_url) as proxy,
        relays(proxy.url, ping_interval_s=0.1, ping_timeout_s=0.2) as mine,
    ):
        assert (await mine.publish(await note(KEYRING.signer(), "a"))).ok
        proxy.stall()
        await until(lambda: not mine.status()[0].connected)
        proxy.flow()
        await until(lambda: mine.status()[0].connected)
        assert (await mine.publish(await note(KEYRING.signer(), "b"))).ok


async def test_a_relay_that_takes_no_more_bytes_is_dropped(relay_url: str) -> None:
    big = "x" * 60_000
    async with FaultProxy(relay_url) as proxy, relays(proxy.url, send_timeout_s=0.1) as mine:
        await until(lambda: mine.status()[0].connected)
        proxy.stall()
        author = KEYRING.signer()
        for number in range(400):
            await mine.cast(await note(author, f"{number}{big}", kind=WATCHED))
            if mine.status()[0].reconnects or not mine.status()[0].connected:
                break
        await until(lambda: mine.status()[0].reconnects > 0)


async def test_reconnecting_backs_off() -> None:
    async with ScriptedRelay() as gone:
        url = gone.url
    async with relays(url, backoff_s=0.2, backoff_s_max=60.0) as mine:
        await until(lambda: mine.status()[0].reconnects == 2)
        async with ScriptedRelay() as other, asyncio.timeout(5):
            # 0.1–0.2, 0.2–0.4, 0.4–0.8 s: while this goes on there is no third
            assert (await mine.publish(await note(KEYRING.signer(), "x"), to=[other.url])).ok
        assert mine.status()[0].reconnects == 2


async def test_a_relay_not_configured_is_opened_on_demand_and_closed_when_idle(
    relay_url: str, second_relay: Child
) -> None:
    event = await note(KEYRING.signer(), "x")
    async with relays(relay_url, idle_s=0.05) as mine:
        published = await mine.publish(event, to=[second_relay.url + "/"])
        assert published.ok == (second_relay.url + "/",)
        await until(lambda: [s.url for s in mine.status()] == [relay_url])
        assert mine.status()[0].connected
        assert [e.id for e in await mine.fetch([Filter(ids=(event.id,))])] == []
        found = await mine.fetch([Filter(ids=(event.id,))], to=[relay_url, second_relay.url])
        assert [e.id for e in found] == [event.id]


async def test_a_subscription_keeps_its_connection_from_being_idle(second_relay: Child) -> None:
    author = KEYRING.signer()
    async with relays(idle_s=0.02) as mine:
        asked = [Filter(authors=(author.pubkey,))]
        async with mine.subscribe("s", asked, to=[second_relay.url]) as inbox:
            async with ScriptedRelay() as other:  # reaped while the subscription stays
                await mine.publish(await note(author, "elsewhere"), to=[other.url])
                await until(lambda: len(mine.status()) == 1)
            event = await note(author, "live", kind=WATCHED)
            await mine.cast(event, to=[second_relay.url])
            assert (await first(inbox)).id == event.id
        await until(lambda: mine.status() == [])


async def test_the_number_of_connections_is_bounded(relay_url: str, second_relay: Child) -> None:
    event = await note(KEYRING.signer(), "x")
    async with relays(relay_url, connections_max=2) as mine, ScriptedRelay() as third:
        async with mine.subscribe("s", [Filter(ids=(event.id,))], to=[second_relay.url]):
            full = await mine.publish(event, to=[third.url])
            assert full.failed == {third.url: "no relay address, or too many connections"}
            assert mine.counts()["too-many-connections"] == 1
        assert (await mine.publish(event, to=[third.url])).ok  # the idle one makes room
        assert [s.url for s in mine.status()] == [relay_url, third.url]


async def test_what_is_no_relay_address_fails_and_raises_nothing() -> None:
    event = await note(KEYRING.signer(), "x")
    strange = [
        "https://x",
        "ws://",
        "ws://a:b@c",
        "ws://[",
        "",
        "ws://x:99999",
        "ws://" + 600 * "x",
    ]
    async with relays() as mine:
        published = await mine.publish(event, to=strange)
        assert set(published.failed) == set(strange)
        assert not published.ok
        await mine.cast(event, to=strange)
        assert await mine.fetch([Filter()], to=strange) == []
        assert await mine.publish(event, to=[]) == await mine.publish(event)
        async with mine.subscribe("s", [Filter()], to=strange):
            assert mine.status() == []
    with pytest.raises(ConfigError):
        relays("http://x")
    with pytest.raises(LocalError):
        await mine.publish(event, to=["ws://127.0.0.1:1"])


async def test_the_catch_up_query_brings_what_was_missed_and_the_overflow(relay_url: str) -> None:
    author = KEYRING.signer()
    sent = [await note(author, str(n), age_s=n) for n in range(12)]
    async with (
        relays(relay_url, queue_max=5, catchup_s=0.05) as mine,
        mine.subscribe("s", [Filter(authors=(author.pubkey,))], stored_s=600) as inbox,
    ):
        for event in sent:
            await mine.publish(event)
        await until(lambda: mine.counts()["dropped"] > 0)
        got = {(await first(inbox)).id for _ in sent}
    assert got == {event.id for event in sent}


async def test_since_reaches_back_as_far_as_stored_events_are_wanted() -> None:
    async with ScriptedRelay() as relay, relays(relay.url) as mine:
        wanted = [Filter(kinds=(1059,), since=5), Filter(kinds=(4,))]
        async with mine.subscribe("s", wanted, stored_s=200_000):
            now = CLOCK.now()
        older, newer = next(f for f in relay.said("REQ") if len(f) == 4)[2:]
        assert abs(older["since"] - (now - 200_000)) < 3
        assert older["since"] == newer["since"]
        async with mine.subscribe("t", [Filter(kinds=(6,))]):
            assert relay.said("REQ")[-1][2:] == [{"kinds": [6]}]
        await until(lambda: len(relay.said("CLOSE")) == 2)


async def test_a_thousand_events_come_through_two_relays_in_order_of_arrival(
    relay_url: str, second_relay: Child
) -> None:
    author = KEYRING.signer()
    events = [await note(author, str(n), kind=WATCHED) for n in range(1_000)]
    async with (
        relays(relay_url, second_relay.url) as mine,
        mine.subscribe("s", [Filter(kinds=(WATCHED,), authors=(author.pubkey,))]) as inbox,
        asyncio.TaskGroup() as group,
    ):
        sending = group.create_task(_cast_all(mine, events))
        got = [(await first(inbox)).id for _ in events]
        await sending
    assert sorted(got) == sorted(event.id for event in events)


async def _cast_all(mine: WebsocketRelays, events: list[Event]) -> None:
    for event in events:
        await mine.cast(event)


async def test_nothing_is_left_behind(relay_url: str) -> None:
    async def fail() -> None:
        asked = [Filter(kinds=(1,), limit=1)]
        async with (
            relays(relay_url, "ws://127.0.0.1:1") as mine,
            mine.subscribe("s", asked, signer=KEYRING.signer()),
        ):
            await mine.publish(await note(KEYRING.signer(), "x"))
            raise ZeroDivisionError

    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        await fail()
    await until(lambda: asyncio.all_tasks() == before)
    gc.collect()


async def test_leaving_ends_the_iteration_of_another_task(relay_url: str) -> None:
    async def read() -> int:
        return len([event async for event in inbox])

    async with relays(relay_url) as mine:
        async with mine.subscribe("s", [Filter(kinds=(WATCHED + 1,))]) as inbox:
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
        assert await reading == 0


async def test_cancelling_the_owner_closes_everything(relay_url: str) -> None:
    entered = asyncio.Event()

    async def own() -> None:
        async with (
            relays(relay_url, "ws://127.0.0.1:1") as mine,
            mine.subscribe("s", [Filter(kinds=(1,), limit=1)]) as inbox,
        ):
            entered.set()
            async for _ in inbox:
                continue

    before = asyncio.all_tasks()
    task = asyncio.ensure_future(own())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("when", ["before the handshake", "afterwards"])
async def test_leaving_does_not_wait_for_a_stalled_relay(relay_url: str, when: str) -> None:
    before = asyncio.all_tasks()
    async with FaultProxy(relay_url) as proxy:
        proxies = asyncio.all_tasks()
        if when == "before the handshake":
            proxy.stall()
        async with relays(proxy.url) as mine:
            await until(lambda: proxy.connections)
            if when == "afterwards":
                await until(lambda: mine.status()[0].connected)
                proxy.stall()
            began = CLOCK.monotonic()
        assert CLOCK.monotonic() - began < 5
        ours = asyncio.all_tasks() - proxies
        assert not [task for task in ours if "proxy" not in repr(task).lower()]
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_cast_gives_up_on_a_relay_that_does_not_answer(relay_url: str) -> None:
    async with FaultProxy(relay_url) as proxy, relays(connect_timeout_s=0.05) as mine:
        proxy.stall()
        await mine.cast(await note(KEYRING.signer(), "x", kind=WATCHED), to=[proxy.url])
        failed = await mine.publish(await note(KEYRING.signer(), "x"), to=[proxy.url])
        assert failed.failed[proxy.url].startswith("not connected")
        late = await mine.publish(
            await note(KEYRING.signer(), "y"), to=["ws://127.0.0.1:1/late"], timeout_s=0
        )
        assert late.failed


async def test_a_delayed_relay_is_waited_for(relay_url: str) -> None:
    async with FaultProxy(relay_url) as proxy, relays(proxy.url) as mine:
        proxy.delay_s = 0.05
        assert (await mine.publish(await note(KEYRING.signer(), "x"))).ok == (proxy.url,)
        proxy.refuse = True
        proxy.cut()
        await until(lambda: mine.status()[0].reconnects > 3)
        assert proxy.connections > 3
