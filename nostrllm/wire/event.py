"""A Nostr event (NIP-01): JSON ⇄ frozen object, and the id that names it.

Signatures are checked in `crypto.keys`, not here: this file knows what an event looks like, not
whether it is true.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from nostrllm.errors import RemoteError

Tags = tuple[tuple[str, ...], ...]

#: Limits on one event; relays are mostly stricter (64 KiB in all).
CONTENT_BYTES_MAX: Final = 1 << 18
RUMOR_CONTENT_BYTES_MAX: Final = 1 << 19  # a rumor may come in several events
TAGS_MAX: Final = 2_500
TAG_VALUES_MAX: Final = 64
TAG_BYTES_MAX: Final = 1 << 14
CREATED_AT_MAX: Final = 1 << 40

_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX128 = re.compile(r"[0-9a-f]{128}")


class _Tagged:
    """What everything with a tag list can be asked."""

    __slots__ = ()
    tags: Tags

    def values(self, name: str) -> Iterator[str]:
        """The first value of every tag called `name`, in order."""
        return (tag[1] for tag in self.tags if len(tag) > 1 and tag[0] == name)

    def value(self, name: str) -> str | None:
        """The first value of the first tag called `name`."""
        return next(self.values(name), None)


@dataclass(frozen=True, slots=True)
class Draft(_Tagged):
    """What an author wants to say, before a key is put to it."""

    kind: int
    content: str
    created_at: int
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class Rumor(_Tagged):
    """An unsigned event inside a gift wrap (NIP-59); `pubkey` is proved by the seal around it."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: Tags
    content: str

    def as_dict(self) -> dict[str, Any]:
        """The six fields that a seal carries, ready for a JSON encoder."""
        return {
            "id": self.id,
            "pubkey": self.pubkey,
            "created_at": self.created_at,
            "kind": self.kind,
            "tags": [list(tag) for tag in self.tags],
            "content": self.content,
        }


@dataclass(frozen=True, slots=True)
class Event(_Tagged):
    """A signed event, as relays carry it."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: Tags
    content: str
    sig: str

    def as_dict(self) -> dict[str, Any]:
        """The seven fields of NIP-01, ready for a JSON encoder."""
        return {
            "id": self.id,
            "pubkey": self.pubkey,
            "created_at": self.created_at,
            "kind": self.kind,
            "tags": [list(tag) for tag in self.tags],
            "content": self.content,
            "sig": self.sig,
        }

    @property
    def address(self) -> str:
        """`kind:pubkey:d`, which names an addressable event across its versions."""
        return f"{self.kind}:{self.pubkey}:{self.value('d') or ''}"


def event_id(pubkey: str, created_at: int, kind: int, tags: Tags, content: str) -> str:
    """sha256 over the canonical array of NIP-01, in hex.

    Raises RemoteError when a text holds a lone surrogate, which has no UTF-8 form.
    """
    return hashlib.sha256(canonical_bytes(pubkey, created_at, kind, tags, content)).hexdigest()


def canonical_bytes(pubkey: str, created_at: int, kind: int, tags: Tags, content: str) -> bytes:
    """The canonical array of NIP-01. Raises RemoteError as `event_id` does."""
    # pydantic's encoder escapes as NIP-01 asks, and takes a fifth of the time of json's
    try:
        return to_json([0, pubkey, created_at, kind, tags, content])
    except PydanticSerializationError:
        raise RemoteError("the event holds text that is not Unicode") from None


def rumor(draft: Draft, pubkey: str) -> Rumor:
    """The draft with its author and its id."""
    number = event_id(pubkey, draft.created_at, draft.kind, draft.tags, draft.content)
    return Rumor(number, pubkey, draft.created_at, draft.kind, draft.tags, draft.content)


def parse_event(raw: object) -> Event:
    """A decoded JSON value as an Event; id and signature are not verified.

    Raises RemoteError for anything else than the seven fields within their limits.
    """
    fields = _common(raw, CONTENT_BYTES_MAX)
    sig = fields["sig"]
    if not (isinstance(sig, str) and _HEX128.fullmatch(sig)):
        raise RemoteError("the event's sig is not 64 bytes of hex")
    return Event(*_ordered(fields), sig)


def parse_rumor(raw: object) -> Rumor:
    """A decoded JSON value as a Rumor, its id recomputed; a stated id must agree (NIP-59)."""
    if not isinstance(raw, Mapping):
        raise RemoteError("a rumor is a JSON object")
    fields = _common({"id": "0" * 64, "sig": "", **raw}, RUMOR_CONTENT_BYTES_MAX)
    stated = raw.get("id")
    _, pubkey, created_at, kind, tags, content = _ordered(fields)
    number = event_id(pubkey, created_at, kind, tags, content)
    if stated is not None and stated != number:
        raise RemoteError("the rumor's id does not match its content")
    return Rumor(number, pubkey, created_at, kind, tags, content)


def _ordered(fields: Mapping[str, Any]) -> tuple[str, str, int, int, Tags, str]:
    return (
        fields["id"],
        fields["pubkey"],
        fields["created_at"],
        fields["kind"],
        _tags(fields["tags"]),
        fields["content"],
    )


def _common(raw: object, content_bytes_max: int) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise RemoteError("an event is a JSON object")
    missing = {"id", "pubkey", "created_at", "kind", "tags", "content", "sig"} - raw.keys()
    if missing:
        raise RemoteError(f"the event lacks {', '.join(sorted(missing))}")
    for name in ("id", "pubkey"):
        if not (isinstance(raw[name], str) and _HEX64.fullmatch(raw[name])):
            raise RemoteError(f"the event's {name} is not 32 bytes of hex")
    if not _is_int(raw["created_at"], CREATED_AT_MAX):
        raise RemoteError("the event's created_at is not a time")
    if not _is_int(raw["kind"], 65_535):
        raise RemoteError("the event's kind is not a number from 0 to 65535")
    content = raw["content"]
    if not isinstance(content, str) or _size_bytes(content) > content_bytes_max:
        raise RemoteError("the event's content is no text, or too long")
    return raw


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _is_int(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _tags(raw: object) -> Tags:
    if not isinstance(raw, list | tuple) or len(raw) > TAGS_MAX:
        raise RemoteError("the event's tags are no list, or too many")
    return tuple(_tag(item) for item in raw)


def _tag(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple) or not 1 <= len(raw) <= TAG_VALUES_MAX:
        raise RemoteError("a tag is no list, or has too many values")
    if not all(isinstance(value, str) and _size_bytes(value) <= TAG_BYTES_MAX for value in raw):
        raise RemoteError("a tag's value is no text, or too long")
    return tuple(raw)
