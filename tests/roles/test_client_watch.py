"""What a client that follows prices takes for news, and what it passes over."""

from __future__ import annotations

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.client import watch
from nostrllm.client.watch import TICK_S, PriceWatch
from nostrllm.ports import Signer
from nostrllm.wire import kinds
from nostrllm.wire.announcement import Price
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.tick import LiveModel, tick_drafts
from tests.core.test_listings import MODELS, NOW, Stall

KEYRING = LocalKeyring(SystemClock())
NAME = "model-1"


async def tick(
    signer: Signer, output: int, *, seq: int = 1, at: int = NOW, wait_s: int = 0
) -> Event:
    live = LiveModel(id=NAME, price=Price(input=1, output=output), wait_s=wait_s)
    [draft] = tick_drafts([live], d="main", seq=seq, reasons=("congestion",), at=at)
    return await signer.sign(draft)


@pytest.fixture
def stall() -> Stall:
    return Stall(KEYRING.signer())


async def following(stall: Stall, provider: str | None = None) -> PriceWatch:
    """One that has read the list."""
    seen = PriceWatch(NAME, provider)
    root, pages = await stall.pages(MODELS[:2])
    events = [*pages, await stall.announcement(root)]
    found = [one for event in events for one in seen.heard(event, NOW)]
    if provider in (None, stall.signer.pubkey):
        assert [(one.price, one.price_event) for one in found] == [(MODELS[1].price, pages[0].id)]
        assert [one for event in events for one in seen.heard(event, NOW)] == []
    else:
        assert found == []
    return seen


async def test_ticks_are_news_once(stall: Stall) -> None:
    seen = await following(stall)
    [told] = seen.heard(await tick(stall.signer, 7, wait_s=3), NOW)
    assert (told.price.output, told.wait_s, told.reasons) == (7, 3, ("congestion",))
    assert told.price_event is None
    assert list(seen.heard(await tick(stall.signer, 7, wait_s=3, at=NOW + 1), NOW + 1)) == []
    assert len(list(seen.heard(await tick(stall.signer, 7, wait_s=4), NOW))) == 1


async def test_what_is_no_news(stall: Stall) -> None:
    seen, other = await following(stall), KEYRING.signer()
    for event, now in (
        (await tick(other, 1), NOW),  # he announces nothing
        (await tick(stall.signer, 1, seq=0), NOW),  # of an older list
        (await tick(stall.signer, 1, at=NOW - TICK_S - 1), NOW),
        (await tick(stall.signer, 1, at=NOW + TICK_S + 1), NOW),
        (await tick(stall.signer, 1, at=NOW + 700), NOW + 700),  # he is gone
        (await stall.signer.sign(Draft(kinds.TICK, "{}", NOW, (("t", "nostrllm"),))), NOW),
    ):
        assert list(seen.heard(event, now)) == []
    alone = await following(stall, other.pubkey)
    assert list(alone.heard(await tick(stall.signer, 1), NOW)) == []


async def test_a_new_list_and_an_old_one(stall: Stall) -> None:
    seen = await following(stall)
    dear = [MODELS[1].model_copy(update={"price": Price(input=9, output=9)})]
    root, pages = await stall.pages(dear, at=NOW + 5)
    events = [await stall.announcement(root, NOW + 5), *pages]
    [told] = [one for event in events for one in seen.heard(event, NOW + 6)]
    assert told.price == dear[0].price
    root, pages = await stall.pages(MODELS[:2])
    events = [*pages, await stall.announcement(root)]
    assert [one for event in events for one in seen.heard(event, NOW + 6)] == []


async def test_what_is_kept_is_bounded(stall: Stall) -> None:
    seen = await following(stall)
    for n in range(watch.EVENTS_MAX + 5):
        tags = (("d", f"other/{n}"), ("t", "nostrllm"))
        list(seen.heard(await stall.signer.sign(Draft(kinds.PRICE_LIST, "{}", NOW, tags)), NOW))
    assert len(seen._events[stall.signer.pubkey]) == watch.EVENTS_MAX
    draft = Draft(kinds.ANNOUNCEMENT, "", NOW, (("d", "x"),))
    for _ in range(watch.PROVIDERS_MAX):
        list(seen.heard(await KEYRING.signer().sign(draft), NOW))
    assert len(seen._events) == watch.PROVIDERS_MAX
    assert stall.signer.pubkey not in seen._events
    assert list(seen.heard(await tick(stall.signer, 7), NOW)) == []
