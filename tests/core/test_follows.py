"""A follow list survives its blob; what is too long loses its oldest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.follows import FOLLOWS_MAX, pack, unpack


@given(st.integers(0, 50), st.lists(st.integers(0, 2**31 - 1), max_size=50))
def test_a_list_is_read_as_a_set_without_its_author(author: int, follows: list[int]) -> None:
    assert unpack(pack(author, follows)) == sorted(set(follows) - {author})


def test_of_a_long_list_the_newest_count() -> None:
    assert unpack(pack(0, range(1, FOLLOWS_MAX + 3))) == list(range(3, FOLLOWS_MAX + 3))


def test_the_bytes_are_the_same_everywhere() -> None:
    assert pack(9, [258, 1]).hex() == "0100000002010000"
