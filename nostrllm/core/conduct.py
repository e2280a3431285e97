"""What a client's key has been up to, and how far it is trusted for that.

Attacks and free failures are counted per key and kind, those of the last hour apart. More than a
few within an hour, and the key's tokens are swapped before any work and its answers are not
streamed, until it has paid for one; many attacks within an hour, and it is not served for the rest
of it. Keys cost nothing, so all keys that never paid share one more count of free failures.

Pure: the caller has the clock and keeps the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

Kind = Literal[
    "double-spend",  # the mint says that the coins are spent, and not by us
    "replay",  # coins that were used here before, in another message
    "forged-dleq",  # a coin that its mint never signed
    "dust",  # coins that are hardly worth the swap
    "lock-game",  # a lock by which its maker could have kept the coins
    "ladder",  # blinded messages for change that were used, or do not fit
    "topup-race",  # the coins of a top-up were put into something else at the same time
    "free-failure",  # an order that ended without an answer to charge for
]
Standing = Literal["allowed", "swap_first", "blocked"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FREE: Final[Kind] = "free-failure"

#: Honest clients do these too: somebody sends a token again, or it was spent while a relay slept.
#: Not counted for a message that came late; the first of a key that is not known is let pass.
EXCUSABLE: Final[frozenset[Kind]] = frozenset({"double-spend", "replay", "topup-race"})
FRESH_S: Final = 900

WINDOW_S: Final = 3_600
#: More of one kind than this within a window, and the key is served with caution.
CAUTION_MAX: Final = 3
#: More attacks than this within a window, and it is not served.
ATTACKS_MAX: Final = 20
#: Free failures within a window of all keys together that never paid.
STRANGERS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class Tally:
    """How often: ever, and since `since`, when the window began; times are unix seconds.

    `cautioned`: it was too often, and the key has not paid for an answer since.
    """

    count: int = 0
    recent: int = 0
    since: int = 0
    last_at: int = 0
    cautioned: bool = False

    def recent_at(self, now_s: int) -> int:
        """How often within the window that is open now."""
        return self.recent if now_s - self.since < WINDOW_S else 0

    def counted(self, now_s: int) -> Tally:
        """After one more."""
        recent = self.recent_at(now_s) + 1
        since = self.since if recent > 1 else now_s
        cautioned = self.cautioned or recent > CAUTION_MAX
        return Tally(self.count + 1, recent, since, now_s, cautioned)

    def forgiven(self) -> Tally:
        """After the key paid for an answer; what was counted stays counted."""
        return replace(self, recent=0, cautioned=False)


Tallies = Mapping[Kind, Tally]


def is_excused(tallies: Tallies, kind: Kind, *, age_s: int, stranger: bool) -> bool | None:
    """May this be an honest mistake? None: it is too old to say anything of its sender.

    `stranger`: nothing is known of the key but what it has just sent.
    """
    if kind not in EXCUSABLE:
        return False
    if age_s > FRESH_S:
        return None
    return stranger and not tallies


def standing(tallies: Tallies, now_s: int) -> Standing:
    """How far a key is trusted for what it did."""
    attacks = sum(tally.recent_at(now_s) for kind, tally in tallies.items() if kind != FREE)
    if attacks > ATTACKS_MAX:
        return "blocked"
    return "swap_first" if any(tally.cautioned for tally in tallies.values()) else "allowed"


def wary_of_strangers(free: Tally, now_s: int) -> bool:
    """Did keys that never paid have so many free failures that no such key is trusted now?"""
    return free.recent_at(now_s) > STRANGERS_MAX
