"""What every operation of a purse works with: rows, mints, time, seed, and numbers for outputs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nostrllm.core.lock import Lock, locked_secret
from nostrllm.core.plain_lock import plain_secret
from nostrllm.crypto import bdhke, nut13
from nostrllm.crypto.bdhke import public_key_of
from nostrllm.crypto.keys import derive
from nostrllm.errors import OutcomeUnknown, RemoteError
from nostrllm.ports import Clock, Keyset, Mint, Mints, Store, Write
from nostrllm.purse.operation import Operation, Own
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof

#: Counters taken from the store at once; a restart skips what is left of them.
BLOCK: Final = 256


Outputs = tuple[BlindedMessage, ...]


class BadSignature(Exception):
    """The mint's signature on an output does not verify, or it has no proof that it does."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how fast an operation is tried in one run.

    `lands_s`: how long after it was sent a request may still reach the mint, if nothing was heard
    of it; until then a melt is not given up.
    """

    tries: int = 5
    first_s: float = 0.1
    most_s: float = 5.0
    lands_s: float = 600.0

    def pause_s(self, attempt: int) -> float:
        """How long to wait before try number `attempt` (1 = the second), with jitter."""
        most_s: float = min(self.most_s, self.first_s * 2 ** (attempt - 1))
        return most_s * random.uniform(0.5, 1.0)


class Counters:
    """Output numbers, each used once: taken from the store in blocks, before they are used."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._blocks: dict[str, tuple[int, int]] = {}

    async def take(self, keyset_id: str, count: int) -> int:
        """The first of `count` numbers that nobody has used or will."""
        async with self._lock:
            start, end = self._blocks.get(keyset_id, (0, 0))
            if end - start < count:
                size = max(BLOCK, count)
                write = Write("counter_take", {"keyset_id": keyset_id, "count": size}, rows=1)
                rows = await self._store.commit(write)
                end = int(rows[0][0]["n"])
                start = end - size
            self._blocks[keyset_id] = (start + count, end)
            return start

    async def skip(self, keyset_id: str, count: int) -> None:
        """Leave `count` numbers out: those next in line were used in a past that we lost."""
        async with self._lock:
            write = Write("counter_take", {"keyset_id": keyset_id, "count": count})
            await self._store.commit(write)
            self._blocks.pop(keyset_id, None)

    async def raise_to(self, keyset_id: str, n: int) -> None:
        """Nothing below `n` is used again."""
        async with self._lock:
            await self._store.commit(Write("counter_raise", {"keyset_id": keyset_id, "n": n}))
            self._blocks.pop(keyset_id, None)


@dataclass(frozen=True, slots=True)
class Till:
    """What every operation works with."""

    store: Store
    mints: Mints
    clock: Clock
    seed: bytes
    counters: Counters
    pace: Pace

    async def operation(self, op_id: str) -> Operation | None:
        """The stored operation, if there is one."""
        rows = await self.store.read("operation_get", id=op_id)
        return Operation.from_row(rows[0]) if rows else None

    def secret(self, keyset_id: str, own: Own) -> tuple[str, bytes]:
        """Secret and blinding factor of one of our outputs (NUT-13; the nonce of a locked one)."""
        secret, r = nut13.derive(self.seed, keyset_id, own.counter)
        if own.lock is None:
            return secret, r
        key, locktime = own.lock
        if not locktime:
            return plain_secret(secret, key), r
        refund = public_key_of(self.refund_key(keyset_id, own.counter))
        return locked_secret(secret, Lock(key, locktime, refund)), r

    def refund_key(self, keyset_id: str, counter: int) -> bytes:
        """The secret key that takes back the locked coin of this number; each has its own."""
        return derive(self.seed, "refund", keyset_id, str(counter))

    def output(self, keyset_id: str, own: Own) -> BlindedMessage:
        """The blinded message of one of our outputs."""
        secret, r = self.secret(keyset_id, own)
        return BlindedMessage(own.amount, keyset_id, bdhke.blind(secret, r))

    async def outputs(
        self, keyset_id: str, wanted: Sequence[Own]
    ) -> tuple[Outputs, tuple[Own, ...]]:
        """Fresh outputs like `wanted`, whose counters are ignored; in the order of amounts."""
        start = await self.counters.take(keyset_id, len(wanted))
        rows = sorted(wanted, key=lambda own: own.amount)
        own = tuple(replace(row, counter=start + number) for number, row in enumerate(rows))
        return tuple(self.output(keyset_id, row) for row in own), own

    def unblind(
        self, own: Own, output: BlindedMessage, signature: BlindSignature, keyset: Keyset
    ) -> Proof:
        """The coin. Raises BadSignature without a valid DLEQ (NUT-12)."""
        dleq, key = checked_signature(output, signature, keyset)
        secret, r = self.secret(keyset.id, own)
        C = bdhke.unblind(signature.C_, r, key)
        return Proof(keyset.id, signature.amount, secret, C, Dleq(dleq.e, dleq.s, r.hex()))


def checked_signature(
    output: BlindedMessage, signature: BlindSignature, keyset: Keyset
) -> tuple[Dleq, str]:
    """The proof that the mint signed this output, and the key it is by. Raises BadSignature."""
    key, dleq = keyset.keys.get(signature.amount, ""), signature.dleq
    good = signature.id == keyset.id and bdhke.verify_dleq(output.B_, signature.C_, dleq, key)
    if dleq is None or not good:
        raise BadSignature
    return dleq, key


async def keysets_with(
    mint: Mint, ids: Iterable[str], *, wait: bool = False
) -> Mapping[str, Keyset]:
    """The mint's keysets, asked for anew if one of these (full or short) ids is not among them.

    `wait` until that may be done, so that an id which is not among them then is none. Raises
    OutcomeUnknown.
    """
    names = set(ids)
    for refresh in (False, True):
        keysets = await mint.keysets(refresh=refresh)
        if all(any(known.startswith(name) for known in keysets) for name in names):
            return keysets
    return await mint.keysets(wait=True) if wait else keysets


async def keyset_of(mint: Mint, keyset_id: str) -> Keyset:
    """The keyset with this full id. Raises OutcomeUnknown while the mint does not show it."""
    keyset = (await keysets_with(mint, [keyset_id])).get(keyset_id)
    if keyset is None:
        raise OutcomeUnknown("the mint does not show a keyset that it had")
    return keyset


def keyset_in_use(keysets: Mapping[str, Keyset], unit: str, amounts: Iterable[int]) -> Keyset:
    """The cheapest active keyset of the unit with keys for these amounts.

    Raises RemoteError `payment-mint-unaccepted`.
    """
    needed = set(amounts)
    usable = [
        keyset
        for keyset in keysets.values()
        if keyset.active and keyset.unit == unit and needed <= keyset.keys.keys()
    ]
    if not usable:
        raise RemoteError(
            "the mint has no keys for this unit and amount", code="payment-mint-unaccepted"
        )
    return min(usable, key=lambda keyset: (keyset.fee_ppk, -int(keyset.id[:2]), keyset.id))
