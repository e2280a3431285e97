"""Proof of work (NIP-13): an event whose id begins with zero bits, and says how many were meant.

A target of b bits takes about 2 ** b hashes to meet and one to check. Work beyond the target that
the `nonce` tag commits to is luck, and does not count.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Final

from nostrllm.wire.event import Draft, Event, Tags, canonical_bytes

#: More is not asked for and not done: 2 ** 20 hashes take seconds.
BITS_MAX: Final = 20
ID_BITS: Final = 256
NONCE: Final = "nonce"


def zero_bits(event_id: str) -> int:
    """How many zero bits an id of 64 hex digits begins with."""
    return ID_BITS - int(event_id, 16).bit_length()


def work_of(event: Event) -> int:
    """The bits that an event committed to and has; 0 for one that did not, or has fewer."""
    tag = next((tag for tag in event.tags if tag[0] == NONCE and len(tag) > 2), None)
    if tag is None or not tag[2].isascii() or not tag[2].isdecimal() or len(tag[2]) > 3:
        return 0
    target = int(tag[2])
    return target if target <= zero_bits(event.id) else 0


def mined(draft: Draft, pubkey: str, bits: int) -> Draft:
    """The draft with a `nonce` tag by which its id, for this author, has so many zero bits.

    Takes about 2 ** bits times as long as hashing the event.
    """
    mark = "?" * 8
    tags: Tags = (*draft.tags, (NONCE, mark, str(bits)))
    text = canonical_bytes(pubkey, draft.created_at, draft.kind, tags, draft.content)
    # Tags stand before the content, which therefore cannot hold the first of these.
    before, _, after = text.partition(f'["{NONCE}","{mark}"'.encode())
    head = hashlib.sha256(before + f'["{NONCE}","'.encode())
    limit = 1 << (ID_BITS - bits)

    def meets(nonce: str) -> bool:
        attempt = head.copy()
        attempt.update(nonce.encode() + b'"' + after)
        return int.from_bytes(attempt.digest()) < limit

    nonce = next(nonce for nonce in map(str, count()) if meets(nonce))
    tags = (*draft.tags, (NONCE, nonce, str(bits)))
    return Draft(draft.kind, draft.content, draft.created_at, tags)
