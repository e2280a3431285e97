"""Change of a locked token: signed by the mint for the client, asked anew, or credited to him."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from nostrllm.core import coins, ledger
from nostrllm.core.money import unit_msat
from nostrllm.ports import Row, Write
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.locked import outputs_of
from nostrllm.provider.reply import Address, Letterbox
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import address_of, post
from nostrllm.purse import Outcome
from nostrllm.wire.event import Event
from nostrllm.wire.order import Problem, Settled, SignedChange, SignedOutput
from nostrllm.wire.token import BlindedMessage

#: These messages follow the result of their order.
POSITION: Final = 1_000

log = structlog.get_logger()


class Handout:
    """Tells clients what became of their change; each message is stored with what it says."""

    def __init__(
        self, world: World, letterbox: Letterbox, settler: Settler, conduct: Conduct
    ) -> None:
        self._world = world
        self._letterbox = letterbox
        self._settler = settler
        self._conduct = conduct

    async def hand_out(self, rows: Sequence[Row], outcome: Outcome) -> None:
        """Put the signatures of a swap that is done into the outbox, each for its client."""
        writes: list[Write] = []
        for row in rows:
            message = Settled(order=row["id"], signed=_signed(row, outcome))
            address = await self._address(row["id"])
            outgoing = await self._letterbox.seal(address, message)
            writes += self._letterbox.store(row["id"], outgoing, first=POSITION)
            writes.append(Write("locked_told", {"id": row["id"]}))
        await self._world.store.commit(*writes)
        self._letterbox.wake()

    async def ask(self, row: Row) -> None:
        """Ask for other outputs, once: the mint signs with another keyset now."""
        if row["asked_at"]:
            return
        problem = Problem(
            code="payment-outputs-stale", message="the mint signs with another keyset now"
        )
        message = Settled(order=row["id"], problem=problem)
        outgoing = await self._letterbox.seal(await self._address(row["id"]), message)
        asked = Write("locked_asked", {"id": row["id"], "at": self._world.now_s()}, rows=1)
        stored = self._letterbox.store(row["id"], outgoing, first=POSITION)
        await self._world.store.commit(asked, *stored)
        self._letterbox.wake()

    async def credit(self, row: Row, *, spoiled: bool = False) -> Row:
        """Put change that the mint will not sign into the client's account; the row as it then is.

        `spoiled`: it was his own outputs that the mint would not sign.
        """
        if spoiled:
            await self._conduct.note(row["author"], "ladder")
        msat = change_msat(row)
        bare = {"id": row["id"], "outputs": "[]", "change_units": 0}
        if not msat:
            await self._world.store.commit(Write("locked_outputs", bare, rows=1))
            return {**row, **bare}
        address = await self._address(row["id"])
        lines = ledger.change_credited(row["id"], row["author"], msat)

        async def writes(statement: Event) -> list[Write]:
            message = Settled(order=row["id"], credit_msat=msat, statement=statement.as_dict())
            outgoing = await self._letterbox.seal(address, message)
            return [
                Write("locked_outputs", bare, rows=1),
                *post(f"credited:{row['id']}", lines, self._world.now_s()),
                *self._letterbox.store(row["id"], outgoing, first=POSITION),
            ]

        await self._settler.credit(row["author"], msat, writes)
        self._letterbox.wake()
        log.warning("change_credited", order=row["id"][:16], spoiled=spoiled)
        return {**row, **bare}

    async def _address(self, order_id: str) -> Address:
        return address_of((await self._world.store.read("order_get", id=order_id))[0])


def change_msat(row: Row) -> int:
    """What a stored token's change is worth."""
    return int(row["change_units"]) * unit_msat(row["unit"])


def chosen(row: Row) -> tuple[BlindedMessage, ...]:
    """Those of the client's outputs that make up his change."""
    outputs = outputs_of(row)
    found = coins.subset([output.amount for output in outputs], int(row["change_units"]))
    return tuple(outputs[index] for index in found or ())


def _signed(row: Row, outcome: Outcome) -> SignedChange:
    signatures = [
        SignedOutput(
            amount=one.output.amount,
            id=one.output.id,
            B_=one.output.B_,
            C_=one.signature.C_,
            e=one.signature.dleq.e,
            s=one.signature.dleq.s,
        )
        for one in outcome.signed
        if one.owner == row["id"] and one.signature.dleq is not None
    ]
    return SignedChange(
        mint=row["mint"], unit=row["unit"], amount=int(row["change_units"]), signatures=signatures
    )
