"""Leave a review bound to a receipt, and read the reviews of others.

A receipt proves that the author paid for an answer, not that he is honest: a provider can pay
himself. Publishing one lets the provider match review and order, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nostrllm.client.discover import AHEAD_S_MAX
from nostrllm.client.world import Square
from nostrllm.errors import LocalError, RemoteError
from nostrllm.ports import Filter, Keyring, Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Event
from nostrllm.wire.receipt import binds, parse_receipt
from nostrllm.wire.review import RATING_MAX, TEXT_CHARS_MAX, Review, parse_review, review_draft


@dataclass(frozen=True, slots=True)
class ReadReview:
    """A review as found; `verified`: its receipt is the provider's and was made for the author."""

    id: str
    review: Review
    verified: bool


async def publish(square: Square, identity: Signer, review: Review) -> Event:
    """Sign the review with the identity key and publish it over an older one.

    Raises LocalError for a rating or text out of bounds, RelayError when no relay took it.
    """
    if not 1 <= review.rating <= RATING_MAX:
        raise LocalError(f"a rating is 1 to {RATING_MAX} stars", code="message-invalid")
    if len(review.text) > TEXT_CHARS_MAX:
        raise LocalError(f"a review has at most {TEXT_CHARS_MAX} letters", code="message-too-large")
    d = f"{review.provider}:{review.d}"
    before = await square.newest(kinds.REVIEW, identity.pubkey, d)
    relay = square.urls[0] if square.urls else ""
    return await square.replace(identity, review_draft(review, relay), before)


async def read(square: Square, provider: str) -> list[ReadReview]:
    """What people say of this provider: the newest word of each, newest first."""
    wanted = Filter(kinds=(kinds.REVIEW,), tags={"p": (provider,)})
    events = await square.relays.fetch([wanted])
    return judged(events, provider, square.keyring, square.clock.now())


def judged(
    events: Iterable[Event], provider: str, keyring: Keyring, now: float
) -> list[ReadReview]:
    """The events (signatures verified) as reviews; what the provider says of himself is dropped."""
    newest: dict[str, ReadReview] = {}
    for event in sorted(events, key=lambda event: (event.created_at, -int(event.id, 16))):
        if event.pubkey == provider or event.created_at > now + AHEAD_S_MAX:
            continue
        try:
            review = parse_review(event)
        except RemoteError:
            continue
        if review.provider == provider:
            newest[event.pubkey] = ReadReview(event.id, review, _verified(review, keyring))
    return sorted(newest.values(), key=lambda one: (-one.review.created_at, one.id))


def _verified(review: Review, keyring: Keyring) -> bool:
    event = review.receipt
    if event is None or review.salt is None or event.pubkey != review.provider:
        return False
    try:
        receipt = parse_receipt(event)
    except RemoteError:
        return False
    return binds(receipt, review.author, review.salt) and keyring.verify(event)
