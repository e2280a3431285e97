"""What purse tests share: a purse on a real mint, and a store that crashes on demand."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.mint_cashu import CashuMints, MintLimits
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.crypto.bdhke import y_of
from nostrllm.ports import Row, Store, Write
from nostrllm.purse import Pace, Purse
from nostrllm.wire.token import Token

LIMITS = MintLimits(busy_wait_s=0.01, refresh_wait_s=0.0)
PACE = Pace(tries=6, first_s=0.01, most_s=0.05, lands_s=0.1)


class Crash(BaseException):
    """The process ends here, as far as the code under test can tell."""


class CrashingStore:
    """A store that ends the world before or after its n-th commit (1 = the first)."""

    def __init__(self, store: Store, *, before: int = 0, after: int = 0) -> None:
        self._store = store
        self._before = before
        self._after = after
        self.commits = 0

    async def commit(self, *writes: Write) -> list[list[Row]]:
        self.commits += 1
        if self.commits == self._before:
            raise Crash
        rows = await self._store.commit(*writes)
        if self.commits == self._after:
            raise Crash
        return rows

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        return await self._store.read(name, **values)


@dataclass(frozen=True)
class Wallet:
    """A purse with its parts."""

    purse: Purse
    store: Store
    mints: CashuMints
    seed: bytes
    mint: str

    async def fund(self, amount: int, unit: str = "sat") -> None:
        quote = await self.purse.fund(self.mint, amount, unit)
        outcome = await self.purse.claim_quote(quote.quote, wait_s=10)
        assert outcome.state == "DONE", outcome

    async def worth(self, unit: str = "sat") -> int:
        return (await self.purse.balance()).get((self.mint, unit), 0)

    def again(self, store: Store | None = None) -> Purse:
        """The purse after a restart, possibly on a store that will crash."""
        return Purse(store or self.store, self.mints, SystemClock(), self.seed, pace=PACE)


@asynccontextmanager
async def wallet(folder: Path, mint: str, *, seed: bytes | None = None) -> AsyncIterator[Wallet]:
    """An empty wallet at one mint, in a new file."""
    seed = seed or secrets.token_bytes(32)
    path = folder / f"{secrets.token_hex(4)}.db"
    async with SqliteStore.open(path, ["purse"]) as store, CashuMints(LIMITS) as mints:
        purse = Purse(store, mints, SystemClock(), seed, pace=PACE)
        yield Wallet(purse, store, mints, seed, mint)


async def proofs_unspent(wallet: Wallet, token: Token) -> bool:
    """Does the mint say that every coin of the token can be spent?"""
    ys: Sequence[str] = [y_of(proof.secret) for proof in token.proofs]
    return set(await wallet.mints.at(token.mint).states(ys)) == {"UNSPENT"}
