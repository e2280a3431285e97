"""The relays port through relays written by others, which disagree where it matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from nostr_sdk import (
    LocalRelay,
    LocalRelayBuilder,
    LocalRelayBuilderNip42,
    LocalRelayBuilderNip42Mode,
    RateLimit,
    uniffi_set_event_loop,
)

from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.ports import Filter, Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, rumor
from tests.adapters.relay_pypi import nostr_relay
from tests.adapters.relay_scripted import CLOCK, FAST, KEYRING, first, until
from tests.interop.peers import relay_core

PATIENT = replace(FAST, settle_s=10.0)


def relays(url: str, limits: RelayLimits = PATIENT) -> WebsocketRelays:
    return WebsocketRelays([url], KEYRING, CLOCK, limits)


async def note(text: str, kind: int = 1, signer: Signer | None = None) -> Event:
    return await (signer or KEYRING.signer()).sign(Draft(kind, text, int(CLOCK.now())))


@pytest.fixture(scope="module")
def pypi_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nostr_relay(tmp_path_factory.mktemp("nostr-relay")) as url:
        yield url


@pytest.fixture(scope="module")
def core_url() -> Iterator[str]:
    with relay_core() as url:
        yield url


@pytest.fixture(
    params=["relay_url", "pypi_url", pytest.param("core_url", marks=pytest.mark.interop)]
)
def any_url(request: pytest.FixtureRequest) -> str:
    url = request.getfixturevalue(request.param)
    assert isinstance(url, str)
    return url


async def test_stored_live_and_ephemeral(any_url: str) -> None:
    author = KEYRING.signer()
    asked = [Filter(kinds=(1, kinds.CHUNK), authors=(author.pubkey,))]
    stored = await note("stored", signer=author)
    async with relays(any_url) as mine:
        assert (await mine.publish(stored, timeout_s=30)).ok == (any_url,)
        assert (await mine.publish(stored, timeout_s=30)).ok == (
            any_url,
        )  # `duplicate:`, whatever the flag
        assert await mine.fetch(asked, timeout_s=30) == [stored]
        async with mine.subscribe("s", asked, stored_s=60) as inbox:
            assert await first(inbox) == stored
            live = await note("live", signer=author)
            assert (await mine.publish(live, timeout_s=30)).ok == (any_url,)
            assert await first(inbox) == live
            chunk = await note("chunk", kind=kinds.CHUNK, signer=author)
            await mine.cast(chunk)
            assert await first(inbox) == chunk
            unanswered = await note("chunk 2", kind=kinds.CHUNK, signer=author)
            assert (await mine.publish(unanswered, timeout_s=1.0)).ok == (any_url,)


async def test_gift_wraps_of_both_kinds(any_url: str) -> None:
    sender, reader = KEYRING.signer(), KEYRING.signer()
    message = rumor(Draft(kinds.DM, "psst", int(CLOCK.now())), sender.pubkey)
    asked = [Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (reader.pubkey,)})]
    live = [Filter(kinds=(kinds.GIFT_WRAP_EPHEMERAL,), tags={"p": (reader.pubkey,)})]
    async with (
        relays(any_url) as mine,
        mine.subscribe("wraps", asked, stored_s=3 * 86_400, signer=reader) as inbox,
        mine.subscribe("live", live, signer=reader) as pings,
    ):
        wrap = await sender.wrap(message, reader.pubkey)
        assert (await mine.publish(wrap, timeout_s=30)).ok == (any_url,)
        assert await reader.unwrap(await first(inbox)) == message
        await mine.cast(await sender.wrap(message, reader.pubkey, ephemeral=True))
        assert await reader.unwrap(await first(pings)) == message


async def test_the_probe_and_the_catch_up_pass(any_url: str) -> None:
    author = KEYRING.signer()
    asked = [Filter(authors=(author.pubkey,))]
    limits = replace(PATIENT, probe_s=0.05, probe_timeout_s=5.0, catchup_s=0.05)
    async with relays(any_url, limits) as mine:
        async with mine.subscribe("s", asked, stored_s=60) as inbox:
            await until(lambda: mine.counts().get("probe", 0) >= 3)
            event = await note("x", signer=author)
            await mine.publish(event)
            assert await first(inbox) == event
            await until(lambda: mine.counts().get("duplicate", 0) >= 3)
            live = await note("live", kind=kinds.CHUNK, signer=author)
            await mine.cast(live)  # asking again has not cost us the live ones
            assert await first(inbox) == live
        assert mine.status()[0].reconnects == 0
        assert "probe-swallowed" not in mine.counts()
        assert mine.counts().get("closed", 0) == 0


@asynccontextmanager
async def guarded(builder: LocalRelayBuilder) -> AsyncIterator[str]:
    """nostr-sdk's relay with AUTH."""
    uniffi_set_event_loop(asyncio.get_running_loop())
    limit = RateLimit(max_reqs=500, notes_per_minute=100_000)
    relay: LocalRelay = builder.addr("127.0.0.1").rate_limit(limit).build()
    await relay.run()
    try:
        yield str(await relay.url())
    finally:
        relay.shutdown()


async def test_auth_for_reading_and_writing() -> None:
    reader, stranger = KEYRING.signer(), KEYRING.signer()
    builder = LocalRelayBuilder().nip42(
        LocalRelayBuilderNip42(mode=LocalRelayBuilderNip42Mode.BOTH)
    )
    async with guarded(builder) as url, relays(url, FAST) as mine:
        by_nobody = await mine.publish(await note("x", signer=stranger))
        assert by_nobody.ok == (url,)  # signed in with a key made for that
        assert await mine.fetch([Filter(kinds=(1,))]) == []
        asked = [Filter(kinds=(1,), authors=(reader.pubkey,))]
        async with mine.subscribe("s", asked, signer=reader) as inbox:
            event = await note("mine", signer=reader)
            assert (await mine.publish(event)).ok == (url,)
            assert await first(inbox) == event


async def test_auth_for_private_messages() -> None:
    sender, reader = KEYRING.signer(), KEYRING.signer()
    message = rumor(Draft(kinds.DM, "psst", int(CLOCK.now())), sender.pubkey)
    wrap = await sender.wrap(message, reader.pubkey)
    asked = [Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (reader.pubkey,)})]
    async with guarded(LocalRelayBuilder().auth_dm(True)) as url, relays(url, FAST) as mine:
        assert (await mine.publish(wrap)).ok
        assert await mine.fetch(asked) == []
        async with mine.subscribe("s", asked, stored_s=3 * 86_400, signer=reader) as inbox:
            assert await reader.unwrap(await first(inbox)) == message


@pytest.mark.interop
async def test_a_relay_that_restricts_private_messages_and_greets_with_a_challenge(
    core_url: str,
) -> None:
    sender, reader = KEYRING.signer(), KEYRING.signer()
    text = await sender.encrypt_legacy("psst", reader.pubkey)
    tags = (("p", reader.pubkey),)
    message = await sender.sign(Draft(kinds.DM_LEGACY, text, int(CLOCK.now()), tags))
    asked = [Filter(kinds=(kinds.DM_LEGACY,), tags={"p": (reader.pubkey,)})]
    async with relays(core_url) as mine:
        assert (await mine.publish(message)).ok == (core_url,)
        assert await mine.fetch(asked) == []
        async with mine.subscribe("s", asked, stored_s=600, signer=reader) as inbox:
            assert await first(inbox) == message
