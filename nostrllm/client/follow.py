"""The user's own list of providers: a NIP-51 follow set (kind 30000, `d` = llm-providers).

The newest version on the relays is read before each change, and whatever else it holds is kept:
other programs may write to the same list.
"""

from __future__ import annotations

from typing import Final

from nostrllm.client.world import Square
from nostrllm.ports import Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event

LIST: Final = "llm-providers"


async def followed(square: Square, owner: str) -> list[str]:
    """The public keys on `owner`'s list, in its order."""
    return _keys(await square.newest(kinds.FOLLOW_SET, owner, LIST))


async def follow(square: Square, identity: Signer, provider: str) -> list[str]:
    """Put a provider on the list; returns the list. Raises RelayError."""
    before = await square.to_replace(kinds.FOLLOW_SET, identity.pubkey, LIST)
    if provider in _keys(before):
        return _keys(before)
    return await _write(square, identity, before, (*_tags(before), ("p", provider)))


async def unfollow(square: Square, identity: Signer, provider: str) -> list[str]:
    """Take a provider off the list; returns the list. Raises RelayError."""
    before = await square.to_replace(kinds.FOLLOW_SET, identity.pubkey, LIST)
    if provider not in _keys(before):
        return _keys(before)
    kept = tuple(tag for tag in _tags(before) if tag[:2] != ("p", provider))
    return await _write(square, identity, before, kept)


async def _write(
    square: Square, identity: Signer, before: Event | None, tags: tuple[tuple[str, ...], ...]
) -> list[str]:
    content = "" if before is None else before.content  # private entries stay as they are
    draft = Draft(kinds.FOLLOW_SET, content, square.now_s(), tags)
    return _keys(await square.replace(identity, draft, before))


def _tags(event: Event | None) -> tuple[tuple[str, ...], ...]:
    return (("d", LIST), ("title", "LLM providers")) if event is None else event.tags


def _keys(event: Event | None) -> list[str]:
    return [] if event is None else list(dict.fromkeys(event.values("p")))
