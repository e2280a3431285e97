"""Locked: what we sent that only its payee can spend until a time, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass

from nostrllm.core.lock import parse_locked
from nostrllm.crypto.bdhke import y_of
from nostrllm.ports import Row, Write
from nostrllm.purse.till import Till


@dataclass(frozen=True, slots=True)
class Locked:
    """The coins of one send: who can spend them before `locktime` (unix seconds, the mint's
    clock), and their secrets in the order in which the token has them."""

    key: str
    locktime: int
    mint: str
    unit: str
    amount: int
    secrets: tuple[str, ...]


async def lock_of(till: Till, op_id: str) -> Locked | None:
    """How the coins that a send makes are locked; None if they are not, or there is no such."""
    operation = await till.operation(op_id)
    if operation is None:
        return None
    coins = [
        (own, till.secret(output.id, own)[0])
        for own, output in zip(operation.own, operation.outputs, strict=True)
        if own.lock is not None and own.lock[1]
    ]
    if not coins or operation.state in ("REJECTED", "SUSPECT"):
        return None
    coins.sort(key=lambda coin: (-coin[0].amount, y_of(coin[1])))
    key, locktime = coins[0][0].lock or ("", 0)
    secrets = tuple(secret for _, secret in coins)
    return Locked(key, locktime, operation.mint, operation.unit, operation.amount, secrets)


async def out(till: Till) -> dict[str, Locked]:
    """Locked coins that may still be out, by the send that made them."""
    found: dict[str, list[Row]] = {}
    for row in await till.store.read("proof_locked"):
        if '"locktime"' in row["secret"]:  # others never come back
            found.setdefault(row["owner"], []).append(row)
    return {owner: _sum(rows) for owner, rows in found.items()}


def _sum(rows: list[Row]) -> Locked:
    lock = parse_locked(rows[0]["secret"])
    secrets = tuple(row["secret"] for row in rows)
    amount = sum(int(row["amount"]) for row in rows)
    return Locked(lock.key, lock.locktime, rows[0]["mint"], rows[0]["unit"], amount, secrets)


async def taken(till: Till, op_id: str) -> bool:
    """Does the mint say, or did it say before, that coins of this send are spent?

    Raises OutcomeUnknown.
    """
    if await till.store.read("proof_of_owner", owner=op_id, state="spent"):
        return True
    rows = await till.store.read("proof_of_owner", owner=op_id, state="sent")
    if not rows:
        return False
    states = await till.mints.at(rows[0]["mint"]).states([row["y"] for row in rows])
    return "SPENT" in states


def gone(op_id: str) -> Write:
    """The write that lets the coins of a send go, for its payee has them."""
    values = {"owner": op_id, "from_state": "sent", "to_state": "spent"}
    return Write("proof_mark_all", values)
