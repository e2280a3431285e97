"""What is counted against a key, and what follows from it."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import conduct
from nostrllm.core.conduct import (
    ATTACKS_MAX,
    CAUTION_MAX,
    EXCUSABLE,
    FREE,
    FRESH_S,
    KINDS,
    STRANGERS_MAX,
    WINDOW_S,
    Kind,
    Tally,
    standing,
)

NOW: Final = 1_800_000_000


def after(times: int, now_s: int = NOW) -> Tally:
    tally = Tally()
    for _ in range(times):
        tally = tally.counted(now_s)
    return tally


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_within_an_hour_are_forgiven_and_more_are_not(kind: Kind) -> None:
    few, more = after(CAUTION_MAX), after(CAUTION_MAX + 1)
    assert standing({kind: few}, NOW) == "allowed"
    assert standing({kind: more}, NOW) == "swap_first"
    assert standing({kind: more}, NOW + WINDOW_S) == "swap_first"  # until it pays
    assert standing({kind: more.forgiven()}, NOW) == "allowed"
    assert more.forgiven().count == CAUTION_MAX + 1
    assert standing({kind: few.counted(NOW + WINDOW_S)}, NOW + WINDOW_S) == "allowed"


def test_many_attacks_within_an_hour_shut_the_door_for_that_hour() -> None:
    half = ATTACKS_MAX // 2
    attacks: dict[Kind, Tally] = {"replay": after(half), "dust": after(ATTACKS_MAX - half)}
    assert standing(attacks, NOW) == "swap_first"
    attacks["ladder"] = after(1)
    assert standing(attacks, NOW) == "blocked"
    assert standing(attacks, NOW + WINDOW_S) == "swap_first"
    assert standing({FREE: after(10 * ATTACKS_MAX)}, NOW) == "swap_first"


def test_strangers_together_have_one_count() -> None:
    assert not conduct.wary_of_strangers(after(STRANGERS_MAX), NOW)
    assert conduct.wary_of_strangers(after(STRANGERS_MAX + 1), NOW)
    assert not conduct.wary_of_strangers(after(STRANGERS_MAX + 1), NOW + WINDOW_S)


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_be_a_mistake(kind: Kind) -> None:
    excusable = kind in EXCUSABLE
    late = conduct.is_excused({}, kind, age_s=FRESH_S + 1, stranger=True)
    assert late is (None if excusable else False)
    assert conduct.is_excused({}, kind, age_s=FRESH_S, stranger=True) is excusable
    assert conduct.is_excused({}, kind, age_s=0, stranger=False) is False
    assert conduct.is_excused({kind: Tally()}, kind, age_s=0, stranger=True) is False


@given(st.lists(st.integers(0, 3 * WINDOW_S), max_size=40))
def test_nothing_is_forgotten_and_no_hour_has_more_than_there_was(gaps: list[int]) -> None:
    tally, now, times = Tally(), NOW, []
    for gap in gaps:
        now += gap
        times.append(now)
        tally = tally.counted(now)
    assert tally.count == len(gaps)
    within = sum(now - at < WINDOW_S for at in times)
    assert min(1, len(gaps)) <= tally.recent_at(now) <= max(within, min(1, len(gaps)))
    assert tally.recent_at(now + WINDOW_S) == 0 or tally.since > now
