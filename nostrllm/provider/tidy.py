"""Keep the coins few and good: small ones made into large ones while nothing else goes on.

The mint's fee is ours, so it is never spent beyond what the owner has earned; coins of a keyset
near its end are worth nothing afterwards, and are swapped in any case.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.exchange import positions
from nostrllm.core.money import RATED, booked, unit_msat
from nostrllm.errors import NostrllmError
from nostrllm.ports import Conflict, Write
from nostrllm.provider.shop import World
from nostrllm.provider.ticket import post
from nostrllm.purse import Outcome

#: Operations of this name are consolidations.
TIDY: Final = "tidy-"

#: Ledger accounts that are the owner's: what he earned, less what it cost and what he took.
OWN: Final = ("income", "fees", "owner", "lost", "exchange")

log = structlog.get_logger()


class Tidying:
    """Consolidates coins, one swap a mint and unit at a time."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def tidy(self) -> int:
        """Finish what a crash left, then swap what should be. Returns how many swaps it was."""
        purse, done = self._world.purse, 0
        for name, _ in await purse.pending():
            if name.startswith(TIDY):
                await self._guarded(name)
        for mint, unit in await purse.balance():
            done += await self._guarded(f"{TIDY}{secrets.token_hex(8)}", (mint, unit))
        return done

    async def _guarded(self, name: str, where: tuple[str, str] | None = None) -> bool:
        purse = self._world.purse
        try:
            if where is None:
                outcome: Outcome | None = await purse.run(name, self._booked)
            else:
                fee_max = await self._earned(where[1])
                outcome = await purse.consolidate(name, where, fee_max, self._booked)
        except (NostrllmError, Conflict) as error:
            log.info("coins_not_tidied", why=str(error))
            return False
        return outcome is not None and outcome.state == "DONE"

    def _booked(self, outcome: Outcome) -> Sequence[Write]:
        if outcome.state != "DONE" or not outcome.fee:
            return ()
        place = ledger.coins(outcome.mint, outcome.unit)
        lines = ledger.fee_borne(place, outcome.fee * booked(outcome.unit))
        return post(f"fee:{outcome.op_id}", lines, self._world.now_s())

    async def _earned(self, unit: str) -> int:
        """What is the owner's, in coins of a unit."""
        rows = await self._world.store.read("posting_balances")
        found = {str(row["account"]): int(row["msat"]) for row in rows}
        earned = -sum(found.get(name, 0) for name in OWN)
        if unit not in RATED:
            return max(0, earned // unit_msat(unit))
        position = positions(found).get(unit)
        return 0 if position is None else max(0, position.have - position.units_for(-earned))
