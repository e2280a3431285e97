"""Calculations in texts: what holds, what does not, and what is passed over."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.sums import EQUALITIES_MAX, equalities, evaluate, number, numbers


def holding(text: str) -> list[bool]:
    return [one.holds for one in equalities(text)]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("3 + 4 = 7", [True]),
        ("3 + 4 = 8", [False]),
        ("So she has 16 - 3 - 4 = 9 eggs left.", [True]),
        ("It costs 9 * $2 = $18 a day.", [True]),
        ("9 eggs * $2 per egg = $18", [True]),
        ("9 x 2 = 19", [False]),
        ("1,200 × 3 = 3,600", [True]),
        ("20% of 50 = 10", [True]),
        ("50 * 20% = 11", [False]),
        ("2 + 3 = 5 + 1 = 6", [True, True]),
        ("16 - 3 = 13 - 4 = 9", [True, True]),
        ("16 - 3 = 14 - 4 = 9", [False, False]),
        ("2 * (3 + 4)(2) = 28", [True]),
        ("10 ÷ 4 = 2.5", [True]),
        ("-3 − 4 = -7", [True]),
        ("10 / 3 = 3.33", [True]),
        ("10 / 3 = 3.5", [False]),
        ("10 / 3 = 3", [True]),
        ("10 / 4 = 2", [False]),
        ("40 / 50 = 80%", [True]),
        ("40 / 50 * 100 = 80%", [True]),
        ("She had 2*3=<<2*3=6>>6 cats", [True]),
        ("She had 2*3=<<2*3=7>>7 cats", [False]),
        ("She had 2*3=<<2*3=6>>8 cats", [False]),
        ("She paid <<2*3=6>> and then <<6/2=3>>3.", [True, True]),
        ("<<a+b=6>>6 and 3 + 4 = 8", []),
        ("<<3+4=b>>7", []),
        ("2x + 3 = 7", []),
        ("y = 3 + 4", []),
        ("W + 3 = 7", []),
        ("6:00 + 18 = 24", []),
        ("x = 5", []),
        ("5 = 5", [True]),
        ("5 = 6", []),
        ("3 + 4 =", []),
        ("= 7", []),
        ("3 + 4 = seven", []),
        ("3 / 0 = 7", []),
        ("(3 + 4 = 7", []),
        ("3 + = 3", []),
        ("2 ** 3 = 8", []),
        ("3 + 4", []),
    ],
)
def test_equalities(text: str, held: list[bool]) -> None:
    assert holding(text) == held


def test_operands_are_told() -> None:
    (one,) = equalities("3 * (4 + 20%) = 12.6")
    assert list(map(int, one.operands)) == [3, 4, 20]
    assert (one.left, one.right) == (Fraction(63, 5), Fraction(63, 5))


def test_only_plain_calculations_have_a_value() -> None:
    found = evaluate("3 * 4")
    assert found is not None
    assert found.value == 12
    for text in ("", "abc", "3 4", "3 +", "(3", "9" * 16 + " + 1", "3 ^ 2", "1/0"):
        assert evaluate(text) is None


def test_numbers() -> None:
    assert numbers("1,200 and .5 or 3. Then 7.25%") == [1200, Fraction(1, 2), 3, Fraction(29, 4)]
    assert number("١٢") is None
    assert number("") is None
    assert numbers("9" * 40) == []


def test_there_are_never_too_many() -> None:
    assert len(equalities("1 + 1 = 2\n" * 5_000)) == EQUALITIES_MAX
    assert len(equalities("1 + 1 = 2 " + "+ 0 = 2 " * 5_000)) <= EQUALITIES_MAX


@given(st.text(alphabet="0123456789.,+-*/()=%$ x<>of\nab", max_size=400) | st.text(max_size=400))
def test_any_text_is_read(text: str) -> None:
    for one in equalities(text):
        assert one.holds in (True, False)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from("+-*"))
def test_right_sums_hold_and_wrong_ones_do_not(a: int, b: int, sign: str) -> None:
    right = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert holding(f"{a} {sign} {b} = {right}") == [True]
    off = right + 1
    assert holding(f"{a} {sign} {b} = {off}") == [off in (right * 100, right / 100)]
