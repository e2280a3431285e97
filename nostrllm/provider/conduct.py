"""What clients' keys did, counted and remembered, and how each is served for it.

The rows are few and read often, so they are kept in memory too; every count is written down. When
there are too many keys, the one that has been quiet for longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import structlog

from nostrllm.core import conduct
from nostrllm.core.conduct import FREE, Kind, Standing, Tally
from nostrllm.errors import RemoteError, StoreError
from nostrllm.ports import Clock, Row, Store, Write

_T = TypeVar("_T")

#: Keys that something is remembered of.
KEYS_MAX: Final = 10_000
#: Keys that are known to have paid, or were told that they are blocked.
CACHED_MAX: Final = 4_096

#: A blocked key is told so once in this time; else its messages are dropped.
TOLD_EVERY_S: Final = 3_600

#: Whose count is that of all keys that never paid.
STRANGERS: Final = ""

log = structlog.get_logger()


class Conduct:
    """Counts per key, and what follows from them and from the operator's block list.

    `blocked`: keys that the operator's file names; `block` takes those of his command.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        blocked: Iterable[str] = (),
        *,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._store = store
        self._clock = clock
        self._always = frozenset(blocked)
        self._blocked = self._always
        self._keys_max = keys_max
        self._of: OrderedDict[str, dict[Kind, Tally]] = OrderedDict()
        self._payers: OrderedDict[str, bool] = OrderedDict()
        self._told: OrderedDict[str, float] = OrderedDict()
        self.is_wary_of_all: Callable[[], bool] = lambda: False

    async def open(self) -> None:
        """Read what was written down; once, before anything is counted."""
        for row in await self._store.read("conduct_all"):
            kind = row["kind"]
            if kind in conduct.KINDS:
                self._of.setdefault(str(row["author"]), {})[kind] = tally_of(row)
                self._of.move_to_end(str(row["author"]))

    def block(self, pubkeys: Iterable[str]) -> None:
        """Serve these keys no more, and those of the file; others again."""
        self._blocked = self._always.union(pubkeys)

    async def of(self, author: str) -> Standing:
        """How a key is served: as it asks, with caution, or not at all."""
        if author in self._blocked:
            return "blocked"
        now = self._now_s()
        found = conduct.standing(self._of.get(author, {}), now)
        if found == "allowed" and self.is_wary_of_all():
            return "swap_first"
        if found == "allowed" and self._wary(now) and not await self.has_paid(author):
            return "swap_first"
        return found

    async def check(self, author: str) -> Standing:
        """As `of`. Raises RemoteError `client-blocked`."""
        found = await self.of(author)
        if found == "blocked":
            raise RemoteError("this key is not served here any more", code="client-blocked")
        return found

    async def note(
        self, author: str, kind: Kind, *, said_at: int | None = None, message: str = ""
    ) -> None:
        """Count one more of this kind against a key.

        `said_at`: the created_at of the `message` that did it (its id); without it nothing is
        excused as having come too late.
        """
        stranger = not await self._store.read("conduct_seen", author=author, but=message)
        has_paid = kind != FREE or await self.has_paid(author)
        # No waiting from here to the last count: two notes of one key must both be counted.
        now = self._now_s()
        tallies = self._of.get(author, {})
        age_s = 0 if said_at is None else now - said_at
        excused = conduct.is_excused(tallies, kind, age_s=age_s, stranger=stranger)
        if excused is None:
            return
        tally = tallies.get(kind, Tally())
        tally = Tally(since=now, last_at=now) if excused else tally.counted(now)
        writes = self._put(author, kind, tally)
        if not has_paid:
            strangers = self._of.get(STRANGERS, {}).get(FREE, Tally()).counted(now)
            writes += self._put(STRANGERS, FREE, strangers)
        log.info("client_noted", client=author[:16], kind=kind, count=tally.count)
        await self._write(writes)

    async def paid(self, author: str) -> None:
        """A key paid for an answer: it is served as it asks again."""
        self._know(author)
        cautioned = {k: t for k, t in self._of.get(author, {}).items() if t.recent or t.cautioned}
        writes: list[Write] = []
        for kind, tally in cautioned.items():
            writes += self._put(author, kind, tally.forgiven())
        if writes:
            await self._write(writes)

    def is_told(self, author: str) -> bool:
        """Was a blocked key told so lately? It counts as told from now on."""
        now = self._clock.monotonic()
        told_at = self._told.get(author)
        if told_at is not None and now - told_at < TOLD_EVERY_S:
            return True
        _keep(self._told, author, now)
        return False

    def _put(self, author: str, kind: Kind, tally: Tally) -> list[Write]:
        self._of.setdefault(author, {})[kind] = tally
        self._of.move_to_end(author)
        values = {
            "author": author,
            "kind": kind,
            "count": tally.count,
            "recent": tally.recent,
            "since": tally.since,
            "last_at": tally.last_at,
            "cautioned": int(tally.cautioned),
        }
        writes = [Write("conduct_put", values)]
        while len(self._of) > self._keys_max:
            quiet, _ = self._of.popitem(last=False)
            writes.append(Write("conduct_drop", {"author": quiet}))
        return writes

    async def _write(self, writes: list[Write]) -> None:
        try:
            await self._store.commit(*writes)
        except StoreError as error:  # it is known until the next start: nobody's order is at stake
            log.warning("client_not_noted", code=error.code)

    def _wary(self, now_s: int) -> bool:
        return conduct.wary_of_strangers(self._of.get(STRANGERS, {}).get(FREE, Tally()), now_s)

    async def has_paid(self, author: str) -> bool:
        """Did this key ever pay for an answer?"""
        if author in self._payers:
            return True
        if not await self._store.read("conduct_paid", author=author):
            return False
        self._know(author)
        return True

    def _know(self, author: str) -> None:
        _keep(self._payers, author, True)

    def _now_s(self) -> int:
        return int(self._clock.now())


def _keep(cache: OrderedDict[str, _T], key: str, value: _T) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > CACHED_MAX:
        cache.popitem(last=False)


def tally_of(row: Row) -> Tally:
    """A row of the table."""
    return Tally(
        count=int(row["count"]),
        recent=int(row["recent"]),
        since=int(row["since"]),
        last_at=int(row["last_at"]),
        cautioned=bool(row["cautioned"]),
    )
