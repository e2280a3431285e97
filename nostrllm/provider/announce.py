"""The provider as the relays see him: announcement, price list, profile and relay lists.

Every list that was signed is kept for seven days and prices come from that copy: a client pins a
list by its event id, so what he saw is what he pays.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from nostrllm.core.pays import Coin, coins_taken
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter, Write
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.rates import RateDesk
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.tariff import Tariff
from nostrllm.wire import kinds
from nostrllm.wire.announcement import (
    PROMISE_S_MAX,
    Announcement,
    ModelOffer,
    PricePage,
    Profile,
    announcement_draft,
    parse_announcement,
    parse_price_page,
    price_draft,
    price_pages,
    price_root,
)
from nostrllm.wire.event import Draft, Event, parse_event

#: A pinned list is honoured for so long after its promise, for clocks and relays that lag.
GRACE_S: Final = 60
KEEP_S: Final = 7 * 86_400

#: A list is signed anew this long before its promise runs out.
RENEW_S: Final = 300

#: Profile and relay lists are published again after so long; relays forget.
INTRODUCE_S: Final = 86_400

#: How long the relays are asked at the start what we have said before.
LOOK_S: Final = 5.0

#: What relays keep one of: per kind, and from ADDRESSABLE on per kind and `d` tag (NIP-01).
ADDRESSABLE: Final = 30_000
REPLACED: Final = (
    kinds.PROFILE,
    kinds.RELAY_LIST,
    kinds.DM_RELAYS,
    kinds.HANDLER,
    kinds.ANNOUNCEMENT,
    kinds.PRICE_LIST,
)

#: An announcement that no relay took is tried again so soon.
RETRY_S: Final = 15.0

log = structlog.get_logger()


class Announcer:
    """Signs and publishes what the shop sells, and knows every price it has promised."""

    def __init__(self, world: World, shop: Shop, *, payment_key: PaymentKey, nprofile: str) -> None:
        self._world = world
        self._shop = shop
        self._payment_key = payment_key
        self._nprofile = nprofile
        self._pages: dict[str, PricePage] = {}
        self._current: dict[str, str] = {}  # model id → price page event id
        self.sells: Callable[[str], bool] = lambda _model_id: True
        self.instance = ""
        self.rates = RateDesk(world, shop, lambda: self.tariff.limiter.use(self._world.now_s()))
        self.tariff = Tariff(world, shop, self.rates.asked)
        self._listed: list[ModelOffer] = []
        self._publishing = asyncio.Lock()
        self._seq = 0
        self._last_announced = 0
        self._is_announced = False
        self.usurped = False
        self.work: Callable[[], int] = lambda: 0

    async def open(self) -> None:
        """Read back the lists promised before, and this store's instance name."""
        store = self._world.store
        rows = await store.read("meta_get", name="instance")
        self.instance = str(rows[0]["value"]) if rows else secrets.token_hex(8)
        if not rows:
            await store.commit(Write("meta_set", {"name": "instance", "value": self.instance}))
        self._last_announced = await self._last_time(f"{kinds.ANNOUNCEMENT}")
        await self.tariff.open()
        for row in await store.read("price_pages_all"):
            event = parse_event(json.loads(row["content"]))
            self._pages[event.id] = parse_price_page(event)
            self._seq = max(self._seq, self._pages[event.id].seq)

    async def is_behind(self) -> bool:
        """Do the relays have an announcement of this very store that it does not know of?

        Whatever else they have of ours, what is published next comes after it: of two events at one
        address a relay keeps the newer, and refuses the other.
        """
        author = (self._world.identity.pubkey,)
        said = Filter(kinds=REPLACED, authors=author)
        events = await self._world.relays.fetch([said], timeout_s=LOOK_S)
        unknown = [event.created_at for event in events if self._unknown(event)]
        for event in events:
            await self._come_after(self._address(event), event.created_at)
        if unknown:
            self._last_announced = max(unknown) + 1
            await self._come_after(f"{kinds.ANNOUNCEMENT}", self._last_announced)
        return bool(unknown)

    def _address(self, event: Event) -> str:
        """What the time of this event is stored under, if we are to replace it; else ''."""
        name = next((tag[1] for tag in event.tags if tag[0] == "d" and len(tag) > 1), "")
        if event.kind == kinds.PRICE_LIST:
            shop, _, page = name.rpartition("/")
            return f"{event.kind}:{page}" if shop == self._shop.d else ""
        ours = event.kind < ADDRESSABLE or name == self._shop.d
        return f"{event.kind}" if ours else ""

    async def _come_after(self, address: str, at: int) -> None:
        if address and at > await self._last_time(address):
            write = Write("meta_set", {"name": f"at:{address}", "value": str(at)})
            await self._world.store.commit(write)

    def _unknown(self, event: Event) -> bool:
        """The time of each announcement is stored before it is sent: an unknown one of our own
        instance comes from a store that was copied."""
        try:
            other = parse_announcement(event)
        except RemoteError:
            return False
        mine = other.d == self._shop.d and other.instance == self.instance
        return mine and other.created_at > self._last_announced

    async def rename(self) -> None:
        """Be another instance from now on than the store we were copied from.

        Its name is kept: coins may be locked to the key that hangs on it.
        """
        former = (*await self.former(), self.instance)
        self.instance = secrets.token_hex(8)
        await self._world.store.commit(
            Write("meta_set", {"name": "instance", "value": self.instance}),
            Write("meta_set", {"name": "former", "value": json.dumps(former)}),
        )
        self._payment_key.open(self.instance, former)

    async def former(self) -> tuple[str, ...]:
        """What this store was called before it was a restored copy."""
        rows = await self._world.store.read("meta_get", name="former")
        return tuple(json.loads(rows[0]["value"])) if rows else ()

    @property
    def _own(self) -> Filter:
        return Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(self._world.identity.pubkey,))

    def _binding(self, price_id: str) -> PricePage:
        page = self._pages.get(price_id)
        if page is None or self._world.now_s() > page.valid_until + GRACE_S:
            raise RemoteError(
                "this price list no longer binds; read the newest", code="price-expired"
            )
        return page

    def taken(self, price_id: str, mint: str, unit: str) -> Coin:
        """What the pinned list promised of such coins.

        Raises RemoteError: `price-expired`, `payment-mint-unaccepted`, `payment-rate-unknown` for
        coins whose worth was not known when the list was signed.
        """
        page = self._binding(price_id)
        self._shop.check_taken(mint, unit)
        coin = coins_taken(page.pays, self._shop.mints).get((mint, unit))
        if coin is None:
            raise RemoteError(
                f"what coins of unit {unit[:16]!r} are worth is not known at the moment; pay with "
                "sats, or try again soon",
                code="payment-rate-unknown",
            )
        return coin

    def promised(self, price_id: str, model_id: str) -> ModelOffer:
        """The model as the pinned list priced it.

        Raises RemoteError: `price-expired` for a list that is unknown or no longer binding,
        `model-unknown`.
        """
        known = next((m.offer.id for m in self._shop.models if model_id in m.aliases), model_id)
        for offer in self._binding(price_id).models:
            if offer.id == known:
                return offer
        raise RemoteError(f"no model {model_id[:64]!r} in this price list", code="model-unknown")

    def current(self, model_id: str) -> tuple[ModelOffer, str]:
        """A model's price now, and the list that says so.

        Raises RemoteError `model-unknown`, or `model-unavailable` where it is not listed: no
        back-end has it, or its price is not known.
        """
        known = self._shop.model(model_id).offer.id
        price_id = self._current.get(known)
        if price_id is None:
            raise RemoteError(
                "this model cannot be had at the moment; take another one, or try again soon",
                code="model-unavailable",
            )
        return self.promised(price_id, known), price_id

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """Everything that can be had now, at its price of now."""
        return tuple(self.promised(page, id) for id, page in self._current.items())

    @property
    def seq(self) -> int:
        """The number of the newest price list."""
        return self._seq

    # publishing

    async def introduce(self) -> None:
        """Profile, relay lists and handler: what other clients need to find and write to us."""
        relays = self._shop.relays
        profile = {"name": self._shop.name, "about": self._shop.about, "bot": True}
        tags_10002 = tuple(("r", url) for url in relays)
        tags_10050 = tuple(("relay", url) for url in relays)
        handler = (("d", self._shop.d), ("k", str(kinds.MESSAGE)), ("k", str(kinds.DM)))
        events = []
        for kind, content, tags in (
            (kinds.PROFILE, json.dumps(profile, ensure_ascii=False), ()),
            (kinds.RELAY_LIST, "", tags_10002),
            (kinds.DM_RELAYS, "", tags_10050),
            (kinds.HANDLER, json.dumps(profile, ensure_ascii=False), handler),
        ):
            at = await self._next_time(f"{kind}")
            events.append(await self._world.identity.sign(Draft(kind, content, at, tags)))
        await self._publish(*events)

    async def promise(self) -> list[Event]:
        """Sign a fresh price list and keep it; it binds from now on, published or not."""
        self._seq += 1
        valid_until = self._world.now_s() + PROMISE_S_MAX
        events, pays = [], self.rates.pays()
        self._listed = [offer for offer in self.tariff.offers() if self.sells(offer.id)]
        pages = price_pages(
            self._listed,
            seq=self._seq,
            valid_until=valid_until,
            pays=pays,
            reasons=self.tariff.said,
        )
        current: dict[str, str] = {}
        for page in pages:
            at = await self._next_time(f"{kinds.PRICE_LIST}:{page.page}")
            draft = price_draft(page, self._shop.d, at, valid_until + GRACE_S)
            events.append(await self._world.identity.sign(draft))
            await self._keep(events[-1], page)
            current.update((model.id, events[-1].id) for model in page.models)
        self._current = current
        return events

    async def publish(self) -> bool:
        """A fresh price list, then the announcement that names it. True if a relay took both:
        who finds an older list than the one announced cannot order."""
        async with self._publishing:  # lists are numbered, and the announcement names the last
            listed = await self._publish(*await self.promise())
            self._is_announced = await self._announce(closing=False) and listed
            return self._is_announced

    async def follow_rates(self) -> None:
        """Publish a fresh list when a rate has moved, for ever."""
        await self.rates.run(self._publish_moved)

    async def _publish_moved(self) -> None:
        self.tariff.follow_rate(counted=True)  # one change for coins and for prices
        await self.tariff.save(self.tariff.learned)  # that one of the hour's changes is used
        await self.publish_unless_usurped()

    async def publish_unless_usurped(self) -> None:
        """As `publish`, unless another daemon sells under our key."""
        if not self.usurped:
            await self.publish()

    async def close(self) -> None:
        """Say that no more orders are taken; another daemon's announcement is left alone."""
        if not self.usurped:
            await self._announce(closing=True)

    async def run(self) -> None:
        """Publish again before the heartbeat or the price promise runs out, for ever."""
        pause = min(self._shop.heartbeat_s, PROMISE_S_MAX - RENEW_S) * 0.9
        introduced_at = self._world.clock.monotonic()
        while True:
            await self._world.clock.sleep(pause if self._is_announced else RETRY_S)
            if self.usurped:
                continue
            await self.publish()
            if self._world.clock.monotonic() - introduced_at > INTRODUCE_S:
                introduced_at = self._world.clock.monotonic()
                await self.introduce()

    async def watch(self) -> None:
        """Notice another daemon that sells under our key, and stop selling when it is newer."""
        async with self._world.relays.subscribe(
            "own-announcement", [self._own], stored_s=86_400
        ) as news:
            async for event in news:
                self._compare(event)

    def _compare(self, event: Event) -> None:
        try:
            other = parse_announcement(event)
        except RemoteError:
            return
        if other.d == self._shop.d and other.instance != self.instance and not other.closing:
            newer = other.created_at >= self._last_announced
        else:  # a copy of our store runs somewhere, and has not noticed yet that it is one
            newer = self._unknown(event)
        if newer and not self.usurped:
            log.error("key_used_elsewhere", instance=other.instance)
            self.usurped = True

    async def _announce(self, *, closing: bool) -> bool:
        at = await self._next_time(f"{kinds.ANNOUNCEMENT}")
        announcement = Announcement(
            pubkey=self._world.identity.pubkey,
            d=self._shop.d,
            created_at=at,
            expiration=at + (60 if closing else self._shop.heartbeat_s * 2),
            mints=self._shop.mints,
            relays=self._shop.relays,
            payment_key=self._payment_key.public,
            instance=self.instance,
            closing=closing,
            work=self.work(),
            price_seq=self._seq,
            price_root=price_root(self._listed),
            profile=Profile(
                name=self._shop.name,
                about=self._shop.about,
                limits=self._shop.limits,
                terms=self._shop.terms,
            ),
        )
        draft = announcement_draft(
            announcement, nprofile=self._nprofile, version=self._shop.version
        )
        self._last_announced = at
        return await self._publish(await self._world.identity.sign(draft))

    async def _keep(self, event: Event, page: PricePage) -> None:
        content = json.dumps(event.as_dict(), ensure_ascii=False)
        values = {"id": event.id, "content": content, "valid_until": page.valid_until}
        before = self._world.now_s() - KEEP_S
        await self._world.store.commit(
            Write("price_page_insert", values), Write("price_page_prune", {"before": before})
        )
        self._pages = {n: kept for n, kept in self._pages.items() if kept.valid_until >= before}
        self._pages[event.id] = page

    async def _last_time(self, address: str) -> int:
        rows = await self._world.store.read("meta_get", name=f"at:{address}")
        return int(rows[0]["value"]) if rows else 0

    async def _next_time(self, address: str) -> int:
        """max(now, last + 1): of two events with one time, relays would keep the lower id."""
        at = max(self._world.now_s(), await self._last_time(address) + 1)
        await self._world.store.commit(
            Write("meta_set", {"name": f"at:{address}", "value": str(at)})
        )
        return at

    async def _publish(self, *events: Event) -> bool:
        """Send all at once, for one silent relay is waited for; True if each was taken by one."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._world.relays.publish(event)) for event in events]
        for event, task in zip(events, tasks, strict=True):
            if not task.result().ok:
                log.warning("not_published", kind=event.kind, relays=len(task.result().failed))
        return all(task.result().ok for task in tasks)
