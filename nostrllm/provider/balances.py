"""What accounts will hold once all is written that is on its way to the store.

A statement must tell the balance as of its own commit, and it is signed before. What the store has
committed is late by every commit under way, so of orders that run side by side many were signed and
sealed twice. The store commits in the order it is asked, hence what was asked before is foretold
here. It is a guess all the same: each statement goes with a write (`expected`) that holds the
account to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from nostrllm.ports import Store, Write


class Balance(NamedTuple):
    """An account: how many changes there were, and what it holds. None of either: unknown here."""

    seq: int = 0
    msat: int = 0

    def moved(self, msat: int) -> Balance:
        """The account after a change by so many msat; by none, it is as it was."""
        return Balance(self.seq + 1, self.msat + msat) if msat else self


@dataclass(slots=True)
class _UnderWay:
    """So many commits that will change an account, and what it is after the last of them.

    None when one of them failed: what was foretold for those behind it is wrong.
    """

    commits: int
    after: Balance | None


class Balances:
    """Reads accounts, and is told of changes while they are committed.

    Changes that nobody tells of make a statement fail and be made anew, never wrong.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ahead: dict[str, _UnderWay] = {}

    async def of(self, pubkey: str) -> Balance:
        """The account after every change that was told of."""
        ahead = self._ahead.get(pubkey)
        if ahead is not None and ahead.after is not None:
            return ahead.after
        return await committed(self._store, pubkey)

    @contextmanager
    def moving(self, pubkey: str, after: Balance) -> Iterator[None]:
        """While the block commits a change, the account counts as it will be `after` it.

        Nothing may be awaited between reading what the change starts from and the commit, or
        another may come between: that costs another try.
        """
        ahead = self._ahead.setdefault(pubkey, _UnderWay(0, after))
        ahead.commits += 1
        ahead.after = after
        try:
            yield
        except BaseException:
            ahead.after = None
            raise
        finally:
            ahead.commits -= 1
            if not ahead.commits:
                del self._ahead[pubkey]


async def committed(store: Store, pubkey: str) -> Balance:
    """The account as the store has it now."""
    rows = await store.read("account_get", pubkey=pubkey)
    return Balance(int(rows[0]["seq"]), int(rows[0]["balance_msat"])) if rows else Balance()


def expected(pubkey: str, balance: Balance) -> Write:
    """The write that holds an account to what it was taken for; else it is a Conflict."""
    if not balance.seq:
        return Write("account_moved", {"pubkey": pubkey}, rows=0)
    values = {"pubkey": pubkey, "seq": balance.seq, "msat": balance.msat}
    return Write("account_expect", values, rows=1)
