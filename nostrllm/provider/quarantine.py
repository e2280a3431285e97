"""After a restore: a provider whose store is older than what he has said and done.

An old copy of the store knows nothing of the orders that came after it was made, and relays deliver
those again. So for as long as a coin can be locked to us, nothing that was written before the
restore is acted on: it is answered from what the mint says of its coins. Locked tokens are swapped
first. What a client can prove by our own signature, his balance, is honoured up to a cap.

A copy is noticed by our own announcement on the relays, which a store is never behind; by a
statement of ours that is newer than its account; or the operator says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import structlog

from nostrllm.core import ledger
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import NostrllmError, RemoteError
from nostrllm.ports import Conflict, Store, Write
from nostrllm.provider.admit import Letter
from nostrllm.provider.announce import Announcer
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import post
from nostrllm.wire import kinds
from nostrllm.wire.event import Event
from nostrllm.wire.order import Statement, embedded_event, parse_statement
from nostrllm.wire.token import find_tokens, normal_url, parse_token

#: The longest locktime that is accepted: until then a locked coin may come that was taken before.
LOCKTIME_S_MAX: Final = 86_400
META: Final = "restored"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Restore:
    """When the store was found to be old, and until when that is of consequence."""

    at: int
    until: int


def restore_write(now_s: int) -> Write:
    """The row that says that the store is an old copy, from now on."""
    value = json.dumps({"at": now_s, "until": now_s + LOCKTIME_S_MAX})
    return Write("meta_set", {"name": META, "value": value})


async def read_restore(store: Store) -> Restore | None:
    """What was written down of the last restore."""
    rows = await store.read("meta_get", name=META)
    if not rows:
        return None
    row = json.loads(rows[0]["value"])
    return Restore(int(row["at"]), int(row["until"]))


class Quarantine:
    """Knows whether the store was restored lately, and what follows."""

    def __init__(self, world: World, shop: Shop, announcer: Announcer) -> None:
        self._world = world
        self._shop = shop
        self._announcer = announcer
        self._restore: Restore | None = None

    async def open(self) -> None:
        """Read what is known, and ask the relays whether we have said more than we know of."""
        self._restore = await read_restore(self._world.store)
        if await self._announcer.is_behind():
            await self.begin("own-announcement")

    @property
    def is_on(self) -> bool:
        """Are locked tokens swapped first, and old messages not acted on?"""
        return self._restore is not None and self._world.now_s() < self._restore.until

    async def begin(self, why: str) -> None:
        """The store is an old copy. It gets a name of its own, so that another daemon which still
        runs on the original sees that it must stop."""
        now = self._world.now_s()
        log.error("store_is_old", why=why, until=now + LOCKTIME_S_MAX)
        await self._world.store.commit(restore_write(now))
        self._restore = await read_restore(self._world.store)
        await self._announcer.rename()

    def is_stale(self, letter: Letter) -> bool:
        """Was it written before the restore, so that it may have been acted on?"""
        restore = self._restore
        return self.is_on and restore is not None and letter.created_at <= restore.at

    async def finding(self, text: str) -> str:
        """What the mint says of the coins in a message that is not acted on."""
        states = set()
        for found in find_tokens(text)[0]:
            try:
                token = parse_token(found)
                if normal_url(token.mint) in self._shop.mints:
                    mint = self._world.mints.at(token.mint)
                    states |= set(await mint.states([y_of(one.secret) for one in token.proofs]))
            except NostrllmError:
                states.add("")
        if not states:
            return "Nothing was taken."
        if states == {"UNSPENT"}:
            return "Its coins are unspent: take them back, or pay again with them."
        return "Its coins were spent: if I took them, the answer is among my older messages."

    # balances

    async def honour(self, author: str, raw: dict[str, Any]) -> None:
        """Make an account what our own newer statement says of it; up to the cap for all together.

        Raises RemoteError for a statement that is not ours, or of another account.
        """
        event, statement = self._proved(author, raw)
        rows = await self._world.store.read("account_get", pubkey=author)
        seq, balance = (int(rows[0]["seq"]), int(rows[0]["balance_msat"])) if rows else (0, 0)
        if statement.seq <= seq:
            return
        if not self.is_on:
            await self.begin("account-statement")
            await self._announcer.publish()
        msat = await self._allowed(statement.balance_msat - balance)
        now = self._world.now_s()
        account = {"pubkey": author, "balance_msat": balance + msat, "seq": statement.seq + 1}
        shown = {"id": event.id, "pubkey": author, "seq": statement.seq, "msat": msat, "at": now}
        try:
            await self._world.store.commit(
                Write("account_restore", {**account, "was": seq}, rows=1),
                Write("honoured_insert", shown),
                *post(f"restored:{event.id}", ledger.restored(author, msat), now),
            )
        except Conflict:  # it moved meanwhile, or this one was honoured just now
            return
        log.warning("statement_honoured", msat=msat, asked_msat=statement.balance_msat - balance)

    def _proved(self, author: str, raw: dict[str, Any]) -> tuple[Event, Statement]:
        event = embedded_event(raw, kinds.STATEMENT, self._world.identity.pubkey)
        if not self._world.keyring.verify(event):
            raise RemoteError("the statement is not mine")
        statement = parse_statement(event)
        if statement.account != author:
            raise RemoteError("the statement is of another account")
        return event, statement

    async def _allowed(self, msat: int) -> int:
        if msat <= 0:
            return msat
        given = int((await self._world.store.read("honoured_sum"))[0]["msat"])
        return min(msat, max(0, self._shop.restored_msat_max - given))
