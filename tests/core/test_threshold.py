"""The share of strong calls is held whatever the scores look like."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.threshold import Recent, is_worth, share_for_budget


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("kind", ["spread", "narrow", "equal", "drifting"])
def test_the_wanted_share_goes_to_the_strong_model(share: float, kind: str) -> None:
    dice, recent, strong = random.Random(3), Recent(window=200), 0
    for i in range(4_000):
        score = {
            "spread": dice.random(),
            "narrow": 0.4 + dice.random() / 1_000,
            "equal": 0.5,
            "drifting": dice.random() * (1 + i / 4_000) / 2,
        }[kind]
        strong += recent.is_strong(score, share, dice.random())
        recent.add(score)
    assert strong / 4_000 == pytest.approx(share, abs=0.04)


def test_nothing_known_and_nothing_wanted() -> None:
    recent = Recent()
    assert recent.rank(0.9, 0.1) == 0.5
    assert recent.is_strong(0.9, 0.5, 0.1)
    assert not recent.is_strong(0.9, 0.4, 0.1)
    assert not Recent([0.1]).is_strong(0.9, 0.0, 1.0)


@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_snapshot_restores_it(scores: list[float]) -> None:
    recent = Recent(scores, window=20)
    again = Recent(recent.snapshot(), window=20)
    assert again.snapshot() == recent.snapshot() == scores[-20:]
    assert again.rank(0.5, 0.5) == recent.rank(0.5, 0.5)


def test_a_budget_says_which_share_it_pays() -> None:
    assert share_for_budget(3.0, 1.0, 5.0) == 0.5
    assert share_for_budget(0.5, 1.0, 5.0) == 0.0
    assert share_for_budget(9.0, 1.0, 5.0) == 1.0
    assert share_for_budget(1.0, 2.0, 2.0) == 1.0


def test_a_gain_is_worth_its_price_or_not() -> None:
    assert is_worth(0.3, 1.0, 2.0, 4.0)
    assert not is_worth(0.2, 1.0, 2.0, 4.0)
