"""Checks of any answer, for and against."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import answer as check


def test_emptiness() -> None:
    assert check.is_empty(" \n--- ")
    assert not check.is_empty("7")


def test_refusals() -> None:
    assert check.is_refusal("I'm sorry, but I cannot help with that.")
    assert check.is_refusal("As an AI language model, I have no opinion.")
    assert not check.is_refusal("The minister refused to help.")


def test_doubt() -> None:
    assert check.hedges("Assuming that it is approximately 3, perhaps.") == 3
    assert check.hedges("They wait 3 minutes.") == 0
    assert check.hedges("Wait, it is 4.") == 1


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        ("word " * 100 + "and the", True),
        ("word " * 100 + "and the end.", False),
        ("short and open", False),
        ("```python\nx = 1", True),
        ("```python\nx = 1\n```", False),
        ("line\n" * 100 + "#### 18", False),
    ],
)
def test_cut_off(answer: str, cut: bool) -> None:
    assert check.is_cut_off(answer) == cut


def test_repetition() -> None:
    assert check.repetition("a b c d e f g h " * 10) > 0.8
    assert check.repetition("one two three four five six seven eight nine") == 0.0
    assert check.repetition("") == 0.0


def test_another_script() -> None:
    english = "Please tell me how this works today."
    russian = "Пожалуйста, скажите мне, как это работает."
    assert check.is_other_script(english, russian)
    assert not check.is_other_script(english, english)
    assert not check.is_other_script("Translate to Russian: " + english, russian)
    assert not check.is_other_script("2+2?", russian)
    assert not check.is_other_script(english, "4")


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("B", "B"),
        ("(c) the third", "C"),
        ("The answer is **D**.", "D"),
        ("A. no\nI think the answer is: B", "B"),
        ("The answer is \\boxed{E}", "E"),
        ("Because of the weather.", None),
        ("", None),
    ],
)
def test_letters(answer: str, chosen: str | None) -> None:
    assert check.letter(answer) == chosen


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here: {"a": [1, 2]} as asked', {"a": [1, 2]}),
        ('```json\n{"a": 2}\n```', {"a": 2}),
        ("```\n[1]\n```", [1]),
        ("```json\n{broken\n```\n[1]", None),
        ("[" * 100_000, None),
        ("none", None),
        ("7", 7),
    ],
)
def test_json(answer: str, value: Any) -> None:
    if value is None:
        with pytest.raises(ValueError, match="no JSON"):
            check.find_json(answer)
    else:
        assert check.find_json(answer) == value


PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("value", "schema", "fits"),
    [
        ({"name": "x", "age": 3}, PERSON, True),
        ({"name": "x", "age": 3.0}, PERSON, True),
        ({"name": "x", "age": 3.5}, PERSON, False),
        ({"age": 3}, PERSON, False),
        ([], PERSON, False),
        ([1, 2], {"type": "array", "items": {"type": "number"}}, True),
        ([1, "2"], {"type": "array", "items": {"type": "number"}}, False),
        ("a", {"enum": ["a", "b"]}, True),
        ("c", {"enum": ["a", "b"]}, False),
        (True, {"type": "integer"}, False),
        (True, {"type": ["boolean", "null"]}, True),
        (None, {"type": ["boolean", "null"]}, True),
        ({"a": {"b": 1}}, {"properties": {"a": {"type": "string"}, "c": {}}}, False),
        (3, {}, True),
        (3, {"type": "unheard-of"}, True),
    ],
)
def test_schemas(value: Any, schema: dict[str, Any], fits: bool) -> None:
    assert check.fits_schema(value, schema) == fits


@pytest.mark.parametrize(
    "schema",
    [{"type": 7, "enum": 3}, {"required": 3, "properties": []}, {"properties": {"a": 1}}],
)
def test_a_schema_that_is_none_is_passed_over(schema: dict[str, Any]) -> None:
    assert check.fits_schema({"a": 1}, schema)


def test_a_schema_without_end_is_bounded() -> None:
    value: list[Any] = []
    schema: dict[str, Any] = {"type": "array"}
    for _ in range(200):
        value, schema = [value], {"items": schema}
    assert check.fits_schema(value, schema)


@pytest.mark.parametrize(
    ("prompt", "answer", "broken"),
    [
        ("", "```python\nx = 1\n```", False),
        ("", "```python\nx = = 1\n```", True),
        ("", "```py\nx = '\\d'\n```", False),
        ("in Python", "```\nx =\n```", True),
        ("", "```\nfree text here\n```", None),
        ("", "```js\nx = = 1\n```", None),
        ("", "def f():\n    return 1", False),
        ("", "def f(:", True),
        ("", "```python\n\0\n```", True),
        ("", "```python\n" + "(" * 5_000 + "\n```", True),
        ("", "no code", None),
    ],
)
def test_code(prompt: str, answer: str, broken: bool | None) -> None:
    assert check.broken_code(prompt, answer) is broken


@given(st.text(max_size=2_000), st.text(max_size=2_000))
def test_any_text_is_checked(prompt: str, answer: str) -> None:
    assert 0.0 <= check.repetition(answer) <= 1.0
    check.is_empty(answer), check.is_refusal(answer), check.is_cut_off(answer)
    check.hedges(answer), check.letter(answer), check.broken_code(prompt, answer)
    check.is_other_script(prompt, answer)
