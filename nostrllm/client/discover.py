"""Who sells what, at which price, now: the market as the relays show it.

What events make an offer, and which are dropped, is in core/listings.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nostrllm.client.world import unheard
from nostrllm.core.listings import AHEAD_S_MAX, Listing, Offer, listings
from nostrllm.errors import LocalError, RelayError
from nostrllm.ports import Clock, Filter, Relays
from nostrllm.wire import kinds
from nostrllm.wire.announcement import LABEL, Announcement
from nostrllm.wire.event import Event

__all__ = ["AHEAD_S_MAX", "Catalogue", "Listing", "Offer", "chosen", "listings"]

#: How long a catalogue is used before the relays are asked again.
FRESH_S: Final = 30.0
FETCH_S: Final = 5.0


def chosen(wanted: str, among: Iterable[Announcement]) -> str:
    """The public key of the provider that `wanted`, his key (hex) or his name, stands for.

    Raises LocalError `provider-unknown` when none has it, or several have: a name is not owned.
    """
    keys = {one.pubkey for one in among if wanted in (one.pubkey, one.profile.name)}
    if len(keys) > 1:
        raise LocalError("several providers have that name: use a key", code="provider-unknown")
    if not keys:
        raise LocalError(
            "that provider offers nothing on these relays now", code="provider-unknown"
        )
    return keys.pop()


class Catalogue:
    """The market as the relays show it, asked again when what is known has grown old."""

    def __init__(self, relays: Relays, clock: Clock) -> None:
        self._relays = relays
        self._clock = clock
        self._events: list[Event] = []
        self._asked_at: float | None = None

    async def listings(self, *, refresh: bool = False) -> list[Listing]:
        """Every provider whose heartbeat is alive.

        Raises RelayError when there is none because no relay answers.
        """
        asked = self._asked_at
        if refresh or asked is None or self._clock.monotonic() - asked > FRESH_S:
            await self._fetch()
        return listings(self._events, self._clock.now())

    async def offers(self, *, refresh: bool = False) -> list[Offer]:
        """Every model of every such provider. Raises RelayError."""
        return [offer for one in await self.listings(refresh=refresh) for offer in one.offers]

    async def _fetch(self) -> None:
        wanted = [
            Filter(kinds=(kinds.ANNOUNCEMENT,), tags={"t": (LABEL,)}),
            Filter(kinds=(kinds.PRICE_LIST,), tags={"t": (LABEL,)}),
        ]
        began = self._clock.monotonic()
        self._events = await self._relays.fetch(wanted, timeout_s=FETCH_S)
        self._asked_at = self._clock.monotonic() if self._events else None
        why = "" if self._events else unheard(self._relays, self._clock, began)
        if why:
            raise RelayError(f"no relay answers ({why})")
