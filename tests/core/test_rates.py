"""A rate is trusted as far as its age allows, and never made up."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.rates import (
    MSAT_MAX,
    MSAT_MIN,
    Guard,
    Rate,
    agreed,
    cent_msat,
    jumped,
    moved,
)

NOW = 1_800_000_000
GUARD = Guard(spread_bp=100, stale_bp=500, fresh_s=300, stale_s=3_600)


@pytest.mark.parametrize(
    ("age_s", "margin_bp"),
    [
        (-61, None),
        (-60, 100),
        (0, 100),
        (300, 100),
        (301, 101),
        (1_950, 300),
        (3_600, 500),
        (3_601, None),
    ],
)
def test_the_margin_widens_with_age_until_there_is_no_rate(
    age_s: int, margin_bp: int | None
) -> None:
    assert GUARD.margin_bp(age_s) == margin_bp


@given(st.integers(1, 10**12), st.integers(-100, 4_000), st.integers(0, 300))
def test_an_older_rate_never_counts_for_more(msat: int, age_s: int, older_s: int) -> None:
    rate = Rate(msat, NOW - age_s)
    counted = GUARD.counted(rate, NOW)
    later = GUARD.counted(rate, NOW + older_s)
    if counted is not None:
        assert MSAT_MIN <= counted.msat <= min(msat, MSAT_MAX)
        assert counted.at == rate.at
        if later is not None:
            assert later.msat <= counted.msat


@given(st.integers(1, 10**12), st.integers(-100, 4_000), st.integers(0, 300))
def test_what_is_asked_at_a_rate_never_falls_as_it_grows_old(
    msat: int, age_s: int, older_s: int
) -> None:
    rate = Rate(msat, NOW - age_s)
    asked = GUARD.asked(rate, NOW)
    counted = GUARD.counted(rate, NOW)
    later = GUARD.asked(rate, NOW + older_s)
    if asked is not None:
        assert max(msat, MSAT_MIN) <= asked.msat <= MSAT_MAX
        assert counted is None or counted.msat <= asked.msat
        assert later is None or later.msat >= asked.msat


def test_there_is_no_rate_by_default() -> None:
    assert GUARD.counted(None, NOW) is None
    assert GUARD.asked(None, NOW) is None
    assert GUARD.asked(Rate(70_000, NOW - 3_601), NOW) is None
    assert GUARD.asked(Rate(70_000, NOW), NOW) == Rate(70_700, NOW)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (None, None, False),
        (None, Rate(100, 1), True),
        (Rate(100, 1), None, True),
        (Rate(1_000, 1), Rate(1_010, 2), False),
        (Rate(1_000, 1), Rate(1_011, 2), True),
        (Rate(1_000, 1), Rate(989, 2), True),
    ],
)
def test_a_move_counts_beyond_its_threshold(old: Rate | None, new: Rate | None, said: bool) -> None:
    assert moved(old, new, 100) is said


@pytest.mark.parametrize(
    ("price", "msat"),
    [
        (100_000, 10_000),
        ("97123.45", 10_296),
        (" 50000 ", 20_000),
        (99_999.5, 10_000),
        (Decimal("64000.00"), 15_625),
    ],
)
def test_a_price_of_a_bitcoin_makes_a_cent(price: object, msat: int) -> None:
    assert cent_msat(price) == msat


@pytest.mark.parametrize(
    "price",
    [None, True, [], "", "x", "nan", "inf", 0, -5, "1e400", "1e-400", 10**11, 0.05, "1e13"],
)
def test_what_is_no_price_is_refused(price: object) -> None:
    with pytest.raises(ValueError, match="not a price"):
        cent_msat(price)


@given(st.lists(st.integers(1, 10**9), max_size=7), st.integers(1, 5))
def test_sources_agree_on_their_median(found: list[int], at_least: int) -> None:
    said = agreed(found, at_least)
    if len(found) < at_least:
        assert said is None
    else:
        assert said is not None
        assert sum(one < said for one in found) <= len(found) // 2
        assert sum(one > said for one in found) <= len(found) // 2


@pytest.mark.parametrize(
    ("last", "new", "is_jump"),
    [
        (None, Rate(10_000, NOW), False),
        (Rate(10_000, NOW), Rate(20_000, NOW + 60), False),
        (Rate(10_000, NOW), Rate(20_001, NOW + 60), True),
        (Rate(10_000, NOW), Rate(1_000_000, NOW + 3_600), True),
        (Rate(10_000, NOW), Rate(1_000_000, NOW + 3_601), False),
        (Rate(10_000, NOW), Rate(5_000, NOW + 60), False),
        (Rate(10_000, NOW), Rate(4_999, NOW + 60), True),
    ],
)
def test_a_coin_is_not_suddenly_worth_twice_or_half_as_much(
    last: Rate | None, new: Rate, is_jump: bool
) -> None:
    assert jumped(last, new, GUARD) is is_jump
