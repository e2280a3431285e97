"""Messages to a provider: sealed by the pseudonym he knows us by, cut into parts when long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nostrllm.client.discover import Offer
from nostrllm.client.world import Square, World
from nostrllm.core import parts
from nostrllm.ports import Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Rumor, rumor
from nostrllm.wire.message import Wire
from nostrllm.wire.pow import BITS_MAX

#: How long a message that is out of date may stay on relays.
EXPIRY_S: Final = 600
WHISPER_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Line:
    """A provider, the relays he reads, the key we write to him with, and the work that he asks of
    strangers (bits, NIP-13), as far as we do it."""

    provider: str
    relays: tuple[str, ...]
    buyer: Signer
    parts_max: int = parts.PARTS_MAX
    work: int = 0


def line_to(world: World, offer: Offer) -> Line:
    """How to write to the provider of an offer."""
    announcement = offer.announcement
    parts_max = announcement.profile.limits.parts_max
    buyer = world.buyer(announcement.pubkey)
    relays = world.square.reachable(announcement.relays)
    return Line(announcement.pubkey, relays, buyer, parts_max, min(announcement.work, BITS_MAX))


def letter(square: Square, line: Line, message: Wire) -> Rumor:
    """The message as a rumor of kind 25421; its id is the order's."""
    draft = Draft(kinds.MESSAGE, message.as_json(), square.now_s(), (("p", line.provider),))
    return rumor(draft, line.buyer.pubkey)


async def post(square: Square, line: Line, whole: Rumor, expiration: int) -> None:
    """Publish a letter, in parts if need be, to stay on relays until `expiration`.

    Raises RemoteError when it is too long, before anything is published; RelayError when no relay
    said that it took it, which one may have done all the same.
    """
    wraps = [
        await line.buyer.wrap(piece, line.provider, expiration=expiration, work=line.work)
        for piece in pieces(square, line, whole)
    ]
    for wrap in wraps:
        await square.publish(wrap, line.relays)


async def whisper(square: Square, line: Line, message: Wire) -> Rumor:
    """Publish a message that is worth something only while the provider listens: ephemeral.

    What no relay took is lost, and asked again by whoever misses the answer.
    """
    whole = letter(square, line, message)
    wrap = await line.buyer.wrap(whole, line.provider, ephemeral=True, work=line.work)
    await square.relays.publish(wrap, to=line.relays, timeout_s=WHISPER_S)
    return whole


async def mutter(square: Square, line: Line, message: Wire) -> None:
    """As `whisper`, for what nobody waits for: sent, and not asked whether it arrived."""
    whole = letter(square, line, message)
    wrap = await line.buyer.wrap(whole, line.provider, ephemeral=True, work=line.work)
    await square.relays.cast(wrap, to=line.relays)


def check_length(square: Square, line: Line, message: Wire, *, room: int) -> None:
    """May it be so many bytes longer? Raises RemoteError `message-too-large`."""
    draft = Draft(kinds.MESSAGE, message.as_json() + " " * room, square.now_s())
    pieces(square, line, rumor(draft, line.buyer.pubkey))


def pieces(square: Square, line: Line, whole: Rumor) -> Sequence[Rumor]:
    """The letter itself, or its parts. Raises RemoteError `message-too-large`."""
    if parts.fits(whole):
        return [whole]
    drafts = parts.split(whole, square.now_s(), parts_max=line.parts_max)
    return [rumor(draft, line.buyer.pubkey) for draft in drafts]
