"""What is seen of a prompt: kind, structure, words; the same shape for any text."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.prompt import BUCKETS, FEATURES, READ_MAX, WORDS_MAX, hashed, read, structure

CHOICE = "Which of these is NOT a fruit?\nA. apple\nB. stone\nC. pear\nD. fig\nAnswer:"


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (CHOICE, "choice"),
        ("Pick:\n(A) 1\n(B) 2", "choice"),
        ("A. only one option\nand no other", "open"),
        ("B. begins in the middle\nC. goes on", "open"),
        ("Tom has 3 apples and buys 4 more. How many has he?", "arithmetic"),
        ("Half of twelve is how much?", "arithmetic"),
        ("In 1914 and 1939 wars began.", "open"),
        ("Write a Python function that sorts.", "code"),
        ("What does this do?\n```\nx = 1\n```", "code"),
        ("def f(x):\n    return x", "code"),
        ("SELECT a FROM b", "code"),
        ("int main() {\n return 0;\n}", "code"),
        ("The import of goods and their import duties", "open"),
        ("Why is the sky blue?", "open"),
        ("", "open"),
    ],
)
def test_kinds(prompt: str, kind: str) -> None:
    assert read(prompt).kind == kind


def test_a_question_is_parted_from_its_options() -> None:
    prompt = read(CHOICE)
    assert prompt.stem == "Which of these is NOT a fruit?\n"
    assert prompt.options == ("apple", "stone", "pear", "fig")
    assert prompt.words[:3] == ("which", "of", "these")


def test_options_start_anew_at_every_a() -> None:
    prompt = read("A. a list\nB. of notes\nThen what?\nA. yes\nB. no\nD. left out")
    assert prompt.options == ("yes", "no")


def test_of_a_long_prompt_both_ends_are_read() -> None:
    prompt = read("first " + "x" * 100_000 + " last")
    assert prompt.chars == 100_011
    assert len(prompt.text) == READ_MAX + 1
    assert prompt.text.startswith("first")
    assert prompt.text.endswith("last")


def test_words_are_a_vector_of_length_one() -> None:
    found = hashed(read("the cat and the dog and the bird"))
    assert sum(value * value for value in found.values()) == pytest.approx(1.0)
    assert hashed(read("")) == {}
    assert hashed(read("\ud800 broken"))


def test_only_the_first_words_count() -> None:
    start = "word " * WORDS_MAX
    assert hashed(read(start)) == hashed(read(start + "more of it"))


@given(st.text(max_size=3_000))
def test_any_text_gives_finite_features(text: str) -> None:
    prompt = read(text)
    found = structure(prompt)
    assert len(found) == FEATURES
    assert all(map(isfinite, found))
    assert all(0 <= bucket < BUCKETS for bucket in hashed(prompt))
