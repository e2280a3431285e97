"""What the provider writes back, to a program or to a person, and how it gets there for sure.

A reply is sealed first, stored together with the money it speaks of, and sent afterwards; a reply
that no relay took is sent again until it expires, across restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson
import structlog

from nostrllm.core import parts
from nostrllm.core.places import is_public
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter, Row, Write
from nostrllm.provider.shop import World
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, parse_event, rumor
from nostrllm.wire.message import Wire
from nostrllm.wire.places import relay_url

Dialect = Literal["client", "chat", "legacy"]

#: Results, change and refunds stay on relays for so long.
RESULT_KEEP_S: Final = 30 * 86_400
RETRY_S_MAX: Final = 600
LOOK_S: Final = 5.0
#: What became of deliveries is written down together; a crash before that sends them once more.
BOOKED_AFTER_S: Final = 0.05

#: So many owners' letters are sent at once.
DELIVERIES_MAX: Final = 64
#: When the relays that somebody named fail so often, ours are tried too, where his question came.
OWN_RELAYS_AT_TRY: Final = 1
DM_RELAYS_MAX: Final = 5
DM_RELAYS_KEPT_MAX: Final = 1_024
DM_RELAYS_FRESH_S: Final = 3_600

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Address:
    """Whom to answer, in which dialect, at which key, on which relays (none: look them up)."""

    dialect: Dialect
    author: str
    key: str
    relays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event ready to be sent, and where to."""

    event: Event
    relays: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A stored letter that no relay has taken yet."""

    event: Event
    relays: tuple[str, ...]
    tries: int = 0


class _Batch:
    """Writes that are committed together, and whoever waits for that."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.done = asyncio.Event()


