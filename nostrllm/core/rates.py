"""What a coin is worth whose worth is a rate: a rate of known age, taken with a margin, or none.

Pure. A rate that is young is counted with the spread alone. As it grows old the margin widens, in a
straight line, until it is too old and the unit has no worth here: there is no rate by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from statistics import median_low
from typing import Final

#: Margins and moves are counted in hundredths of a percent.
WHOLE_BP: Final = 10_000

#: A rate that claims to be from further ahead than this is believed no more than a stale one.
AHEAD_S_MAX: Final = 60

#: What one coin may be worth: a cent between a bitcoin of 10 million and one of 0.1 dollars.
MSAT_MIN: Final = 100
MSAT_MAX: Final = 10**10

#: One bitcoin in msat, and a dollar in its coins.
BTC_MSAT: Final = 10**11
CENTS: Final = 100

#: A rate so many times the last one, or that part of it, is a source's mistake until the last one
#: is too old to say anything. By one that is too high a client is credited with sats for a cent,
#: by one that is too low what is priced in dollars is given away.
JUMP: Final = 2


@dataclass(frozen=True, slots=True)
class Rate:
    """One coin of a unit in msat, looked up at unix time `at`."""

    msat: int
    at: int


@dataclass(frozen=True, slots=True)
class Guard:
    """How far a rate is trusted: `spread_bp` off it while it is younger than `fresh_s`, more from
    then on, `stale_bp` at `stale_s`, and not at all after that."""

    spread_bp: int = 100
    stale_bp: int = 500
    fresh_s: int = 300
    stale_s: int = 3_600

    def margin_bp(self, age_s: int) -> int | None:
        """What comes off a rate of this age, in hundredths of a percent; None: no rate."""
        if age_s > self.stale_s or age_s < -AHEAD_S_MAX:
            return None
        if age_s <= self.fresh_s:
            return self.spread_bp
        widened = (self.stale_bp - self.spread_bp) * (age_s - self.fresh_s)
        return self.spread_bp - (-widened // (self.stale_s - self.fresh_s))

    def counted(self, rate: Rate | None, now_s: int) -> Rate | None:
        """What a coin counts for at this time, rounded down; None where that is not known."""
        if rate is None:
            return None
        margin_bp = self.margin_bp(now_s - rate.at)
        if margin_bp is None:
            return None
        msat = rate.msat * (WHOLE_BP - margin_bp) // WHOLE_BP
        return Rate(msat, rate.at) if MSAT_MIN <= msat <= MSAT_MAX else None

    def asked(self, rate: Rate | None, now_s: int) -> Rate | None:
        """What a price in this unit is turned into msat by: the margin is added, rounded up; None
        where the rate is not known."""
        margin_bp = None if rate is None else self.margin_bp(now_s - rate.at)
        if rate is None or margin_bp is None:
            return None
        msat = -(-rate.msat * (WHOLE_BP + margin_bp) // WHOLE_BP)
        return Rate(msat, rate.at) if MSAT_MIN <= msat <= MSAT_MAX else None


def jumped(last: Rate | None, new: Rate, guard: Guard) -> bool:
    """Is the new one not to be believed beside the last one, which may still be counted?"""
    if last is None or guard.margin_bp(max(0, new.at - last.at)) is None:
        return False
    low, high = sorted((last.msat, new.msat))
    return high > low * JUMP


def moved(old: Rate | None, new: Rate | None, by_bp: int) -> bool:
    """Is the new one away from the old one by more than so many hundredths of a percent?"""
    if old is None or new is None:
        return old is not new
    return abs(new.msat - old.msat) * WHOLE_BP > old.msat * by_bp


def cent_msat(usd_per_btc: object) -> int:
    """A cent in msat, rounded down, from the price of a bitcoin as a source gives it: a number, or
    one in a text. Raises ValueError for what cannot be one."""
    if isinstance(usd_per_btc, bool) or not isinstance(usd_per_btc, int | float | str | Decimal):
        raise ValueError("not a price")
    try:
        price = Decimal(str(usd_per_btc).strip())
    except InvalidOperation:
        raise ValueError("not a price") from None
    if not price.is_finite() or price <= 0 or abs(price.adjusted()) > 12:
        raise ValueError("not a price")
    msat = int(BTC_MSAT / (price * CENTS))
    if not MSAT_MIN <= msat <= MSAT_MAX:
        raise ValueError("not a price of a bitcoin in dollars")
    return msat


def agreed(found: Sequence[int], at_least: int) -> int | None:
    """The median of what sources say, the lower one of two; None when too few said anything."""
    return median_low(found) if found and len(found) >= at_least else None
