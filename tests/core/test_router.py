"""Heads compute what they say, scores keep the order of gains, and any text has a score."""

from __future__ import annotations

from base64 import b64encode
from itertools import pairwise
from math import exp
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.adapters.route_weights import shipped
from nostrllm.core.prompt import BUCKETS, FEATURES, GENERAL, KINDS, hashed, read
from nostrllm.core.router import Head, Weights, expected_gain, score

ZEROS = [0.0] * FEATURES
ONES = [1.0] * FEATURES


def head(**others: Any) -> dict[str, Any]:
    return {"bias": 0.1, "mean": ZEROS, "scale": ONES, "linear": ZEROS, **others}


def test_a_head_adds_structure_landmarks_and_words() -> None:
    found = Head(
        bias=0.5,
        mean=ZEROS,
        scale=ONES,
        linear=[2.0, *ZEROS[1:]],
        landmarks=[[0.0] * GENERAL],
        pulls=[3.0],
        width=1.0,
        words=[0.0, 1.0, *[0.0] * (BUCKETS - 2)],
    )
    features = [1.0, *ZEROS[1:]]
    assert found.gain(features, {1: 0.25}) == pytest.approx(0.5 + 2 + 3 * exp(-1 / GENERAL) + 0.25)
    assert found.gain([100.0, *ZEROS[1:]], {}) == found.gain([4.0, *ZEROS[1:]], {})


def test_weights_are_read_as_they_were_packed() -> None:
    numbers = [0] * BUCKETS
    numbers[7] = -2
    packed = b64encode(pack(f"<{BUCKETS}h", *numbers)).decode()
    heads = {kind: head() for kind in KINDS} | {"open": head(words=packed, words_step=0.5)}
    weights = Weights.parse({"heads": heads})
    assert weights.heads["open"].words[7] == -1.0
    assert expected_gain(read("Solve 3 + 4 = ?"), weights) == 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"linear": [1.0]},
        {"landmarks": [[0.0] * GENERAL], "pulls": []},
        {"landmarks": [[0.0]], "pulls": [1.0]},
    ],
)
def test_weights_of_another_shape_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a head has"):
        Weights.parse({"heads": dict.fromkeys(KINDS, head(**wrong))})


def test_a_score_is_about_the_gain_where_that_is_positive() -> None:
    gains = [-2.0, -0.5, -0.1, 0.0, 0.1, 0.5, 0.94, 2.0]
    scores = [score(gain) for gain in gains]
    assert all(one < next_one for one, next_one in pairwise(scores))
    assert all(0.0 < one < 1.0 for one in scores)
    assert score(0.5) == pytest.approx(0.5, abs=0.01)


@given(st.text(max_size=4_000) | st.binary(max_size=4_000).map(lambda raw: raw.decode("latin-1")))
def test_any_text_has_a_score(text: str) -> None:
    assert 0.0 <= score(expected_gain(read(text), shipped())) <= 1.0


@pytest.mark.parametrize(
    "text",
    ["x" * 3_000_000, "A.\n" * 200_000, "1 " * 500_000, "(" * 300_000, "\x00\xff" * 100_000, "\n"],
    ids=["long", "options", "figures", "brackets", "binary", "blank"],
)
def test_huge_and_odd_texts_have_a_score(text: str) -> None:
    assert 0.0 <= score(expected_gain(read(text), shipped())) <= 1.0


def test_the_same_text_has_the_same_score_everywhere() -> None:
    # str hashes differ from process to process; these do not
    assert sorted(hashed(read("a b"))) == sorted(hashed(read("A B")))
    assert sorted(hashed(read("a"))) == [0xE8B7BE43 % BUCKETS]
