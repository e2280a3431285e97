"""The request for the rest of an answer, and what both pieces cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.carry_on import can_go_on, rest_of, usage_of
from nostrllm.wire.order import Usage

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


@pytest.mark.parametrize(
    ("more", "task", "can"),
    [
        ({}, "chat", True),
        ({}, "completion", True),
        ({}, "embedding", False),
        ({"tools": [{}]}, "chat", False),
        ({"response_format": {"type": "json_object"}}, "chat", False),
        ({"logprobs": False}, "chat", True),
    ],
)
def test_only_texts_go_on(more: dict[str, Any], task: str, can: bool) -> None:
    assert can_go_on(CHAT | more, task) is can


def test_a_chat_ends_with_the_unfinished_message() -> None:
    assert rest_of(CHAT, "chat", "It", 1, "none") is None
    rest = rest_of(CHAT, "chat", "It", 1, "message")
    assert rest == CHAT | {"messages": [*CHAT["messages"], {"role": "assistant", "content": "It"}]}
    flagged = rest_of(CHAT, "chat", "It", 1, "flag")
    assert flagged == rest | {"continue_final_message": True, "add_generation_prompt": False}
    assert len(CHAT["messages"]) == 1


def test_a_completion_has_a_longer_prompt() -> None:
    body = {"prompt": "It", "max_tokens": 10}
    assert rest_of(body, "completion", " is", 4, "none") == {"prompt": "It is", "max_tokens": 6}


def test_what_is_written_counts_for_the_limit() -> None:
    assert rest_of(CHAT | {"max_tokens": 4}, "chat", "It", 4, "message") is None
    rest = rest_of(CHAT | {"max_completion_tokens": 5}, "chat", "It", 4, "message")
    assert rest is not None
    assert rest["max_completion_tokens"] == 1


COUNTS = st.integers(0, 1_000)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_each_token_is_counted_once(
    prompt: int, first: int, second: int, cached: int, most: int
) -> None:
    told = Usage(prompt=prompt + first, completion=second, cached=cached)
    found = usage_of(told, first, most)
    assert found.prompt == min(prompt, most)
    assert found.completion == first + second
    assert found.cached <= found.prompt
