"""Scan: find the coins of a seed at a mint when nothing else is left (NUT-09, NUT-13).

Asks for every output number in turn, in batches, until 2,000 in a row are unknown to the mint.
Finding a coin twice changes nothing, so a scan may be repeated at any time.
"""

from __future__ import annotations

from typing import Final

from nostrllm.crypto.bdhke import y_of
from nostrllm.ports import Keyset, Mint
from nostrllm.purse.operation import Operation, Own, proof_write
from nostrllm.purse.till import BadSignature, Till
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof

BATCH: Final = 100
EMPTY_MAX: Final = 2_000


async def scan(till: Till, mint_url: str, unit: str, empty_max: int) -> int:
    """Store the unspent coins found; what those are worth that were not known, in units."""
    mint = till.mints.at(mint_url)
    total = 0
    for keyset in (await mint.keysets(refresh=True)).values():
        if keyset.unit == unit:
            total += await _scan_keyset(till, mint, keyset, empty_max)
    return total


async def _scan_keyset(till: Till, mint: Mint, keyset: Keyset, empty_max: int) -> int:
    start = last = total = 0
    while start - last < empty_max:
        own = [Own(1, start + number) for number in range(BATCH)]
        rows = {till.output(keyset.id, row): row for row in own}
        found = await mint.restore(list(rows))
        start += BATCH
        if found:
            total += await _keep(till, mint, keyset, [(rows[out], out, sig) for out, sig in found])
            last = max(rows[output].counter for output, _ in found) + 1
            await till.counters.raise_to(keyset.id, last)
    return total


async def _keep(
    till: Till,
    mint: Mint,
    keyset: Keyset,
    found: list[tuple[Own, BlindedMessage, BlindSignature]],
) -> int:
    proofs: list[Proof] = []
    for row, output, signature in found:
        try:
            proofs.append(till.unblind(row, output, signature, keyset))
        except BadSignature:
            continue  # not money
    states = await mint.states([y_of(proof.secret) for proof in proofs])
    origin = Operation("scan", "receive", mint.url, keyset.unit, 0, 0, (), ())
    writes = [
        proof_write("proof_found", proof, origin, Own(proof.amount, 0))
        for proof, state in zip(proofs, states, strict=True)
        if state == "UNSPENT"
    ]
    stored = await till.store.commit(*writes)
    return sum(int(row["amount"]) for rows in stored for row in rows)