class Letterbox:
    """Seals replies, and delivers the stored ones until a relay has taken them."""

    def __init__(self, world: World, own_relays: tuple[str, ...]) -> None:
        self._world = world
        self._own_relays = frozenset(own_relays)
        self._wake = asyncio.Event()
        self._look = True
        self._missed = False
        self._fresh: dict[str, Sequence[Outgoing]] = {}
        self._batch: _Batch | None = None
        self._delivering: set[str] = set()
        self._deliveries = asyncio.Semaphore(DELIVERIES_MAX)
        self._dm_relays: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()

    # sealing

    async def seal(
        self, address: Address, message: Wire | Sequence[str], *, keep_s: int = RESULT_KEEP_S
    ) -> list[Outgoing]:
        """One message of the protocol, or a person's texts in order, as events to send."""
        relays = await self._relays(address)
        if isinstance(message, Wire):
            return await self._seal_wire(address, message, relays, keep_s)
        texts = [text for text in message if text]
        if address.dialect == "legacy":
            return [Outgoing(await self._legacy(address, text), relays) for text in texts]
        now = self._world.now_s()
        expiration = now + keep_s
        out = []
        for later, text in enumerate(texts):
            # Clients order a conversation by created_at, which counts whole seconds.
            draft = Draft(kinds.DM, text, now + later, (("p", address.key),))
            letter = rumor(draft, self._world.identity.pubkey)
            wrap = await self._world.identity.wrap(letter, address.key, expiration=expiration)
            out.append(Outgoing(wrap, relays))
        return out

    async def _seal_wire(
        self, address: Address, message: Wire, relays: tuple[str, ...], keep_s: int
    ) -> list[Outgoing]:
        identity, now = self._world.identity, self._world.now_s()
        whole = rumor(Draft(kinds.MESSAGE, message.as_json(), now), identity.pubkey)
        letters = [whole]
        if not parts.fits(whole):
            letters = [rumor(draft, identity.pubkey) for draft in parts.split(whole, now)]
        expiration = now + keep_s
        return [
            Outgoing(await identity.wrap(letter, address.key, expiration=expiration), relays)
            for letter in letters
        ]

    async def _legacy(self, address: Address, text: str) -> Event:
        content = await self._world.identity.encrypt_legacy(text, address.key)
        draft = Draft(kinds.DM_LEGACY, content, self._world.now_s(), (("p", address.key),))
        return await self._world.identity.sign(draft)

    async def _relays(self, address: Address) -> tuple[str, ...]:
        if address.relays or address.dialect == "legacy":
            return address.relays
        known = self._dm_relays.get(address.key)
        now = self._world.clock.monotonic()
        if known is None or now - known[0] > DM_RELAYS_FRESH_S:
            known = (now, await self._look_up(address.key))
            self._dm_relays[address.key] = known
            while len(self._dm_relays) > DM_RELAYS_KEPT_MAX:
                self._dm_relays.popitem(last=False)
        return known[1]

    async def _look_up(self, pubkey: str) -> tuple[str, ...]:
        """A person's inbox relays (kind 10050); () means ours, by which the question came."""
        wanted = Filter(kinds=(kinds.DM_RELAYS,), authors=(pubkey,), limit=1)
        events = await self._world.relays.fetch([wanted], timeout_s=2.0)
        if not events:
            return ()
        return self.allowed(list(events[0].values("relay"))[:DM_RELAYS_MAX])

    def allowed(self, urls: Iterable[str]) -> tuple[str, ...]:
        """Those that strangers may name: ours, and hosts of the open network. () means ours."""
        named = []
        for text in urls:
            try:
                url = relay_url(text)
            except RemoteError:
                continue
            if url in self._own_relays or is_public(url):
                named.append(url)
        return tuple(named)

    # storing and sending

    def store(
        self,
        owner: str,
        outgoing: Sequence[Outgoing],
        *,
        keep_s: int = RESULT_KEEP_S,
        first: int = 0,
    ) -> list[Write]:
        """The writes that put replies into the outbox for `keep_s`; `wake` after the commit.

        `first` is the place of the first among the letters of this owner.
        """
        now = self._world.now_s()
        return [
            Write(
                "outbox_insert",
                {
                    "id": letter.event.id,
                    "owner": owner,
                    "position": position,
                    "event": orjson.dumps(letter.event.as_dict()).decode(),
                    "relays": json.dumps(letter.relays),
                    "next_at": now,
                    "expires_at": now + keep_s,
                },
            )
            for position, letter in enumerate(outgoing, first)
        ]

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._look = True
        self._wake.set()

    def post(self, owner: str, outgoing: Sequence[Outgoing]) -> None:
        """All that the outbox has of `owner` was stored just now: it need not be read back."""
        self._fresh[owner] = outgoing
        self._wake.set()

    async def send(self, outgoing: Sequence[Outgoing]) -> None:
        """Send what need not survive a crash: refusals and acceptances."""
        for letter in outgoing:
            await self._world.relays.publish(letter.event, to=letter.relays)

    async def send_again(self, owner: str) -> int:
        """Send the stored replies of an order or message once more. Returns how many there are."""
        rows = await self._world.store.read("outbox_of", owner=owner)
        for row in rows:
            await self._publish(owner, _stored(row))
        return len(rows)

    async def run(self) -> None:
        """Deliver the outbox, for ever: at once when woken, else as retries fall due."""
        # The deliveries of a run that failed are over, also those that never began.
        self._delivering.clear()
        self._fresh.clear()
        self._batch, self._look = None, True
        self._deliveries = asyncio.Semaphore(DELIVERIES_MAX)
        monotonic = self._world.clock.monotonic
        look_at = monotonic() + LOOK_S
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for owner, fresh in await self._ready():
                    await self._deliveries.acquire()
                    self._delivering.add(owner)
                    group.create_task(self._deliver(owner, fresh))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, look_at - monotonic())):
                        await self._wake.wait()
                if monotonic() >= look_at:
                    look_at, self._look = monotonic() + LOOK_S, True
                    prune = Write("outbox_prune", {"now": self._world.now_s()})
                    await self._world.store.commit(prune)

    async def _ready(self) -> list[tuple[str, Sequence[Outgoing]]]:
        """Whose letters are to be sent: those just posted, and if somebody asked, all that is due.

        Of one whose letters are on their way already, all is looked at again afterwards.
        """
        fresh, self._fresh = self._fresh, {}
        ready = {owner: sent for owner, sent in fresh.items() if owner not in self._delivering}
        look, self._look = self._look, False
        self._missed = self._missed or len(ready) < len(fresh)
        if look:
            ready |= {owner: ready.get(owner, ()) for owner in await self._due()}
        return list(ready.items())

    async def _due(self) -> list[str]:
        rows = await self._world.store.read("outbox_due", now=self._world.now_s())
        owners = dict.fromkeys(row["owner"] for row in rows)
        waiting = [owner for owner in owners if owner not in self._delivering]
        self._missed = self._missed or len(waiting) < len(owners)
        return waiting

    async def drain(self, timeout_s: float) -> None:
        """Wait until what is due has gone out, or time is."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._delivering or await self._due():
                    self.wake()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("replies_left", owners=len(self._delivering))

    async def _deliver(self, owner: str, fresh: Sequence[Outgoing]) -> None:
        """Send one owner's letters in their order, up to the first that no relay takes.

        One silent relay thus holds up one conversation, and for longer each time.
        """
        try:
            writes = []
            letters = [_Waiting(letter.event, letter.relays) for letter in fresh]
            if not letters:
                rows = await self._world.store.read("outbox_waiting", owner=owner)
                letters = [_stored(row) for row in rows]
            for position, letter in enumerate(letters):
                if not await self._publish(owner, letter):
                    await self._copy_to_own(letters[position:])
                    pause = min(RETRY_S_MAX, 2 ** min(10, 1 + letter.tries))
                    later = {"owner": owner, "next_at": self._world.now_s() + pause}
                    writes.append(Write("outbox_later", later))
                    break
                writes.append(Write("outbox_sent", {"id": letter.event.id}))
            else:
                moved = {"id": owner, "state": "closed", "was": "settled"}
                writes.append(Write("order_move", {**moved, "at": self._world.now_s()}))
            await self._book(writes)
        finally:
            self._delivering.discard(owner)
            self._deliveries.release()
            if self._missed:  # something of his may have come meanwhile
                self._missed = False
                self.wake()

    async def _book(self, writes: Sequence[Write]) -> None:
        """Write down what became of a delivery, together with others that end about now."""
        batch = self._batch
        if batch is not None:
            batch.writes += writes
            await batch.done.wait()
            return
        self._batch = batch = _Batch()
        batch.writes += writes
        await self._world.clock.sleep(BOOKED_AFTER_S)
        self._batch = None
        await self._world.store.commit(*batch.writes)
        batch.done.set()

    async def _publish(self, owner: str, letter: _Waiting) -> bool:
        published = await self._world.relays.publish(letter.event, to=letter.relays)
        if not published.ok:
            log.warning("reply_not_taken", owner=owner[:16], tries=letter.tries)
        return bool(published.ok)

    async def _copy_to_own(self, letters: Sequence[_Waiting]) -> None:
        """Publish letters on our own relays too, once: those he named may be gone for good.

        They still count as waiting for his.
        """
        for letter in letters:
            if letter.tries == OWN_RELAYS_AT_TRY and letter.relays:
                await self._world.relays.publish(letter.event)


def _stored(row: Row) -> _Waiting:
    event = parse_event(json.loads(row["event"]))
    return _Waiting(event, tuple(json.loads(row["relays"])), row["tries"])
