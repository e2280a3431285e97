"""What a client and a relay say to each other (NIP-01, NIP-42): text ⇄ frozen objects, no I/O.

Beside the frames stands the meaning of a filter, because a relay's word that an event matches is
not taken: what was not asked for is dropped before its signature is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from nostrllm.errors import RemoteError
from nostrllm.ports import Filter
from nostrllm.wire.event import Event

REASON_CHARS_MAX: Final = 200
CHALLENGE_CHARS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class EventFrame:
    """An event for a subscription; `raw` is whatever JSON object the relay put there."""

    subscription: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Eose:
    """All stored events of the subscription have been sent."""

    subscription: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The relay ended the subscription."""

    subscription: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ok:
    """What became of an event we sent."""

    event_id: str
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Words for a human; they are counted and not read."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The relay wants to know whose connection this is (NIP-42)."""

    text: str


Frame = EventFrame | Eose | Closed | Ok | Notice | Challenge


def parse_frame(message: str | bytes) -> Frame:
    """One message of a relay. Raises RemoteError for anything that is none of the six."""
    if not isinstance(message, str):
        raise RemoteError("the relay sent a binary message")
    try:
        array = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise RemoteError("the relay sent no JSON") from None
    if not isinstance(array, list) or not array or not isinstance(array[0], str):
        raise RemoteError("the relay sent no frame")
    build = _FRAMES.get(array[0])
    frame = None if build is None else build(array)
    if frame is None:
        raise RemoteError("the relay sent a frame that is not understood")
    return frame


def _event(array: list[Any]) -> Frame | None:
    if len(array) != 3 or not isinstance(array[1], str) or not isinstance(array[2], dict):
        return None
    return EventFrame(array[1], array[2])


def _eose(array: list[Any]) -> Frame | None:
    return Eose(array[1]) if len(array) > 1 and isinstance(array[1], str) else None


def _closed(array: list[Any]) -> Frame | None:
    if len(array) < 2 or not isinstance(array[1], str):
        return None
    return Closed(array[1], _reason(array, 2))


def _ok(array: list[Any]) -> Frame | None:
    if len(array) < 3 or not isinstance(array[1], str) or not isinstance(array[2], bool):
        return None
    return Ok(array[1], array[2], _reason(array, 3))


def _notice(array: list[Any]) -> Frame | None:
    return Notice()


def _challenge(array: list[Any]) -> Frame | None:
    if len(array) < 2 or not isinstance(array[1], str):
        return None
    return Challenge(array[1]) if len(array[1]) <= CHALLENGE_CHARS_MAX else None


_FRAMES: Final[Mapping[str, Callable[[list[Any]], Frame | None]]] = {
    "EVENT": _event,
    "EOSE": _eose,
    "CLOSED": _closed,
    "OK": _ok,
    "NOTICE": _notice,
    "AUTH": _challenge,
}


def _reason(array: list[Any], place: int) -> str:
    """A relay's reason, short and printable: it may end in a log."""
    text = array[place] if len(array) > place else ""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:REASON_CHARS_MAX])


def needs_auth(reason: str) -> bool:
    """Does the relay refuse for want of AUTH, or of another identity (NIP-42)?"""
    return reason.startswith(("auth-required:", "restricted:"))


def req_frame(subscription: str, filters: Sequence[Mapping[str, Any]]) -> str:
    """Ask for events; a second REQ of the same id replaces the first (NIP-01)."""
    return _text(["REQ", subscription, *filters])


def close_frame(subscription: str) -> str:
    """Ask for no more."""
    return _text(["CLOSE", subscription])


def event_frame(event: Event) -> str:
    """Publish."""
    return _text(["EVENT", event.as_dict()])


def auth_frame(event: Event) -> str:
    """Answer a challenge with a signed event of kind 22242."""
    return _text(["AUTH", event.as_dict()])


def _text(array: list[Any]) -> str:
    return orjson.dumps(array).decode()


def filter_dict(asked: Filter, *, stored_since: int | None = None) -> dict[str, Any]:
    """A filter as NIP-01 writes it; `stored_since` narrows its `since`, unix seconds."""
    since = asked.since
    if stored_since is not None:
        since = max(stored_since, since or 0)
    lists = {"kinds": asked.kinds, "authors": asked.authors, "ids": asked.ids}
    lists |= {f"#{name}": values for name, values in asked.tags.items()}
    numbers = {"since": since, "until": asked.until, "limit": asked.limit}
    return {name: list(values) for name, values in lists.items() if values} | {
        name: value for name, value in numbers.items() if value is not None
    }


class Matcher:
    """Several filters made ready to be asked about one event after another."""

    __slots__ = ("_filters", "kinds")

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(_Compiled.of(asked) for asked in filters)
        kinds: frozenset[int] | None = frozenset()
        for asked in filters:
            kinds = kinds | set(asked.kinds) if kinds is not None and asked.kinds else None
        #: The kinds any filter lets through; None = all.
        self.kinds = kinds

    def matches(self, event: Event) -> bool:
        """Does any of the filters ask for this event?"""
        return any(asked.matches(event) for asked in self._filters)


@dataclass(frozen=True, slots=True)
class _Compiled:
    kinds: frozenset[int]
    authors: frozenset[str]
    ids: frozenset[str]
    tags: tuple[tuple[str, frozenset[str]], ...]
    since: int
    until: int | None

    @classmethod
    def of(cls, asked: Filter) -> _Compiled:
        tags = tuple((name, frozenset(values)) for name, values in asked.tags.items() if values)
        return cls(
            frozenset(asked.kinds),
            frozenset(asked.authors),
            frozenset(asked.ids),
            tags,
            asked.since or 0,
            asked.until,
        )

    def matches(self, event: Event) -> bool:
        return (
            (not self.kinds or event.kind in self.kinds)
            and (not self.authors or event.pubkey in self.authors)
            and (not self.ids or event.id in self.ids)
            and event.created_at >= self.since
            and (self.until is None or event.created_at <= self.until)
            and all(not asked.isdisjoint(event.values(name)) for name, asked in self.tags)
        )


def place(url: str) -> str:
    """The address without its query, which may hold a key: for logs."""
    return url.partition("?")[0]
