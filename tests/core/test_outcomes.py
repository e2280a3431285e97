"""Own outcomes correct the router; others' count less; nothing else is remembered for long."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from nostrllm.core.outcomes import (
    EXPLORE,
    OTHERS_MAX,
    PENDING_MAX,
    Learner,
    features,
)
from nostrllm.core.prompt import read

HARD = features(read("prove the theorem of the ring"))
EASY = features(read("name one nice colour please"))


def test_it_learns_which_prompts_gain() -> None:
    dice, learner = random.Random(5), Learner()
    for i in range(600):
        hard = dice.random() < 0.5
        found = HARD if hard else EASY
        strong = learner.gain(0.1, found) > 0.2
        choice = learner.choose(str(i), found, gain=0.1, strong=strong, draw=dice.random())
        right = 0.9 if choice.tier == "strong" or not hard else 0.2
        assert learner.learn(str(i), right)
    assert learner.gain(0.1, HARD) > 0.5
    assert learner.gain(0.1, EASY) == pytest.approx(0.0, abs=0.15)


def test_every_twentieth_goes_the_other_way() -> None:
    dice, learner = random.Random(1), Learner()
    other = 0
    for i in range(4_000):
        choice = learner.choose(str(i), EASY, gain=0.1, strong=i % 2 == 0, draw=dice.random())
        explored = choice.tier != ("strong" if i % 2 == 0 else "weak")
        assert choice.probability == (EXPLORE if explored else 1 - EXPLORE)
        other += explored
    assert other / 4_000 == pytest.approx(EXPLORE, abs=0.015)


def moved(*reviews: tuple[float, float | None]) -> float:
    """How far reviews (quality, trust) of one request move the weak tier's correction."""
    learner = Learner()
    learner.choose("r", EASY, gain=0.0, strong=False, draw=0.5)
    for quality, trust in reviews:
        learner.learn("r", quality, trust=trust)
    return learner.gain(0.0, EASY)


def test_others_count_by_trust_and_together_less_than_one_sight_of_ones_own() -> None:
    own, full, half = moved((0.0, None)), moved((0.0, 1.0)), moved((0.0, 0.5))
    assert own > full > half > 0
    assert full == pytest.approx(OTHERS_MAX * own)
    assert moved(*[(0.0, 1.0)] * 50) == full
    assert moved((0.0, -3.0)) == 0.0
    assert moved((0.0, 1.0), (0.0, None)) == pytest.approx(own, rel=0.1)


def test_what_is_not_known_teaches_nothing() -> None:
    learner = Learner()
    assert not learner.learn("never", 1.0)
    learner.choose("once", EASY, gain=0.0, strong=True, draw=0.5)
    assert learner.learn("once", 7.0)
    assert not learner.learn("once", 1.0)
    for i in range(PENDING_MAX + 1):
        learner.choose(str(i), EASY, gain=0.0, strong=True, draw=0.5)
    assert not learner.learn("0", 1.0)
    assert learner.learn("1", 1.0)


def test_an_empty_prompt_is_learned_from_too() -> None:
    learner = Learner()
    learner.choose("r", {}, gain=0.0, strong=True, draw=0.5)
    assert learner.learn("r", 1.0)
    assert learner.gain(0.2, {}) == 0.2


def trained() -> Learner:
    learner = Learner()
    learner.choose("a", HARD, gain=0.2, strong=True, draw=0.01)
    learner.learn("a", 0.3)
    learner.choose("b", EASY, gain=0.2, strong=True, draw=0.5)
    learner.learn("b", 0.3, trust=0.5)
    return learner


def test_a_snapshot_restores_everything() -> None:
    learner = trained()
    document = json.loads(json.dumps(learner.snapshot()))
    again = Learner.restore(document)
    assert again.snapshot() == learner.snapshot()
    for one in (learner, again):
        one.learn("b", 1.0)
    assert again.gain(0.0, EASY) == learner.gain(0.0, EASY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": {"weak": [[-1, 0.0]], "strong": []}},
        {"weights": {"weak": [[0, float("nan")]], "strong": []}},
        {"pending": [["r", "nobody", 0.5, 0.0, 0.0, []]]},
        {"pending": [["r", "weak", 0.0, 0.0, 0.0, []]]},
    ],
)
def test_a_damaged_snapshot_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of a snapshot"):
        Learner.restore({**trained().snapshot(), **wrong})
