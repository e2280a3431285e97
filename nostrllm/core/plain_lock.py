"""Locked coins that are ours alone: which forms of a lock we sign for when a wallet pays (NUT-11).

Wallets write the lock that a payment request asks for each in its own way: other white space, other
order, with or without tags. The coins are swapped at once, so that a mint which reads a form
otherwise takes nothing from us. Still no form passes by which somebody else could spend, now or
later: no other keys, no locktime, no refund.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

SECRET_CHARS_MAX: Final = 1_024

#: The tags that change nothing, with the one value each may have.
_HARMLESS: Final = {"sigflag": "SIG_INPUTS", "n_sigs": "1"}
_KEY: Final = re.compile(r"0[23][0-9a-f]{64}")


def is_plain_lock(secret: str, key: str) -> bool:
    """Does spending the coin with this secret need a signature by `key`, and nothing else?

    `key` is compressed hex; its sign does not count, Schnorr signatures have none.
    """
    if len(secret) > SECRET_CHARS_MAX:
        return False
    try:
        parsed = json.loads(secret, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return False
    match parsed:
        case ["P2PK", {"nonce": str(), "data": str() as data, **rest}]:
            ours = _KEY.fullmatch(data.lower()) is not None and data[2:].lower() == key[2:]
            return ours and rest.keys() <= {"tags"} and _are_harmless(rest.get("tags", []))
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one with a field twice is read differently by different mints."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _are_harmless(tags: object) -> bool:
    if not isinstance(tags, list) or len(tags) > len(_HARMLESS):
        return False
    for tag in tags:
        match tag:
            case [str() as name, str() as value] if _HARMLESS.get(name) == value:
                continue
        return False
    return len({tag[0] for tag in tags}) == len(tags)


def plain_secret(nonce: str, key: str) -> str:
    """The secret of a coin that only `key` can ever spend; `nonce`: 32 bytes of hex, used once."""
    fields = {"nonce": nonce, "data": key, "tags": [["sigflag", "SIG_INPUTS"]]}
    return json.dumps(["P2PK", fields], separators=(",", ":"))
