"""One author's follow list as a blob: ascending int32 numbers of keys, little endian.

A blob per author is read and written an order of magnitude faster than a row per edge, and is what
`follow_graph` takes without looking at it. Needs no numpy.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Final

# Longer lists are bots' or imports; whoever follows so many vouches for nobody in particular.
FOLLOWS_MAX: Final = 2_000


def pack(author: int, follows: Iterable[int]) -> bytes:
    """The blob of a list: each key once, the author himself left out.

    `follows` in the list's order (NIP-02 appends); of one longer than FOLLOWS_MAX the last count.
    """
    once = dict.fromkeys(key for key in follows if key != author)
    newest = list(once)[-FOLLOWS_MAX:]
    return _swapped(array("i", sorted(newest))).tobytes()


def unpack(blob: bytes) -> list[int]:
    """The numbers of a blob, ascending."""
    found = array("i")
    found.frombytes(blob)
    return _swapped(found).tolist()


def _swapped(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":  # pragma: no cover
        numbers.byteswap()
    return numbers
