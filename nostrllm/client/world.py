"""What of the world a client is handed, and the two things it has of its own: keys and relays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nostrllm.core.places import is_public
from nostrllm.crypto.keys import derive
from nostrllm.errors import RelayError
from nostrllm.ports import Clock, Filter, Keyring, Mints, Relays, Signer, Store
from nostrllm.purse import Purse
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.order import REPLY_RELAYS_MAX


@dataclass(frozen=True, slots=True)
class Square:
    """The public part: relays, and a way to tell a true signature. Reading needs no more.

    `urls` are the user's own relays, in normal form.
    """

    relays: Relays
    keyring: Keyring
    clock: Clock
    urls: tuple[str, ...]

    def now_s(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())

    @property
    def reply_relays(self) -> tuple[str, ...]:
        """Where answers to us are sent."""
        return self.urls[:REPLY_RELAYS_MAX]

    def reachable(self, urls: Iterable[str]) -> tuple[str, ...]:
        """Those of a stranger's relays (in normal form) that we connect to: public, or our own.

        Else he could have us knock at any machine of the user's network. With none left our own
        relays are asked: he may read there too.
        """
        return tuple(url for url in urls if url in self.urls or is_public(url)) or self.urls

    async def publish(self, event: Event, to: tuple[str, ...] = ()) -> None:
        """Publish and insist that one relay took it. Raises RelayError with the reasons."""
        published = await self.relays.publish(event, to=to)
        if not published.ok:
            reasons = "; ".join(f"{url}: {why}" for url, why in published.failed.items())
            raise RelayError(f"no relay took the message ({reasons or 'none is configured'})")

    async def newest(self, kind: int, author: str, d: str | None = None) -> Event | None:
        """The newest event of a replaceable or addressable kind by this author, if any."""
        tags = {} if d is None else {"d": (d,)}
        wanted = Filter(kinds=(kind,), authors=(author,), tags=tags)
        found = await self.relays.fetch([wanted])
        events = [event for event in found if event.pubkey == author and event.kind == kind]
        events = [event for event in events if d is None or event.value("d") == d]
        return min(events, key=lambda event: (-event.created_at, event.id), default=None)

    async def to_replace(self, kind: int, author: str, d: str | None = None) -> Event | None:
        """As `newest`, for what is about to be written anew: None says that there surely is none.

        Raises RelayError when nothing was found and no relay answered, for what is there would be
        lost.
        """
        began = self.clock.monotonic()
        found = await self.newest(kind, author, d)
        why = unheard(self.relays, self.clock, began) if found is None else ""
        if why:
            raise RelayError(f"no relay says what is there already; nothing was changed ({why})")
        return found

    async def replace(self, signer: Signer, draft: Draft, after: Event | None) -> Event:
        """Sign and publish a replaceable event so that it is newer than the one it replaces."""
        created_at = max(draft.created_at, after.created_at + 1 if after is not None else 0)
        event = await signer.sign(Draft(draft.kind, draft.content, created_at, draft.tags))
        await self.publish(event)
        return event


def unheard(relays: Relays, clock: Clock, began: float) -> str:
    """Why no relay has said anything since `began` (monotonic), relay by relay; "" if one has."""
    states, since_s = relays.status(), clock.monotonic() - began
    heard = [one.heard_s for one in states if one.connected]
    if any(ago is not None and ago <= since_s for ago in heard):
        return ""
    return "; ".join(f"{one.url}: {one.error or 'no answer'}" for one in states) or "none is known"


@dataclass(frozen=True, slots=True)
class World:
    """The adapters behind their ports, and the user's keys.

    `identity` signs reviews, lists and direct messages and never buys. `seed` is where reply keys
    and the pseudonym shown to each provider come from. `mint` is the user's own choice of mint.
    """

    square: Square
    store: Store
    purse: Purse
    mints: Mints
    identity: Signer
    seed: bytes
    mint: str | None = None

    @property
    def relays(self) -> Relays:
        """The relays."""
        return self.square.relays

    def buyer(self, provider: str) -> Signer:
        """The pseudonym that this provider, and nobody else, sees."""
        return self.square.keyring.signer(derive(self.seed, "buyer", provider))

    def reply(self, number: int) -> Signer:
        """The key that answers to purchase `number` are addressed to."""
        return self.square.keyring.signer(derive(self.seed, "reply", str(number)))
