"""What anybody can see: who sells, at which price, and what people say of him."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import parse_pubkey
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.client import review
from nostrllm.client.discover import Catalogue, Listing, Offer, chosen
from nostrllm.client.review import ReadReview
from nostrllm.client.watch import Seen, watched
from nostrllm.client.world import Square
from nostrllm.errors import LocalError
from nostrllm.service.place import Place


@asynccontextmanager
async def market(where: Place) -> AsyncIterator[Market]:
    """The public part alone: no key, no wallet, no lock; any number at a time."""
    clock = SystemClock()
    keyring = LocalKeyring(clock)
    async with WebsocketRelays(where.relays, keyring, clock) as relays:
        yield Market(Square(relays, keyring, clock, where.relays))


class Market:
    """Providers, offers and reviews, as the relays show them."""

    def __init__(self, square: Square) -> None:
        self.square = square
        self.catalogue = Catalogue(square.relays, square.clock)

    async def listings(self) -> list[Listing]:
        """Every provider whose heartbeat is alive, with his models and prices."""
        return await self.catalogue.listings()

    async def listing(self, provider: str) -> Listing:
        """One provider, by npub, hex or name. Raises LocalError `provider-unknown`."""
        found = {one.announcement.pubkey: one for one in await self.catalogue.listings()}
        among = (one.announcement for one in found.values())
        return found[chosen(provider_key(provider), among)]

    async def pubkey(self, provider: str) -> str:
        """A provider's key in hex; a name is looked up. Raises LocalError `provider-unknown`."""
        wanted = provider_key(provider)
        if len(wanted) == 64:
            return wanted
        return (await self.listing(provider)).announcement.pubkey

    async def offer(self, provider: str) -> Offer:
        """Any one offer of a provider: how he is reached. Raises LocalError."""
        offers = (await self.listing(provider)).offers
        if not offers:
            raise LocalError("that provider offers nothing now", code="provider-unknown")
        return offers[0]

    def prices(self, model: str, provider: str | None = None) -> AsyncIterator[Seen]:
        """A model's prices now, and each that is new from then on; of one provider (hex) or all."""
        return watched(self.square, model, provider)

    async def reviews(self, provider: str) -> list[ReadReview]:
        """What people say of a provider: the newest word of each, newest first."""
        return await review.read(self.square, await self.pubkey(provider))


def provider_key(text: str) -> str:
    """npub, nprofile or hex as hex; anything else is a name and stays as it is.

    Raises ConfigError for a key that is damaged.
    """
    bare = text.removeprefix("nostr:")
    is_key = bare.startswith(("npub1", "nprofile1", "nsec1")) or len(bare) == 64
    return parse_pubkey(text) if is_key else text
