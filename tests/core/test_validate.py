"""Answers that look wrong score higher than answers that do not, for every kind of task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrllm.adapters.route_weights import shipped
from nostrllm.core.prompt import read
from nostrllm.core.router import expected_gain
from nostrllm.core.validate import ESCALATE_FROM, Judged, judge

APPLES = "Tom has 3 bags of 12 apples and eats half of them. How many are left?"
PICK = "Which is a fruit?\nA. stone\nB. pear\nAnswer:"
WHY = "Why is the sky blue?"
JSON = "Give me a JSON object with a name."
CODE = "Write a Python function that adds."
SAMPLE = Path(__file__).parent.parent / "data" / "gsm8k-train-sample.jsonl"


def judged(prompt: str, answer: str, **others: Any) -> Judged:
    return judge(read(prompt), prompt, answer, **others)


def codes(prompt: str, answer: str, **others: Any) -> set[str]:
    return {one.code for one in judged(prompt, answer, **others).findings} - {"length"}


@pytest.mark.parametrize(
    ("prompt", "answer", "found"),
    [
        (APPLES, "3*12=36\n36/2=18\n#### 18", set()),
        (APPLES, "3*12=36\n36/2=18\n#### 18\nQ: I'm sorry, I cannot help?", set()),
        (APPLES, "3*12=35\n35+1=36\n#### 36", {"sum-wrong"}),
        (APPLES, "3*12=35\n35+3=40\n#### 40", {"sum-wrong"}),
        (APPLES, "3*12=36\n36/12=3\n3-12=-9\n#### -9", {"step-implausible", "result-negative"}),
        (APPLES, "3*12=36\n36/24=1.5\n#### 1.5", {"result-fraction"}),
        (APPLES, "3*12=36\n36-36=0\n#### 0", {"result-zero"}),
        (APPLES, "3*12=36\n36*17=612\n#### 612", {"figure-foreign"}),
        (APPLES, "3*12=36\n36*17=612\n612*19=11628\n#### 11628", {"figure-foreign"}),
        (APPLES, "3*2=6\n#### 6", {"figure-unused"}),
        (APPLES, "3*12=36\n36/2=18\n#### 36", {"result-not-computed"}),
        (APPLES, "3*12=36\n36/2=18\n#### 77", {"result-not-computed"}),
        (APPLES, "3*12=36\n36/2=18, so 18.", {"result-unmarked"}),
        (APPLES, "Let x = 36.\n#### 18", {"algebra", "no-working"}),
        (APPLES, "#### 12", {"no-working", "result-given"}),
        (APPLES, "Nobody knows.", {"no-result", "no-working"}),
        (APPLES, "Assuming 3*12=36\n36/2=18\n#### 18", {"hedging"}),
        (APPLES, " \n", {"empty"}),
        (PICK, "B", set()),
        (PICK, "The pear", set()),
        (PICK, "C", {"option-unknown"}),
        (PICK, "None of them.", {"no-option"}),
        (WHY, "Because short waves are scattered more.", set()),
        (WHY, "I'm sorry, I can't help with that.", {"refusal", "hedging"}),
        (WHY, "blue " * 100 + "and so", {"cut-off", "repetition"}),
        (WHY, "Потому что короткие волны рассеиваются.", set()),
        (WHY + " Please tell me.", "Потому что короткие волны рассеиваются.", {"language"}),
        (WHY, "3*12=37\n#### 37", {"sum-wrong"}),
        (JSON, '{"name": "x"}', set()),
        (JSON, "It is x.", {"json-missing"}),
        (CODE, "```python\ndef f(a, b): return a + b\n```", set()),
        (CODE, "```python\ndef f(a, b) return a + b\n```", {"code-broken"}),
    ],
)
def test_findings(prompt: str, answer: str, found: set[str]) -> None:
    assert codes(prompt, answer) == found


def test_a_schema_is_held_against_the_answer() -> None:
    schema = {"type": "object", "required": ["age"]}
    assert codes(WHY, '{"age": 3}', schema=schema) == set()
    assert codes(WHY, '{"name": "x"}', schema=schema) == {"schema"}
    assert codes(WHY, "none", schema=schema) == {"json-missing"}


def test_what_is_wrong_scores_higher_than_what_is_right() -> None:
    right = judged(APPLES, "3*12=36\n36/2=18\n#### 18").score
    wrong = judged(APPLES, "3*12=35\n35/2=17.5\n#### 17.5").score
    assert right < 0.35 < 0.6 < wrong


def test_a_hard_prompt_makes_its_answer_more_doubtful() -> None:
    answer = "3*12=36\n36/2=18\n#### 18"
    scores = [judged(APPLES, answer, gain=gain).score for gain in (-5.0, 0.1, 0.37, 0.6, 5.0)]
    assert scores == sorted(scores)
    assert judged(APPLES, answer, gain=0.37).score == pytest.approx(judged(APPLES, answer).score)


def test_profiles_differ_in_what_they_take() -> None:
    doubtful = judged(APPLES, "3*12=35\n#### 35")
    assert doubtful.escalates("quality")
    assert not doubtful.escalates("cheapest")
    assert all(0 < threshold < 1 for threshold in ESCALATE_FROM.values())


def test_of_a_sum_that_was_changed_the_right_one_is_found() -> None:
    """Reference solutions, and the same with one computed figure off by one."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40
    found = 0
    for row in rows:
        question, right = row["question"], row["answer"]
        start, _, end = right.rpartition("=")
        value, _, after = end.partition(">>")
        wrong = f"{start}={float(value) + 1:g}>>{after}"
        gain = expected_gain(read(question), shipped())
        one = judged(question, right, gain=gain)
        other = judged(question, wrong, gain=gain)
        found += one.score < other.score
        assert "sum-wrong" not in {finding.code for finding in one.findings}
    assert found == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=1_000), st.text(max_size=1_000), st.floats(-10, 10))
def test_any_answer_has_a_score(prompt: str, answer: str, gain: float) -> None:
    assert 0.0 <= judged(prompt, answer, gain=gain).score <= 1.0


@pytest.mark.parametrize("prompt", [APPLES, PICK, WHY, JSON, CODE])
@pytest.mark.parametrize(
    "answer",
    ["9" * 1_000_000, "1+" * 300_000, "(" * 300_000, "=" * 300_000, "```" * 100_000, "\0" * 9_999,
     "a " * 300_000, "<<" * 200_000, "[" * 300_000, "1 + 1 = 2 " * 50_000, "\n" * 500_000,
     "#### " * 100_000, "answer is " * 50_000, "1 a b " * 50_000],
)  # fmt: skip
def test_huge_and_odd_answers_have_a_score(prompt: str, answer: str) -> None:
    assert 0.0 <= judged(prompt, answer).score <= 1.0
