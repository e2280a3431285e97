"""The one form of a lock that we take: a coin only its payee can spend until a time (NUT-11).

Mints read lenient forms differently, and one more key in a tag would let the payer spend alone. So
a locked secret is not read with good will: it must be, byte for byte, what `locked_secret` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from nostrllm.crypto.bdhke import is_point
from nostrllm.errors import RemoteError

#: A locked secret of ours has 330 bytes or so; nothing longer is looked at.
SECRET_CHARS_MAX: Final = 512

_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = re.compile(r"0[23][0-9a-f]{64}")
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,11}")


@dataclass(frozen=True, slots=True)
class Lock:
    """Who can spend a coin: `key` until `locktime` (unix seconds), `refund` too from then on.

    Both keys are compressed, 33 bytes of hex.
    """

    key: str
    locktime: int
    refund: str


def is_locked(secret: str) -> bool:
    """Is this a well-known secret (NUT-10) of any kind? An ordinary one is no JSON list."""
    return secret.lstrip().startswith("[")


def locked_secret(nonce: str, lock: Lock) -> str:
    """The secret of a coin under this lock; `nonce` is 32 bytes of hex, used once."""
    tags = [["sigflag", "SIG_INPUTS"], ["locktime", str(lock.locktime)], ["refund", lock.refund]]
    fields = {"nonce": nonce, "data": lock.key, "tags": tags}
    return json.dumps(["P2PK", fields], separators=(",", ":"))


def parse_locked(secret: str) -> Lock:
    """The lock of a secret. Raises RemoteError `payment-token-locked-wrong` for any other form."""
    try:
        if len(secret) > SECRET_CHARS_MAX:
            raise ValueError
        _, fields = json.loads(secret)
        nonce, key = fields["nonce"], fields["data"]
        locktime, refund = fields["tags"][1][1], fields["tags"][2][1]
        forms = ((_HEX32, nonce), (_KEY, key), (_DIGITS, locktime), (_KEY, refund))
        if not all(form.fullmatch(text) for form, text in forms):
            raise ValueError
        if not (is_point(key) and is_point(refund)):  # a mint may never take such a coin
            raise ValueError
        lock = Lock(key, int(locktime), refund)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _wrong() from None
    if locked_secret(nonce, lock) != secret:
        raise _wrong()
    return lock


def _wrong() -> RemoteError:
    return RemoteError(
        "a coin is not locked in the form that is taken here",
        code="payment-token-locked-wrong",
        fraud="lock-game",
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a payee asks of locks: his `key`, and a locktime within these unix seconds."""

    key: str
    locktime_min: int
    locktime_max: int


def common_lock(secrets: Sequence[str], wanted: Wanted) -> int:
    """The earliest locktime of coins that are all locked as wanted, each with a refund key of its
    own. Raises RemoteError `payment-token-locked-wrong`.
    """
    locks = [parse_locked(secret) for secret in secrets]
    if any(lock.key != wanted.key for lock in locks):
        raise RemoteError("a coin is locked to another key", code="payment-token-locked-wrong")
    _check_refunds([lock.refund for lock in locks], wanted.key)
    if any(not wanted.locktime_min <= lock.locktime <= wanted.locktime_max for lock in locks):
        raise RemoteError(
            f"locktime: {wanted.locktime_min} to {wanted.locktime_max} is taken",
            code="payment-token-locked-wrong",
        )
    return min(lock.locktime for lock in locks)


def _check_refunds(refunds: Collection[str], key: str) -> None:
    if len(set(refunds)) != len(refunds) or key in refunds:
        raise RemoteError(
            "each coin has a refund key of its own",
            code="payment-token-locked-wrong",
            fraud="lock-game",
        )
