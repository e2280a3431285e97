"""Where the figures of a written working come from and what it comes to."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.working import result, up_to_result, work

QUESTION = "Tom has 3 bags of twelve apples at $4 a bag and eats half of them. How many are left?"
RIGHT = "He has 3*12=<<3*12=36>>36 apples.\nHe eats 36/2=<<36/2=18>>18.\n#### 18"


def test_a_right_working() -> None:
    seen = work(QUESTION, RIGHT)
    assert (seen.steps, seen.wrong, seen.foreign, seen.odd) == (2, 0, 0, 0)
    assert seen.unused == 1  # the price
    assert seen.final == 18
    assert seen.marked
    assert seen.fits_last
    assert seen.fits_any
    assert not seen.given
    assert not seen.algebra


@pytest.mark.parametrize(
    ("answer", "field", "value"),
    [
        ("3*12=37\n#### 37", "wrong", 1),
        ("3*17=51\n#### 51", "foreign", 1),
        ("3*12=36, 36*0.25=9\n#### 9", "foreign", 0),
        ("3-12=-9\n#### -9", "odd", 1),
        ("3/7=0.428571\n#### 0", "odd", 1),
        ("3*12=36\n36-4=32\n#### 36", "fits_last", False),
        ("3*12=36\n36-4=32\n#### 36", "fits_any", True),
        ("3*12=36\n#### 99", "fits_any", False),
        ("#### 3", "given", True),
        ("#### 3", "unused", 0),
        ("Let x = 3.\n#### 3", "algebra", True),
        ("No idea.", "final", None),
        ("No idea.", "fits_last", False),
        ("It is 5, or 7.", "final", 7),
        ("It is 5, or 7.", "marked", False),
        ("It is −7", "final", -7),
        ("The answer is 6. No, the answer: 8 apples", "final", 8),
        ("\\boxed{4.5} The answer is 6.", "final", Fraction(9, 2)),
        ("#### " + "9" * 30, "final", None),
    ],
)
def test_what_is_seen(answer: str, field: str, value: object) -> None:
    assert getattr(work(QUESTION, answer), field) == value


def test_what_follows_the_result_is_cut_off() -> None:
    assert up_to_result("3+4=7\n#### 7\nQ: next?") == "3+4=7\n#### 7"
    assert up_to_result("no result") == "no result"


def test_the_result_alone() -> None:
    assert result("… #### $1,250") == 1250
    assert result("nothing") is None


@given(st.text(max_size=300), st.text(alphabet="0123456789.+-*/=#<>$ \nanswer", max_size=300))
def test_any_text_is_looked_through(question: str, answer: str) -> None:
    seen = work(question, answer)
    assert seen.wrong <= seen.steps
