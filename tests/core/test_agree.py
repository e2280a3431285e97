"""Two answers say the same, or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.agree import agreement
from nostrllm.core.prompt import read

SUM = "Tom has 3 apples and buys 4. How many has he?"
PICK = "Which is a fruit?\nA. stone\nB. pear\nAnswer:"


@pytest.mark.parametrize(
    ("prompt", "one", "other", "same"),
    [
        (SUM, "3+4=7\n#### 7", "He has 7 apples.", 1.0),
        (SUM, "3+4=7\n#### 7", "#### 8", 0.0),
        (SUM, "none", "none", 0.0),
        (PICK, "B", "The answer is B.", 1.0),
        (PICK, "B", "A", 0.0),
        (PICK, "pear", "the pear", 1.0),
        ("Give JSON.", '{"a": 1, "b": 2}', '```json\n{"b": 2, "a": 1}\n```', 1.0),
        ("Give JSON.", '{"a": 1}', '{"a": 2}', 0.0),
        ("Give JSON.", '{"a": 1}', "no", 0.0),
        ("Capital of France?", "Paris", "It is Paris", 0.5),
        ("Capital of France?", "Paris", "Rome", 0.0),
        ("Capital of France?", "", "", 0.0),
    ],
)
def test_agreement(prompt: str, one: str, other: str, same: float) -> None:
    assert agreement(read(prompt), one, other) == same


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_it_is_a_share_and_goes_both_ways(prompt: str, one: str, other: str) -> None:
    asked = read(prompt)
    assert 0.0 <= agreement(asked, one, other) <= 1.0
    if asked.kind != "choice":
        assert agreement(asked, one, other) == agreement(asked, other, one)
