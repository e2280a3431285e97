"""A rumor that is too long for one gift wrap: cut into parts, put together again.

A wrap encrypts twice and so doubles what it holds, and relays stop at 64 KiB. The whole rumor is
serialised and its bytes are cut, whatever they say; each slice travels as base64 in a rumor of
kind 25426 with the tags ["order", rumor id], ["part", i, n] (i from 0) and ["sha256", whole].
Base64 costs a third always, where escaped text would cost up to six times sometimes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

import orjson

from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Rumor, parse_rumor

#: What one part carries. With tags, seal and wrap it becomes an event of about 39 kB.
SLICE_BYTES: Final = 14_400
#: The longest serialised rumor that is wrapped whole: such a wrap is as long as that of a part.
WHOLE_BYTES_MAX: Final = 20_000
#: Limits on one rumor in parts.
PARTS_MAX: Final = 64
BYTES_MAX: Final = 512_000

_HEX64 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept for rumors whose parts have not all come."""

    parts_max: int = PARTS_MAX
    bytes_max: int = BYTES_MAX
    open_per_author_max: int = 4
    open_max: int = 256
    total_bytes_max: int = 16 << 20
    age_s: float = 120.0


@dataclass(frozen=True, slots=True)
class _Part:
    """One parsed part."""

    order: str
    index: int
    count: int
    sha256: str
    slice: bytes


@dataclass(slots=True)
class _Assembly:
    """The parts of one rumor that have come so far."""

    count: int
    sha256: str
    opened: float
    slices: dict[int, bytes] = field(default_factory=dict)
    size_bytes: int = 0


def fits(rumor: Rumor) -> bool:
    """Can `rumor` travel in one gift wrap that every usual relay takes? Raises RemoteError."""
    return len(_serialise(rumor)) <= WHOLE_BYTES_MAX


def split(rumor: Rumor, created_at: int, *, parts_max: int = PARTS_MAX) -> list[Draft]:
    """The parts of `rumor`, in order, for its author to wrap one by one.

    `parts_max`: how many the reader announced. Raises RemoteError `message-too-large`.
    """
    whole = _serialise(rumor)
    count = -(-len(whole) // SLICE_BYTES)
    if count > min(parts_max, PARTS_MAX) or len(whole) > BYTES_MAX:
        raise RemoteError("the message is too long", code="message-too-large")
    digest = hashlib.sha256(whole).hexdigest()
    return [
        Draft(
            kinds.PART,
            base64.b64encode(whole[index * SLICE_BYTES : (index + 1) * SLICE_BYTES]).decode(),
            created_at,
            (("order", rumor.id), ("part", str(index), str(count)), ("sha256", digest)),
        )
        for index in range(count)
    ]


class Assemblies:
    """Rumors on their way in, by author and rumor id; bounded in number, bytes and time.

    The oldest is given up first, for a sender who is still there sends again, and an attacker who
    only opens rumors must open them faster than an honest sender completes one.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._open: dict[tuple[str, str], _Assembly] = {}  # in the order they were opened
        self._total_bytes = 0

    @property
    def open(self) -> int:
        """How many rumors are incomplete."""
        return len(self._open)

    @property
    def size_bytes(self) -> int:
        """How many bytes of them are kept."""
        return self._total_bytes

    def add(self, part: Rumor, now_s: float) -> Rumor | None:
        """The whole rumor when `part`, as unwrapped, completes it, else None.

        `now_s` is any clock's seconds, the same clock each time. A repeated part changes nothing;
        one that contradicts another of its rumor ends that rumor. Raises RemoteError.
        """
        self._expire(now_s)
        parsed = _parse(part, self._limits)
        key = (part.pubkey, parsed.order)
        assembly = self._open.get(key) or self._start(key, parsed, now_s)
        try:
            self._put(assembly, parsed)
        except RemoteError:
            self._drop(key)
            raise
        if len(assembly.slices) < assembly.count:
            self._make_room()
            return None
        self._drop(key)
        return _join(assembly, *key)

    def _start(self, key: tuple[str, str], part: _Part, now_s: float) -> _Assembly:
        own = [other for other in self._open if other[0] == key[0]]
        if len(own) >= self._limits.open_per_author_max:
            self._drop(own[0])
        assembly = self._open[key] = _Assembly(part.count, part.sha256, now_s)
        return assembly

    def _put(self, assembly: _Assembly, part: _Part) -> None:
        if (part.count, part.sha256) != (assembly.count, assembly.sha256):
            raise RemoteError("the parts of the message do not belong together")
        known = assembly.slices.get(part.index)
        if known == part.slice:
            return
        if known is not None:
            raise RemoteError("a part of the message came in two versions")
        assembly.slices[part.index] = part.slice
        assembly.size_bytes += len(part.slice)
        self._total_bytes += len(part.slice)
        if assembly.size_bytes > self._limits.bytes_max:
            raise RemoteError("the message is too long", code="message-too-large")

    def _expire(self, now_s: float) -> None:
        old = now_s - self._limits.age_s
        for key in [key for key, assembly in self._open.items() if assembly.opened <= old]:
            self._drop(key)

    def _make_room(self) -> None:
        limits = self._limits
        while len(self._open) > limits.open_max or self._total_bytes > limits.total_bytes_max:
            self._drop(next(iter(self._open)))

    def _drop(self, key: tuple[str, str]) -> None:
        self._total_bytes -= self._open.pop(key).size_bytes


def _serialise(rumor: Rumor) -> bytes:
    try:
        return orjson.dumps(rumor.as_dict())
    except orjson.JSONEncodeError:
        raise RemoteError("the rumor holds text that is not Unicode") from None


def _parse(part: Rumor, limits: Limits) -> _Part:
    if part.kind != kinds.PART:
        raise RemoteError("the rumor is not a part of a message")
    order, digest = part.value("order") or "", part.value("sha256") or ""
    if not (_HEX64.fullmatch(order) and _HEX64.fullmatch(digest)):
        raise RemoteError("the part of a message does not say what it belongs to")
    place = next((tag[1:3] for tag in part.tags if tag[0] == "part"), ())
    if len(place) != 2 or not all(_NUMBER.fullmatch(number) for number in place):
        raise RemoteError("the part of a message does not say where it belongs")
    index, count = int(place[0]), int(place[1])
    if count > limits.parts_max or len(part.content) > 2 * limits.bytes_max:
        raise RemoteError("the message is too long", code="message-too-large")
    if not index < count:
        raise RemoteError("the part of a message lies beyond its end")
    try:
        piece = base64.b64decode(part.content, validate=True)
    except ValueError:
        raise RemoteError("the part of a message is not base64") from None
    if not piece:
        raise RemoteError("the part of a message is empty")
    return _Part(order, index, count, digest, piece)


def _join(assembly: _Assembly, author: str, order: str) -> Rumor:
    whole = b"".join(assembly.slices[index] for index in range(assembly.count))
    if hashlib.sha256(whole).hexdigest() != assembly.sha256:
        raise RemoteError("the parts of the message have another sha256 than they say")
    try:
        raw = orjson.loads(whole)
    except orjson.JSONDecodeError:
        raise RemoteError("the parts of the message are no JSON") from None
    rumor = parse_rumor(raw)
    if (rumor.id, rumor.pubkey, rumor.kind) != (order, author, kinds.MESSAGE):
        raise RemoteError("the parts make another message than they say")
    return rumor
