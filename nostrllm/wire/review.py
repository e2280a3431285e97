"""A review of a provider (kind 38000, in the grammar of NIP-87) ⇄ event.

One live review per author and provider: the `d` tag names the provider. The receipt travels whole
in a tag together with the salt that opens its commitment to the reviewer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, parse_event

TEXT_CHARS_MAX: Final = 2_000
ASPECTS: Final = ("quality", "latency", "honest-price")
RATING_MAX: Final = 5

_STARS = re.compile(r"\[[0-9.]{1,4}/5\]\s*")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_SHARE = re.compile(r"0(\.[0-9]{1,4})?|1(\.0{1,4})?")


@dataclass(frozen=True, slots=True)
class Review:
    """What somebody says of a provider: 1 to 5 stars, a text, and perhaps a receipt.

    `d` is the announcement's; `receipt` and `salt` come together. `aspects`: some of ASPECTS, each
    from 0 to 1, to four places. Nothing here is verified yet.
    """

    author: str
    provider: str
    d: str
    rating: int
    text: str
    created_at: int
    model: str | None = None
    receipt: Event | None = None
    salt: str | None = None
    aspects: tuple[tuple[str, float], ...] = ()


def review_draft(review: Review, relay: str = "") -> Draft:
    """The event to sign; `relay` is where the announcement can be found."""
    address = f"{kinds.ANNOUNCEMENT}:{review.provider}:{review.d}"
    tags: list[tuple[str, ...]] = [
        ("d", f"{review.provider}:{review.d}"),
        ("k", str(kinds.ANNOUNCEMENT)),
        ("a", address, relay),
        ("p", review.provider),
        ("rating", str(review.rating)),
    ]
    tags += [("rating", f"{mark:.4f}", name) for name, mark in review.aspects]
    if review.model:
        tags.append(("model", review.model))
    if review.receipt is not None and review.salt is not None:
        text = json.dumps(review.receipt.as_dict(), ensure_ascii=False, separators=(",", ":"))
        tags.append(("receipt", text, review.salt))
    content = f"[{review.rating}/{RATING_MAX}] {review.text}".rstrip()
    return Draft(kinds.REVIEW, content, review.created_at, tuple(tags))


def parse_review(event: Event) -> Review:
    """An event of kind 38000 about a provider of ours. Raises RemoteError for every other.

    A receipt that cannot be read counts as none: the review stays, unverified.
    """
    if event.kind != kinds.REVIEW or event.value("k") != str(kinds.ANNOUNCEMENT):
        raise RemoteError("not a review of a provider")
    provider, _, d = (event.value("d") or "").partition(":")
    if not _HEX64.fullmatch(provider) or len(d) > 64:
        raise RemoteError("the review names no provider")
    receipt, salt = _receipt(event)
    return Review(
        author=event.pubkey,
        provider=provider,
        d=d,
        rating=_rating(event),
        text=_STARS.sub("", event.content, count=1)[:TEXT_CHARS_MAX],
        created_at=event.created_at,
        model=(event.value("model") or "")[:128] or None,
        receipt=receipt,
        salt=salt,
        aspects=_aspects(event),
    )


def _rating(event: Event) -> int:
    overall = [tag[1] for tag in event.tags if tag[0] == "rating" and len(tag) == 2]
    if len(overall) != 1 or overall[0] not in ("1", "2", "3", "4", "5"):
        raise RemoteError("the review's rating is not one of 1 to 5")
    return int(overall[0])


def _aspects(event: Event) -> tuple[tuple[str, float], ...]:
    """The first mark of each aspect known here, in ASPECTS' order; others are passed over."""
    marks = {
        tag[2]: float(tag[1])
        for tag in reversed(event.tags)
        if tag[0] == "rating" and len(tag) == 3 and _SHARE.fullmatch(tag[1])
    }
    return tuple((name, marks[name]) for name in ASPECTS if name in marks)


def _receipt(event: Event) -> tuple[Event | None, str | None]:
    tag = next((tag for tag in event.tags if tag[0] == "receipt" and len(tag) == 3), None)
    if tag is None or not _HEX64.fullmatch(tag[2]):
        return None, None
    try:
        return parse_event(json.loads(tag[1])), tag[2]
    except (ValueError, RecursionError, RemoteError):
        return None, None
