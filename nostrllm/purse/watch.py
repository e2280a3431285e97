"""Watch: which of the coins we gave away were taken, so that they need not be kept any longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import structlog

from nostrllm.errors import MintRefused, OutcomeUnknown, RemoteError
from nostrllm.ports import Conflict, Row, Write
from nostrllm.purse.till import Till

log = structlog.get_logger()

Taken = Callable[[str], Sequence[Write]]


async def watch(till: Till, then: Taken) -> list[str]:
    """See Purse.watch_sent."""
    taken: list[str] = []
    rows = await till.store.read("proof_sent")
    for mint_url, group in groupby(rows, key=lambda row: str(row["mint"])):
        try:
            owners = await _taken(till, mint_url, list(group))
        except (MintRefused, OutcomeUnknown, RemoteError) as error:
            log.info("mint_not_watched", mint=mint_url, why=error.message)
            continue
        for owner in owners:
            spent = Write("proof_mark_all", _moved(owner))
            try:
                await till.store.commit(spent, *then(owner))
            except Conflict as conflict:
                log.warning("sent_not_closed", owner=owner[:16], conflict=conflict.name)
            else:
                taken.append(owner)
    return taken


def _moved(owner: str) -> dict[str, str]:
    return {"owner": owner, "from_state": "sent", "to_state": "spent"}


async def _taken(till: Till, mint_url: str, rows: list[Row]) -> list[str]:
    """Owners whose coins are all SPENT."""
    states = await till.mints.at(mint_url).states([row["y"] for row in rows])
    owners = {str(row["owner"]): True for row in rows}
    for row, state in zip(rows, states, strict=True):
        owners[str(row["owner"])] &= state == "SPENT"
    return [owner for owner, spent in owners.items() if spent]
