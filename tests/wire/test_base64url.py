"""Base64 in both alphabets, padded or not."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.wire import base64url


@given(st.binary(max_size=60))
def test_reads_what_it_and_others_write(data: bytes) -> None:
    assert "=" not in base64url.encode(data)
    for text in (base64url.encode(data), base64.b64encode(data).decode()):
        assert base64url.decode(text) == data


@pytest.mark.parametrize("text", ["a", "a!b=", "ab cd", "äöü"])
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  binascii's own words
        base64url.decode(text)
