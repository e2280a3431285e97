"""The small part of CBOR (RFC 8949) that Cashu tokens use: bytes ⇄ dict, list, str, bytes, int.

General decoders act on tags (shared references, regular expressions, dates); a token has none, and
one that does is refused here before anything acts on it. Depth and item count are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nostrllm.errors import RemoteError

DEPTH_MAX: Final = 8
ITEMS_MAX: Final = 8_192

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = range(6)
#: 0xF7 is JavaScript's undefined, which cashu-ts writes for what is not there.
_SIMPLE: Final = {0xF4: False, 0xF5: True, 0xF6: None, 0xF7: None}
_INDEFINITE: Final = -1
_BREAK: Final = object()


def dumps(value: object) -> bytes:
    """`value` in shortest form, maps in their own order; what `loads` gives goes in."""
    match value:
        case None | bool():
            return bytes([0xF6 if value is None else 0xF5 if value else 0xF4])
        case int():
            return _head(_UINT, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
        case bytes():
            return _head(_BYTES, len(value)) + value
        case str():
            text = value.encode()
            return _head(_TEXT, len(text)) + text
        case Mapping():
            body = (dumps(key) + dumps(item) for key, item in value.items())
            return _head(_MAP, len(value)) + b"".join(body)
        case Sequence():
            return _head(_ARRAY, len(value)) + b"".join(map(dumps, value))
        case _:
            raise TypeError(f"no CBOR form for {type(value).__name__}")


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise ValueError("an integer of more than 64 bits")


def loads(data: bytes) -> Any:
    """The one item that `data` holds. Raises RemoteError for anything else."""
    reader = _Reader(data)
    value = reader.item(DEPTH_MAX)
    if value is _BREAK or reader.at != len(data):
        raise RemoteError("the CBOR has bytes after its end")
    return value


class _Reader:
    """Where in the bytes we are, and how many items came so far."""

    __slots__ = ("at", "data", "items")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.items = 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise RemoteError("the CBOR ends too early")
        self.at += size
        return piece

    def head(self) -> tuple[int, int, int]:
        """First byte, major type, and the number that follows (or _INDEFINITE)."""
        first = self.take(1)[0]
        code = first & 31
        if code < 24:
            return first, first >> 5, code
        if code < 28:
            return first, first >> 5, int.from_bytes(self.take(1 << code - 24), "big")
        if code == 31:
            return first, first >> 5, _INDEFINITE
        raise RemoteError("the CBOR has a reserved length")

    def item(self, depth: int) -> Any:
        self.items += 1
        if not depth or self.items > ITEMS_MAX:
            raise RemoteError("the CBOR is too deep or has too many items")
        first, major, number = self.head()
        if first == 0xFF:
            return _BREAK
        if major == 7 and first in _SIMPLE:
            return _SIMPLE[first]
        if number == _INDEFINITE and major not in (_ARRAY, _MAP):
            raise RemoteError("the CBOR has a string in pieces")
        return self.value(major, number, depth - 1)

    def value(self, major: int, number: int, depth: int) -> Any:
        match major:
            case 0 | 1:
                return -1 - number if major else number
            case 2:
                return self.take(number)
            case 3:
                return self.text(number)
            case 4:
                return self.array(number, depth)
            case 5:
                return self.map(number, depth)
        raise RemoteError("the CBOR has a tag, a float or an unknown value")

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise RemoteError("the CBOR has text that is not UTF-8") from None

    def array(self, size: int, depth: int) -> list[Any]:
        values: list[Any] = []
        while size == _INDEFINITE or len(values) < size:
            value = self.item(depth)
            if value is _BREAK:
                if size == _INDEFINITE:
                    return values
                raise RemoteError("the CBOR has an end where an item was due")
            values.append(value)
        return values

    def map(self, size: int, depth: int) -> dict[Any, Any]:
        flat = self.array(size if size == _INDEFINITE else 2 * size, depth)
        keys = flat[::2]
        if len(flat) % 2 or not all(isinstance(key, str) for key in keys):
            raise RemoteError("the CBOR has a map whose keys are not text")
        if len(set(keys)) != len(keys):
            raise RemoteError("the CBOR has a map with a key twice")
        return dict(zip(keys, flat[1::2], strict=True))
