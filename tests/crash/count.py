"""Count every coin: what the mint owes by its own database, and who has it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Count:
    """In units of the mint. `flying`: signed by the mint, not yet stored by who asked."""

    issued: int
    fees: int
    owed: int
    held: tuple[int, ...]
    flying: int

    @property
    def adds_up(self) -> bool:
        """Is what was issued with the parties, on its way to them, or gone in fees?"""
        return self.issued == sum(self.held) + self.flying + self.fees


def _rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path, timeout=30)) as db:
        return db.execute(sql).fetchall()


def count(mint: Path, parties: Sequence[Path]) -> Count:
    """Count at the mint's database, and in the databases of parties whose processes are dead."""
    signed = dict(_rows(mint, "SELECT b_, amount FROM promises WHERE c_ IS NOT NULL"))
    spent = dict(_rows(mint, "SELECT y, amount FROM proofs_used"))
    [[issued]] = _rows(
        mint, "SELECT coalesce(sum(amount), 0) FROM mint_quotes WHERE issued_time > 0"
    )
    owed = sum(signed.values()) - sum(spent.values())
    held = tuple(sum(dict(_coins(path, spent)).values()) for path in parties)
    flying = {output for path in parties for output in _asked(path)} & signed.keys()
    return Count(issued, issued - owed, owed, held, sum(signed[output] for output in flying))


def _coins(path: Path, spent: dict[str, int]) -> Iterator[tuple[str, int]]:
    """The coins that a party has and that can be spent, whatever they are kept for."""
    for y, amount in _rows(path, "SELECT y, amount FROM proof"):
        if y not in spent:
            yield y, amount


def _asked(path: Path) -> Iterator[str]:
    """Outputs of requests of which a party does not know what became."""
    for (body,) in _rows(path, "SELECT body FROM operation WHERE state = 'PREPARED'"):
        yield from (output["B_"] for output in json.loads(body)["outputs"])
