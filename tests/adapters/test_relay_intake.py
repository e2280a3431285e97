from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.adapters.relay_intake import Basket, Fate, Inbox, Intake, Seen
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.ports import Filter
from nostrllm.wire.event import Draft, Event
from tests.adapters.relay_scripted import CLOCK, KEYRING

LIMITS = RelayLimits()


class CountingKeyring(LocalKeyring):
    """The real keyring, which also counts how often the curve is touched."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.verified = 0

    def verify(self, event: Event) -> bool:
        self.verified += 1
        return super().verify(event)


async def note(text: str, kind: int = 1) -> Event:
    return await KEYRING.signer().sign(Draft(kind, text, 1_000))


def inbox(*filters: Filter, limits: RelayLimits = LIMITS) -> Inbox:
    return Inbox("test", filters or (Filter(kinds=(1,)),), limits)


async def test_one_verification_serves_every_relay_and_subscription() -> None:
    keyring = CountingKeyring()
    intake = Intake(keyring, LIMITS)
    event = await note("x")
    first, second, fetched = inbox(), inbox(Filter()), Basket([Filter()], LIMITS)
    assert intake.take(event.as_dict(), 300, first) is Fate.NEW
    assert intake.take(event.as_dict(), 300, first) is Fate.DUPLICATE
    assert intake.take(event.as_dict(), 300, second) is Fate.NEW
    assert intake.take(event.as_dict(), 300, fetched) is Fate.NEW
    assert keyring.verified == 1
    assert await anext(first) == await anext(second) == fetched.newest_first()[0] == event


async def test_a_forgery_under_a_true_id_poisons_nothing() -> None:
    intake = Intake(KEYRING, LIMITS)
    event, other = await note("true"), inbox(Filter())
    mine = inbox()
    forgeries = [
        event.as_dict() | {"content": "false"},
        event.as_dict() | {"sig": "0" * 128},
        event.as_dict() | {"pubkey": "0" * 64},
    ]
    for forged in forgeries:
        assert intake.take(forged, 300, mine) is Fate.FORGED
    assert intake.take(event.as_dict(), 300, mine) is Fate.NEW
    for forged in forgeries:  # the id is known by now: what is delivered is what was verified
        assert intake.take(forged, 300, mine) is Fate.DUPLICATE
    assert intake.take(forgeries[0], 300, other) is Fate.NEW
    assert (await anext(mine)).content == (await anext(other)).content == "true"


async def test_nothing_unwanted_reaches_the_curve() -> None:
    keyring = CountingKeyring()
    intake = Intake(keyring, LIMITS)
    mine = inbox(Filter(kinds=(1,), tags={"p": ("me",)}))
    event = (await note("x")).as_dict()
    assert intake.take(event, 300, mine) is Fate.UNSOLICITED
    assert intake.take(event | {"kind": 2}, 300, mine) is Fate.UNSOLICITED
    assert intake.take(event | {"tags": [["p", "me"]]}, 1 << 20, mine) is Fate.DROPPED
    wrongs: list[dict[str, Any]] = [
        {"id": []},
        {"kind": []},
        {"kind": "1"},
        {"tags": 1},
        {"sig": ""},
        {"id": "x"},
    ]
    for broken in wrongs:
        assert intake.take(event | broken, 300, mine) is Fate.GARBAGE
    assert intake.take({}, 300, mine) is Fate.GARBAGE
    assert keyring.verified == 0


async def test_a_known_event_goes_only_where_it_was_asked_for() -> None:
    intake = Intake(KEYRING, LIMITS)
    event = await note("x")
    assert intake.take(event.as_dict(), 300, inbox()) is Fate.NEW
    stranger = inbox(Filter(kinds=(1,), authors=("someone",)))
    assert intake.take(event.as_dict(), 300, stranger) is Fate.UNSOLICITED


async def test_a_full_queue_drops_and_takes_the_event_when_it_comes_again() -> None:
    intake = Intake(KEYRING, LIMITS)
    mine = inbox(limits=replace(LIMITS, queue_max=2))
    events = [await note(str(n)) for n in range(3)]
    fates = [intake.take(event.as_dict(), 300, mine) for event in events]
    assert fates == [Fate.NEW, Fate.NEW, Fate.DROPPED]
    await anext(mine)
    assert intake.take(events[2].as_dict(), 300, mine) is Fate.NEW


async def test_a_queue_is_bounded_in_bytes_too() -> None:
    intake = Intake(KEYRING, LIMITS)
    mine = inbox(limits=replace(LIMITS, queue_bytes_max=1_000))
    first, second = await note("1"), await note("2")
    assert intake.take(first.as_dict(), 600, mine) is Fate.NEW
    assert intake.take(second.as_dict(), 600, mine) is Fate.DROPPED
    await anext(mine)
    assert intake.take(second.as_dict(), 600, mine) is Fate.NEW
    basket = Basket([Filter()], replace(LIMITS, fetch_bytes_max=1_000, fetch_events_max=1))
    assert basket.full(2_000)
    assert intake.take(first.as_dict(), 600, basket) is Fate.NEW
    assert intake.take(second.as_dict(), 1, basket) is Fate.DROPPED


@pytest.mark.parametrize("limits", [{"verified_max": 2}, {"verified_bytes_max": 700}])
async def test_the_memory_of_verified_events_is_bounded(limits: dict[str, int]) -> None:
    keyring = CountingKeyring()
    intake = Intake(keyring, replace(LIMITS, **limits))
    events = [await note(str(n)) for n in range(3)]
    first = inbox()
    for event in events:
        intake.take(event.as_dict(), 300, first)
    second = inbox()
    assert intake.take(events[0].as_dict(), 300, second) is Fate.NEW
    assert keyring.verified == 4
    assert intake.take(events[2].as_dict(), 300, second) is Fate.NEW
    assert keyring.verified == 4


def test_the_id_seen_longest_ago_is_forgotten() -> None:
    seen = Seen(2)
    for number in "ab":
        seen.add(number)
    assert seen.has("a")
    seen.add("c")
    assert [seen.has(number) for number in "abc"] == [True, False, True]


async def test_closing_ends_the_iteration() -> None:
    mine = inbox()
    mine.put(await note("x"), 1)
    mine.close()
    assert [event async for event in mine] == []


async def test_several_readers_share_a_queue() -> None:
    mine = inbox()
    readers = [asyncio.ensure_future(anext(mine)) for _ in range(2)]
    await asyncio.sleep(0)
    for text in "ab":
        mine.put(await note(text), 1)
    assert {(await reader).content for reader in readers} == {"a", "b"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["id", "pubkey", "created_at", "kind", "tags", "content", "sig"])


@given(st.dictionaries(fields, values))
async def test_whatever_comes_has_a_fate(raw: dict[str, Any]) -> None:
    assert Intake(KEYRING, LIMITS).take(raw, 10, inbox(Filter())) in set(Fate)
