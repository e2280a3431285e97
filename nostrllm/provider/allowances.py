"""An owner lets other keys spend from his account: given, listed and taken back.

How much is left is counted in the statement that takes it (provider/draw.py).
"""

from __future__ import annotations

from typing import Final

from nostrllm.core.allowance import Allowance
from nostrllm.crypto.keys import is_public_key
from nostrllm.errors import RemoteError
from nostrllm.ports import Conflict, Row, Write
from nostrllm.provider.admit import Letter
from nostrllm.provider.means import allowance_of
from nostrllm.provider.reply import Letterbox
from nostrllm.provider.shop import World
from nostrllm.wire import order as wire
from nostrllm.wire.amount import sats
from nostrllm.wire.nip19 import Profile, encode_profile

#: Keys that one owner may let spend.
CHILDREN_MAX: Final = 64


class Allowances:
    """The allowances of all accounts."""

    def __init__(self, world: World, letterbox: Letterbox) -> None:
        self._world = world
        self._letterbox = letterbox

    async def of(self, pubkey: str) -> list[Allowance]:
        """Those it gave, and those it was given."""
        return [allowance_of(row) for row in await self._rows(pubkey)]

    async def allow(self, letter: Letter, wish: Allowance) -> None:
        """Give a key an allowance, in place of what it had, and say so. Raises RemoteError."""
        if not is_public_key(wish.child) or wish.child == wish.owner:
            raise RemoteError("an allowance is for another public key")
        others = await self._world.store.read("allowance_count", owner=wish.owner, child=wish.child)
        if int(others[0]["n"]) >= CHILDREN_MAX:
            raise RemoteError(f"{CHILDREN_MAX} keys have an allowance of yours already")
        values = {
            "owner": wish.owner,
            "child": wish.child,
            "grant_id": letter.id,
            "limit_msat": wish.limit_msat,
            "period_s": wish.period_s,
            "expires_at": wish.expires_at,
            "at": self._world.now_s(),
        }
        rest = [one for one in await self._given(wish.owner) if one.child != wish.child]
        await self._answer(letter, Write("allowance_put", values), [*rest, wish])

    async def disallow(self, letter: Letter, child: str) -> None:
        """Take an allowance back; orders that run on it go on. Raises RemoteError `not-found`."""
        rest = await self._given(letter.author)
        if child not in {one.child for one in rest}:
            raise RemoteError("this key has no allowance of yours")
        dropped = Write("allowance_drop", {"owner": letter.author, "child": child})
        await self._answer(letter, dropped, [one for one in rest if one.child != child])

    def states(self, found: list[Allowance]) -> list[wire.AllowanceState]:
        """Allowances as a program is told of them."""
        now = self._world.now_s()
        return [
            wire.AllowanceState(
                owner=one.owner,
                key=one.child,
                limit_msat=one.limit_msat,
                used_msat=one.used_msat_at(now),
                period_s=one.period_s or None,
                expires_at=one.expires_at or None,
            )
            for one in found
        ]

    def text(self, found: list[Allowance]) -> str:
        """Allowances as a person is told of them."""
        if not found:
            return "No other key may spend from your account."
        now = self._world.now_s()
        return "\n".join(
            f"{encode_profile(Profile(one.child))}: {sats(one.left_msat(now))} left of "
            f"{sats(one.limit_msat)}" + (f" per {one.period_s} s" if one.period_s else "")
            for one in found
        )

    async def _given(self, owner: str) -> list[Allowance]:
        return [one for one in await self.of(owner) if one.owner == owner]

    async def _rows(self, pubkey: str) -> list[Row]:
        return await self._world.store.read("allowances_of", pubkey=pubkey)

    async def _answer(self, letter: Letter, change: Write, after: list[Allowance]) -> None:
        """Commit a change with the answer that tells it; once for a letter."""
        said: wire.Answer | list[str]
        if letter.address.dialect == "client":
            said = wire.Answer(to=letter.id, state="done", allowances=self.states(after))
        else:
            said = [self.text(after)]
        outgoing = await self._letterbox.seal(letter.address, said)
        heard = {"id": letter.id, "wrap": letter.wrap, "at": self._world.now_s()}
        stored = self._letterbox.store(letter.id, outgoing)
        try:
            await self._world.store.commit(Write("heard_first", heard), change, *stored)
        except Conflict:
            return  # the same letter, done in the same moment
        self._letterbox.wake()
