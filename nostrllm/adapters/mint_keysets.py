"""What a mint says of its keysets, checked: the id must follow from the keys (NUT-01, NUT-02).

An id binds us to its keys: a mint that could change them under an old id could mark our coins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nostrllm.crypto.bdhke import is_point, keyset_id_v0, keyset_id_v1
from nostrllm.errors import OutcomeUnknown, RemoteError
from nostrllm.ports import Keyset

KEYSETS_MAX: Final = 512
KEYS_MAX: Final = 128
FEE_PPK_MAX: Final = 1_000_000

_ID = re.compile(r"00[0-9a-f]{14}|01[0-9a-f]{64}")
_UNIT = re.compile(r"[a-z0-9_-]{1,16}")
_AMOUNT = re.compile(r"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of /v1/keysets: a keyset without its keys."""

    id: str
    unit: str
    active: bool
    fee_ppk: int
    final_expiry: int | None

    def with_keys(self, keys: Mapping[int, str]) -> Keyset:
        """The whole keyset."""
        return Keyset(self.id, self.unit, self.active, self.fee_ppk, keys, self.final_expiry)


def listed(body: Mapping[str, Any]) -> list[Listed]:
    """The rows of /v1/keysets; ids and units we have no form for are left out.

    Raises OutcomeUnknown for what cannot be read.
    """
    rows = body.get("keysets")
    if not isinstance(rows, list) or len(rows) > KEYSETS_MAX:
        raise OutcomeUnknown("the mint's keysets cannot be read")
    found = [_row(row) for row in rows]
    return [row for row in found if _ID.fullmatch(row.id) and _UNIT.fullmatch(row.unit)]


def _row(row: object) -> Listed:
    if not isinstance(row, dict):
        raise OutcomeUnknown("the mint's keysets cannot be read")
    fee_ppk, expiry = row.get("input_fee_ppk") or 0, row.get("final_expiry")
    name, unit, active = row.get("id"), row.get("unit"), row.get("active")
    words = isinstance(name, str) and isinstance(unit, str) and isinstance(active, bool)
    fee_fits = isinstance(fee_ppk, int) and 0 <= fee_ppk <= FEE_PPK_MAX
    if not words or not fee_fits or not isinstance(expiry, int | None):
        raise OutcomeUnknown("the mint's keysets cannot be read")
    return Listed(str(name), str(unit), bool(active), int(fee_ppk), expiry)


def keys_of(body: Mapping[str, Any], row: Listed) -> Mapping[int, str]:
    """The keys of /v1/keys/{id}, proved to be those the id stands for.

    Raises OutcomeUnknown for what cannot be read, RemoteError `payment-mint-unaccepted` for a lie.
    """
    sets = body.get("keysets")
    first = sets[0] if isinstance(sets, list) and sets else None
    raw = first.get("keys") if isinstance(first, dict) else None
    if not isinstance(raw, dict) or not 0 < len(raw) <= KEYS_MAX:
        raise OutcomeUnknown("the mint's keys cannot be read")
    keys = {int(amount): key for amount, key in raw.items() if _AMOUNT.fullmatch(amount)}
    whole = len(keys) == len(raw)
    if not whole or not all(isinstance(key, str) and is_point(key) for key in keys.values()):
        raise OutcomeUnknown("the mint's keys cannot be read")
    ids = (keyset_id_v0(keys), keyset_id_v1(keys, row.unit, row.fee_ppk, row.final_expiry))
    if row.id not in ids:
        raise RemoteError(
            "the mint's keyset id does not belong to its keys", code="payment-mint-unaccepted"
        )
    return dict(sorted(keys.items()))
