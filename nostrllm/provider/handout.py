"""Change of a locked token: signed by the mint for the client, asked anew, or credited to him."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from nostrllm.core import coins
from nostrllm.core.money import unit_msat
from nostrllm.ports import Row, Write
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.locked import outputs_of
from nostrllm.provider.reply import Address, Letterbox
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import address_of
from nostrllm.purse import Outcome
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
        """Put what a swap that is done has brought into the outbox, for each client."""
        writes: list[Write] = []
        for row in rows:
            message = await self._settled(row, outcome)
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
        """Have change that the mint will not sign credited with the swap; the row as it then is.

        Not before: it would be cash before the token is ours. `spoiled`: it was the client's own
        outputs that the mint would not sign.
        """
        if spoiled:
            await self._conduct.note(row["author"], "ladder")
        log.warning("change_credited", order=row["id"][:16], spoiled=spoiled)
        await self._world.store.commit(Write("locked_unsigned", {"id": row["id"]}, rows=1))
        return (await self._world.store.read("locked_get", id=row["id"]))[0]

    async def accuse(self, row: Row) -> None:
        """Count it against its author that a token was spent while it was locked to us."""
        await self._conduct.note(row["author"], "double-spend")

    async def _settled(self, row: Row, outcome: Outcome) -> Settled:
        if not row["credit_units"]:
            return Settled(order=row["id"], signed=_signed(row, outcome))
        statement = await self._settler.stated(row["author"])
        credit = int(row["credit_units"]) * unit_msat(row["unit"])
        return Settled(order=row["id"], credit_msat=credit, statement=statement.as_dict())

    async def _address(self, order_id: str) -> Address:
        return address_of((await self._world.store.read("order_get", id=order_id))[0])


def change_msat(row: Row) -> int:
    """What a stored token's change is worth, whether it is to be signed or credited."""
    return (int(row["change_units"]) + int(row["credit_units"])) * unit_msat(row["unit"])


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
