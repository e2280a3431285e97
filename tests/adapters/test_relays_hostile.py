"""The relays port against relays that lie, flood, forget, swallow and refuse."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.errors import WorldError
from nostrllm.ports import Filter, Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from tests.adapters.relay_scripted import CLOCK, FAST, KEYRING, Peer, ScriptedRelay, first, until

ASKED = [Filter(kinds=(1,))]


def relays(*urls: str, **changes: float) -> WebsocketRelays:
    return WebsocketRelays(urls, KEYRING, CLOCK, replace(FAST, **changes))  # type: ignore[arg-type]


async def note(text: str, kind: int = 1, signer: Signer | None = None) -> Event:
    return await (signer or KEYRING.signer()).sign(Draft(kind, text, int(CLOCK.now())))


def is_probe(filters: list[dict[str, Any]]) -> bool:
    return filters[0].get("kinds") == [kinds.PROBE]


# CLOSED, EOSE


class Closing(ScriptedRelay):
    """Ends the first subscriptions, before or after their EOSE."""

    def __init__(self, times: int, reason: str, *, eose: bool = False) -> None:
        super().__init__()
        self.times, self.reason, self.eose = times, reason, eose
        self.refused = 0

    async def on_req(self, peer: Peer, name: str, filters: list[dict[str, Any]]) -> None:
        if is_probe(filters) or self.refused >= self.times:
            await super().on_req(peer, name, filters)
            return
        self.refused += 1
        if self.eose:
            await peer.say("EOSE", name)
        await peer.say("CLOSED", name, self.reason)


@pytest.mark.parametrize("reason", ["error: x", "", "auth-required: no", "rate-limited: slow"])
@pytest.mark.parametrize("eose", [True, False])
async def test_closed_is_not_the_end(reason: str, eose: bool) -> None:
    async with Closing(3, reason, eose=eose) as relay, relays(relay.url) as mine:
        async with mine.subscribe("s", ASKED) as inbox:
            await until(lambda: len(relay.peers[0].requests) == 2)
            event = await note("x")
            await relay.broadcast(event)
            assert await first(inbox) == event
        assert mine.counts()["closed"] == 3
        assert relay.connections == 1


async def test_closed_ends_a_fetch_for_that_relay_only() -> None:
    event = await note("x")
    async with Closing(9, "error: x") as refusing, ScriptedRelay() as relay:
        relay.stored.append(event)
        async with relays(refusing.url, relay.url) as mine:
            assert await mine.fetch(ASKED, timeout_s=30) == [event]


async def test_closed_and_eose_for_unknown_subscriptions_are_ignored() -> None:
    async with ScriptedRelay() as relay, relays(relay.url) as mine:
        async with mine.subscribe("s", ASKED) as inbox:
            for verb in ("CLOSED", "EOSE"):
                await relay.peers[0].say(verb, "unknown")
            await relay.peers[0].say("EVENT", "unknown", (await note("x")).as_dict())
            event = await note("y")
            await relay.broadcast(event)
            assert await first(inbox) == event
        assert mine.counts()["late"] == 1


class Mute(ScriptedRelay):
    """Never says EOSE on its first connections."""

    def __init__(self, connections: int) -> None:
        super().__init__()
        self.mute_connections = connections

    async def on_req(self, peer: Peer, name: str, filters: list[dict[str, Any]]) -> None:
        if self.connections > self.mute_connections:
            await super().on_req(peer, name, filters)


async def test_a_subscription_without_eose_is_asked_again_then_the_relay_reconnected() -> None:
    async with (
        Mute(1) as relay,
        relays(relay.url, eose_timeout_s=0.05, settle_s=0.01) as mine,
        mine.subscribe("s", ASKED) as inbox,
    ):
        await until(
            lambda: relay.connections == 2 and relay.peers and len(relay.peers[-1].requests) == 2
        )
        asked = [frame for frame in relay.said("REQ") if not is_probe(frame[2:])]
        assert len(asked) == 3
        assert mine.counts()["unsettled"] == 1
        await relay.broadcast(event := await note("x"))
        assert await first(inbox) == event


async def test_a_fetch_without_eose_gives_what_came() -> None:
    event = await note("x")

    class Unending(ScriptedRelay):
        async def on_req(self, peer: Peer, name: str, filters: list[dict[str, Any]]) -> None:
            await peer.say("EVENT", name, event.as_dict())

    async with Unending() as relay, relays(relay.url) as mine:
        assert await mine.fetch(ASKED, timeout_s=0.2) == [event]
        assert mine.counts()["fetch-timeout"] == 1
        await until(lambda: relay.said("CLOSE"))


# what comes in


async def test_garbage_is_counted_and_survived() -> None:
    async with ScriptedRelay() as relay, relays(relay.url) as mine:
        async with mine.subscribe("s", ASKED) as inbox:
            (peer,) = relay.peers
            (name,) = (n for n, m in peer.requests.items() if m.kinds == frozenset({1}))
            for text in ("", "{", "[]", '["EVENT"]', json.dumps(["EVENT", name, {"id": 1}])):
                await peer.say(text)
            await peer.socket.send(b"\x00")
            await peer.say("NOTICE", "nsec1 would be logged here")
            event = await note("x")
            forged = event.as_dict() | {"content": "y"}
            await peer.say("EVENT", name, forged)
            await peer.say("EVENT", name, (await note("z", kind=2)).as_dict())
            await peer.say("EVENT", name, event.as_dict())
            assert await first(inbox) == event
        counts = mine.counts()
        assert (counts["garbage"], counts["notice"]) == (6, 1)
        assert (counts["forged"], counts["unsolicited"], counts["new"]) == (1, 1, 1)
        assert mine.status()[0].reconnects == 0


class Flooding(ScriptedRelay):
    """Sends rubbish as fast as it is read, at first."""

    async def on_open(self, peer: Peer) -> None:
        while self.connections <= 2:
            await peer.say('["NOTICE","x"]')
            await asyncio.sleep(0)  # sending alone never yields: client and relay share a loop


async def test_a_flood_of_garbage_ends_the_connection_and_no_other() -> None:
    async with (
        Flooding() as relay,
        ScriptedRelay() as honest,
        relays(relay.url, honest.url, strikes_max=50) as mine,
    ):
        await until(lambda: relay.connections == 3)
        assert (await mine.publish(await note("x"))).failed == {}
        assert 100 < mine.counts()["notice"] < 500
        assert [status.reconnects for status in mine.status()] == [2, 0]


async def test_strikes_are_forgotten_after_a_while() -> None:
    async with (
        ScriptedRelay() as relay,
        relays(relay.url, strikes_max=5, strike_window_s=0.02, watch_s=0.005) as mine,
    ):
        await until(lambda: relay.peers)
        for number in range(1, 12):
            await relay.peers[0].say("NOTICE", "x")
            await until(lambda number=number: mine.counts().get("notice") == number)  # type: ignore[misc]
            await asyncio.sleep(0.01)
        assert mine.status()[0].reconnects == 0


async def test_a_message_over_the_limit_ends_the_connection_but_not_the_subscription() -> None:
    poison = await note("x" * 100_000)
    async with (
        ScriptedRelay() as relay,
        relays(relay.url, message_bytes_max=50_000) as mine,
    ):
        relay.stored.append(poison)
        async with mine.subscribe("s", ASKED, stored_s=60) as inbox:
            await until(lambda: relay.connections == 2 and len(relay.said("REQ")) >= 3)
            assert any(f.get("limit") == 0 for frame in relay.said("REQ") for f in frame[2:])
            relay.stored.clear()
            await until(lambda: relay.peers and len(relay.peers[-1].requests) == 2)
            await until(lambda: mine.status()[0].connected)
            await relay.broadcast(event := await note("small"))
            assert await first(inbox) == event


async def test_an_event_over_the_limit_is_dropped() -> None:
    async with ScriptedRelay() as relay, relays(relay.url, event_bytes_max=2_000) as mine:
        async with mine.subscribe("s", ASKED) as inbox:
            await relay.broadcast(await note("x" * 3_000))
            await relay.broadcast(event := await note("small"))
            assert await first(inbox) == event
        assert mine.counts()["dropped"] == 1


# OK


class Answering(ScriptedRelay):
    """Answers each event as its content says."""

    async def on_event(self, peer: Peer, event: Event) -> None:
        match event.content:
            case "silent":
                return
            case "other":
                await peer.say("OK", "0" * 64, True, "")
            case "twice":
                await peer.say("OK", event.id, False, "blocked: no")
                await peer.say("OK", event.id, True, "")
            case "hangup":
                await peer.socket.close()
            case text:
                flag, _, reason = text.partition(" ")
                await peer.say("OK", event.id, flag == "yes", reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("yes", ""),
        ("yes blocked: but it says true", ""),
        ("no duplicate: have it", ""),
        ("no blocked: you", "blocked: you"),
        ("no auth-required: who are you", "auth-required: who are you"),
        ("no", "refused without a reason"),
        ("silent", "no answer"),
        ("other", "no answer"),
        ("twice", "blocked: no"),
        ("hangup", "the connection was lost"),
    ],
)
async def test_what_a_relay_answers(content: str, reason: str) -> None:
    async with Answering() as relay, relays(relay.url, backoff_s=0.001) as mine:
        timeout_s = 0.1 if reason == "no answer" else 5.0
        published = await mine.publish(await note(content), timeout_s=timeout_s)
        assert published.failed.get(relay.url, "") == reason
        assert published.ok == (() if reason else (relay.url,))


async def test_an_ephemeral_event_needs_no_answer() -> None:
    async with Answering() as relay, relays(relay.url) as mine:
        event = await note("silent", kind=20_001)
        assert (await mine.publish(event, timeout_s=0.1)).ok == (relay.url,)
        await mine.cast(await note("other", kind=20_001))
        await until(lambda: len(relay.said("EVENT")) == 2)


async def test_two_publications_of_one_event_share_the_answer() -> None:
    async with Answering() as relay, relays(relay.url) as mine:
        event = await note("no blocked: x")
        both = await asyncio.gather(mine.publish(event), mine.publish(event))
        assert [p.failed for p in both] == [{relay.url: "blocked: x"}] * 2


async def test_a_relay_that_finds_our_message_too_big_is_no_poison() -> None:
    class Small(ScriptedRelay):
        async def on_event(self, peer: Peer, event: Event) -> None:
            await peer.socket.close(1009, "too big")

    async with (
        Small() as relay,
        relays(relay.url) as mine,
        mine.subscribe("s", ASKED, stored_s=60),
    ):
        published = await mine.publish(await note("x"))
        assert published.failed == {relay.url: "the connection was lost"}
        await until(lambda: relay.connections == 3 and len(relay.said("REQ")) == 6)
        assert len(relay.said("EVENT")) == 2
        assert not any("limit" in f for frame in relay.said("REQ") for f in frame[2:])


async def test_an_error_of_our_own_ends_the_session_and_not_the_connection() -> None:
    class Failing(LocalKeyring):
        """Its verification fails as no verification should, once."""

        failed = False

        def verify(self, event: Event) -> bool:
            if not self.failed:
                self.failed = True
                raise ZeroDivisionError
            return super().verify(event)

    async with (
        ScriptedRelay() as relay,
        WebsocketRelays([relay.url], Failing(CLOCK), CLOCK, FAST) as mine,
        mine.subscribe("s", ASKED, stored_s=60) as inbox,
    ):
        relay.stored.append(event := await note("x"))
        await relay.broadcast(event)
        assert await first(inbox) == event
        assert mine.status()[0].reconnects == 1


# probe


class Deaf(ScriptedRelay):
    """Takes everything and brings nothing, on its first connections."""

    def __init__(self, connections: int) -> None:
        super().__init__()
        self.deaf_connections = connections

    async def on_event(self, peer: Peer, event: Event) -> None:
        if self.connections <= self.deaf_connections:
            await peer.say("OK", event.id, True, "")
        else:
            await super().on_event(peer, event)


PROBING = {"probe_s": 0.03, "probe_timeout_s": 0.05}


async def test_a_relay_that_swallows_is_reconnected_after_the_second_time() -> None:
    async with Deaf(1) as relay, relays(relay.url, **PROBING) as mine:
        await until(lambda: relay.connections == 2)
        assert len(relay.said("EVENT")) == 2
        assert mine.counts()["probe-swallowed"] == 2
        await until(lambda: mine.counts().get("probe", 0) > 3)
        assert relay.connections == 2
        assert mine.status()[0].subscriptions == 0  # the probe's own does not count
        kinds_said = {frame[1]["kind"] for frame in relay.said("EVENT")}
        assert kinds_said == {kinds.PROBE}
        assert len({frame[1]["pubkey"] for frame in relay.said("EVENT")}) == 2


async def test_a_relay_that_never_brings_a_probe_is_not_reconnected_ever_faster() -> None:
    async with Deaf(99) as relay, relays(relay.url, **PROBING) as mine:
        await until(lambda: mine.counts().get("probe-swallowed", 0) >= 6)
        # intervals of 0.03, 0.06, 0.12 s, twice each, less a quarter at most
        assert relay.connections in (3, 4)
        assert len(relay.said("EVENT")) <= 7


@pytest.mark.parametrize("answer", ["no blocked: kind", "closed"])
async def test_a_relay_that_refuses_probes_is_left_alone(answer: str) -> None:
    class Refusing(ScriptedRelay):
        async def on_event(self, peer: Peer, event: Event) -> None:
            await peer.say("OK", event.id, False, answer)

        async def on_req(self, peer: Peer, name: str, filters: list[dict[str, Any]]) -> None:
            if answer == "closed":
                await peer.say("CLOSED", name, "blocked: kind")
            else:
                await super().on_req(peer, name, filters)

    async with Refusing() as relay, relays(relay.url, **PROBING) as mine:
        await until(lambda: relay.said("EVENT") or mine.counts().get("closed", 0) > 6)
        await asyncio.sleep(0.2)
        assert relay.connections == 1
        assert len(relay.said("EVENT")) == (answer != "closed")
        assert mine.counts().get("probe-refused", 0) == (answer != "closed")


async def test_somebody_elses_probe_is_not_taken_for_ours() -> None:
    class Mixing(Deaf):
        async def on_event(self, peer: Peer, event: Event) -> None:
            await super().on_event(peer, event)
            for name in peer.requests:
                await peer.say("EVENT", name, (await note("", kind=kinds.PROBE)).as_dict())

    async with Mixing(1) as relay, relays(relay.url, **PROBING) as mine:
        await until(lambda: relay.connections == 2)
        assert mine.counts()["probe-swallowed"] == 2


# AUTH


class Guarded(ScriptedRelay):
    """Shows and takes nothing before AUTH."""

    def __init__(self, *, greet: bool = True, prefix: str = "auth-required") -> None:
        super().__init__()
        self.greet, self.prefix = greet, prefix
        self.known: dict[Peer, str] = {}
        self.challenges = 0

    async def challenge(self, peer: Peer) -> None:
        self.challenges += 1
        await peer.say("AUTH", f"challenge {self.challenges}")

    async def on_open(self, peer: Peer) -> None:
        if self.greet:
            await self.challenge(peer)

    async def on_req(self, peer: Peer, name: str, filters: list[dict[str, Any]]) -> None:
        if peer in self.known:
            await super().on_req(peer, name, filters)
            return
        if not self.greet:
            await self.challenge(peer)
        await peer.say("CLOSED", name, f"{self.prefix}: who are you?")

    async def on_event(self, peer: Peer, event: Event) -> None:
        if peer in self.known:
            await super().on_event(peer, event)
        else:
            await peer.say("OK", event.id, False, f"{self.prefix}: who are you?")

    async def on_auth(self, peer: Peer, event: Event) -> None:
        assert event.kind == kinds.RELAY_AUTH
        assert KEYRING.verify(event)
        assert event.value("relay") == self.url
        assert str(event.value("challenge")).startswith("challenge ")
        self.known[peer] = event.pubkey
        await super().on_auth(peer, event)


@pytest.mark.parametrize("greet", [True, False])
@pytest.mark.parametrize("prefix", ["auth-required", "restricted"])
async def test_a_subscription_with_a_key_authenticates_and_asks_again(
    greet: bool, prefix: str
) -> None:
    reader = KEYRING.signer()
    event = await note("x")
    async with Guarded(greet=greet, prefix=prefix) as relay, relays(relay.url) as mine:
        relay.stored.append(event)
        async with mine.subscribe("s", ASKED, signer=reader) as inbox:
            assert await first(inbox) == event
            assert set(relay.known.values()) == {reader.pubkey}
            assert relay.connections == 2
            another = await note("y", signer=reader)
            assert (await mine.publish(another)).ok == (relay.url,)
            assert await first(inbox) == another
            assert set(relay.known.values()) == {reader.pubkey}
            assert mine.status()[0].subscriptions == 1
        await until(lambda: len(relay.peers) == 1)  # the key's own connection is gone
        assert await mine.fetch(ASKED) == []


class Guestbook(Guarded):
    """Notes whose event came through whose connection."""

    def __init__(self) -> None:
        super().__init__()
        self.took: dict[str, str] = {}

    async def on_event(self, peer: Peer, event: Event) -> None:
        if peer in self.known:
            self.took[event.id] = self.known[peer]
        await super().on_event(peer, event)


async def test_an_event_goes_through_no_connection_of_another_key() -> None:
    reader = KEYRING.signer()
    async with (
        Guestbook() as relay,
        relays(relay.url) as mine,
        mine.subscribe("s", ASKED, signer=reader),
    ):
        own = await note("x", signer=reader)
        others = [await note("y"), await note("z")]
        for event in (own, *others):
            assert (await mine.publish(event)).ok == (relay.url,)
        assert relay.took[own.id] == reader.pubkey
        (nobody,) = {relay.took[event.id] for event in others}
        assert nobody not in (reader.pubkey, *(event.pubkey for event in others))


async def test_every_key_has_a_connection_of_its_own() -> None:
    readers = [KEYRING.signer() for _ in range(3)]
    async with (
        Guarded() as relay,
        relays(relay.url) as mine,
        mine.subscribe("a", ASKED, signer=readers[0]),
        mine.subscribe("b", ASKED, signer=readers[1]),
        mine.subscribe("c", ASKED, signer=readers[2]),
        mine.subscribe("c2", [Filter(kinds=(2,))], signer=readers[2]),
    ):
        await until(lambda: len(relay.known) == 3)
        assert relay.connections == 4
        assert set(relay.known.values()) == {reader.pubkey for reader in readers}
        assert mine.status()[0].subscriptions == 4
        event = await note("x", signer=readers[1])
        assert (await mine.publish(event)).ok
        (author,) = (
            relay.known[p]
            for p in relay.peers
            if p.requests and p in relay.known and relay.known[p] == event.pubkey
        )
        assert author == readers[1].pubkey


async def test_challenges_without_end_are_not_answered_without_end() -> None:
    class Nagging(ScriptedRelay):
        async def on_auth(self, peer: Peer, event: Event) -> None:
            await peer.say("OK", event.id, False, "error: try again")
            await peer.say("AUTH", "again")

        async def on_open(self, peer: Peer) -> None:
            await peer.say("AUTH", "first")

    async with (
        Nagging() as relay,
        relays(relay.url, challenges_max=3) as mine,
        mine.subscribe("s", ASKED, signer=KEYRING.signer()),
    ):
        await until(lambda: mine.counts().get("challenge"))
        assert len(relay.said("AUTH")) == 3
        assert mine.status()[0].error == "AUTH was refused"


async def test_a_key_that_cannot_sign_or_a_relay_that_ignores_auth_breaks_nothing() -> None:
    class Broken:
        """A signer whose bunker is away."""

        pubkey = "f" * 64

        async def sign(self, draft: Draft) -> Event:
            raise WorldError("the signer is away")

    class Ignoring(Guarded):
        async def on_auth(self, peer: Peer, event: Event) -> None:
            return

    async with Ignoring() as relay, relays(relay.url, auth_timeout_s=0.05, settle_s=0.01) as mine:
        for signer in (Broken(), KEYRING.signer()):
            async with mine.subscribe("s", ASKED, signer=signer):  # type: ignore[arg-type]
                await until(lambda: mine.status()[0].error == "AUTH got no answer")
                refused = await mine.publish(await note("x"), timeout_s=0.1)
                assert refused.failed[relay.url].startswith("auth-required:")


async def test_a_thousand_subscribers_do_not_come_back_together() -> None:
    """Waits of one round differ, so that a relay's restart is not followed by a stampede."""
    async with ScriptedRelay() as gone:
        url = gone.url
    async with relays(*(f"{url}/{n}" for n in range(50)), backoff_s=1.0, backoff_s_max=1.0) as mine:
        await until(lambda: all(status.error for status in mine.status()))
        begin = CLOCK.monotonic()
        times: dict[str, float] = {}

        def all_tried() -> bool:
            for status in mine.status():
                if status.reconnects and status.url not in times:
                    times[status.url] = CLOCK.monotonic() - begin
            return len(times) == 50

        await until(all_tried)
    assert max(times.values()) - min(times.values()) > 0.2
