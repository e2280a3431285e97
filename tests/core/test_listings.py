"""Which events make an offer, and which are dropped without a word."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.core.listings import listings
from nostrllm.ports import Signer
from nostrllm.wire import kinds
from nostrllm.wire.announcement import (
    Announcement,
    ModelOffer,
    Price,
    Profile,
    announcement_draft,
    price_draft,
    price_pages,
)
from nostrllm.wire.event import Draft, Event

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
KEYRING = LocalKeyring(SystemClock())
MODELS = [
    ModelOffer(
        id=f"model-{n}",
        name="x" * 120,
        context=4_096,
        max_tokens=512,
        price=Price(input=n, output=2 * n),
    )
    for n in range(300)
]


@dataclass
class Stall:
    """A provider's events, as it would sign them."""

    signer: Signer
    name: str = "Stall"

    async def announcement(self, root: str, at: int = NOW, lives_s: int = 600) -> Event:
        announcement = Announcement(
            pubkey=self.signer.pubkey,
            d="main",
            created_at=at,
            expiration=at + lives_s,
            mints=("https://mint.example",),
            relays=("wss://relay.example",),
            payment_key="02" + "0" * 64,
            instance="i",
            price_seq=1,
            price_root=root,
            profile=Profile(name=self.name),
        )
        return await self.signer.sign(announcement_draft(announcement, nprofile="n", version="0"))

    async def pages(
        self, models: list[ModelOffer], at: int = NOW, valid_s: int = 600
    ) -> tuple[str, list[Event]]:
        pages = price_pages(models, seq=1, valid_until=at + valid_s)
        drafts = [price_draft(page, "main", at, at + 86_400) for page in pages]
        return pages[0].root, [await self.signer.sign(draft) for draft in drafts]


@pytest.fixture
def stall() -> Stall:
    return Stall(KEYRING.signer())


async def test_pages_and_announcement_make_offers(stall: Stall) -> None:
    root, pages = await stall.pages(MODELS)
    assert len(pages) > 1
    found = listings([*reversed(pages), await stall.announcement(root)], NOW + 1)
    assert [offer.model for offer in found[0].offers] == MODELS
    offer = found[0].offers[-1]
    assert offer.price_event_id == pages[-1].id
    assert (offer.provider, offer.name) == (stall.signer.pubkey, "Stall")
    assert offer.valid_until == NOW + 600
    assert set(offer.coins) == {("https://mint.example", unit) for unit in ("sat", "msat")}


async def test_a_list_that_is_not_the_announced_one_is_no_offer(stall: Stall) -> None:
    root, pages = await stall.pages(MODELS)
    announcement = await stall.announcement(root)
    other, others = await stall.pages(MODELS[:2])
    for events in (
        [announcement],
        [announcement, *pages[1:]],
        [announcement, *pages[:-1]],
        [announcement, *others],
        [await stall.announcement(other), *pages],
        [announcement, replace(pages[0], content="{}"), *pages[1:]],
    ):
        (one,) = listings(events, NOW + 1)
        assert one.offers == ()


async def test_the_newest_version_counts_and_of_one_second_the_lower_id(stall: Stall) -> None:
    old_root, old = await stall.pages(MODELS[:1])
    root, new = await stall.pages(MODELS[1:2], at=NOW + 5)
    events = [
        *new,
        *old,
        await stall.announcement(old_root),
        await stall.announcement(root, NOW + 5),
    ]
    for order in (events, events[::-1]):
        (one,) = listings(order, NOW + 6)
        assert [offer.model.id for offer in one.offers] == ["model-1"]
    same = [await stall.announcement(root, lives_s=lives_s) for lives_s in (60, 600)]
    for order in (same, same[::-1]):
        (one,) = listings([*new, *order], NOW + 6)
        assert one.announcement.expiration == int(
            min(same, key=lambda event: event.id).value("expiration") or 0
        )


async def test_time_decides(stall: Stall) -> None:
    root, pages = await stall.pages(MODELS[:1], valid_s=300)
    events = [*pages, await stall.announcement(root)]
    assert listings(events, NOW - 901) == []  # from the future
    assert listings(events, NOW - 900)[0].offers
    assert listings(events, NOW + 299)[0].offers
    assert listings(events, NOW + 300)[0].offers == ()  # the promise is over
    assert listings(events, NOW + 600) == []  # the heartbeat is


async def test_what_others_write_under_these_kinds_is_dropped(stall: Stall) -> None:
    root, pages = await stall.pages(MODELS[:1])
    events = [*pages, await stall.announcement(root)]
    other = KEYRING.signer()
    foreign = [
        await other.sign(Draft(kind, content, NOW, tags))
        for kind in (kinds.ANNOUNCEMENT, kinds.PRICE_LIST)
        for content in ("", "{}", "[1]", '{"name":"x"}')
        for tags in ((), (("d", "main"), ("t", "nostrllm")), (("d",), ("prices", "1")))
    ]
    found = listings([*foreign, *events], NOW + 1)
    assert [one.announcement.pubkey for one in found] == [stall.signer.pubkey]
    assert len(found[0].offers) == 1
