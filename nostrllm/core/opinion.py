"""What people hold of a provider, drawn from reviews, lists and mutes: one opinion per author.

Who must not speak is left out here: the provider of itself, its operator's keys, and an author's
older review once there is a newer one. Whom the viewer believes is `trust`'s question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from nostrllm.wire.review import Review

Basis = Literal["receipt", "review", "list", "mute"]

# What an opinion counts for by what it rests on. A receipt does not prove honesty (a provider can
# pay itself), but that somebody paid; the others cost nobody anything.
STRENGTH: Final[dict[Basis, float]] = {"receipt": 1.0, "review": 0.5, "list": 0.5, "mute": 0.5}


@dataclass(frozen=True, slots=True)
class Opinion:
    """`value` from -1 (never again) over 0 (no verdict) to 1; `id` is the event that says so.

    `aspects`: name and value from 0 to 1, as the review has them.
    """

    id: str
    author: str
    value: float
    at_s: int
    basis: Basis
    aspects: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A review, the id of its event, and whether its receipt was verified for this author."""

    id: str
    review: Review
    verified: bool = False


def value(stars: int) -> float:
    """One to five stars as -1 to 1."""
    return (stars - 3) / 2


def opinion_of(seen: Seen) -> Opinion:
    """A review as an opinion."""
    review = seen.review
    return Opinion(
        id=seen.id,
        author=review.author,
        value=value(review.rating),
        at_s=review.created_at,
        basis="receipt" if seen.verified else "review",
        aspects=review.aspects,
    )


def opinions(
    reviews: Iterable[Seen],
    marks: Iterable[tuple[str, Opinion]] = (),
    operators: Collection[str] = (),
) -> dict[str, list[Opinion]]:
    """Opinions by provider, one per author: his newest review, of equals the lowest id (NIP-01).

    An author's reviews of several announcements of one provider are one opinion. `marks`: provider
    and opinion, from lists and mutes; they speak where their author wrote no review.
    `operators`: keys whose word on any of these providers is not heard.
    """
    live: dict[tuple[str, str], Seen] = {}
    for seen in reviews:
        author, provider = seen.review.author, seen.review.provider
        if author == provider or author in operators:
            continue
        known = live.get((provider, author))
        if known is None or _order(seen) < _order(known):
            live[provider, author] = seen
    held = {key: opinion_of(seen) for key, seen in live.items()}
    for provider, mark in marks:
        if mark.author != provider and mark.author not in operators:
            held.setdefault((provider, mark.author), mark)
    found: dict[str, list[Opinion]] = {}
    for provider, author in sorted(held):
        found.setdefault(provider, []).append(held[provider, author])
    return found


def _order(seen: Seen) -> tuple[int, str]:
    return -seen.review.created_at, seen.id
