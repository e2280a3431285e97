"""Server-sent events are cut the same way however the network cuts the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.adapters.sse import EventStream
from nostrllm.errors import EngineError

STREAM = (
    b"\xef\xbb\xbf: hello\r\n\r\n"
    b"data: one\n\n"
    b"event: x\nid: 1\nretry: 5\ndata:two\ndata:  three\n\n"
    b"data\r\rdata: f\xc3\xbcnf\r\n\r\n"
    b"\n\n: ping\ndata: {}\n\n"
    b"data: cut off"
)
EVENTS = ["one", "two\n three", "", "fünf", "{}"]


def test_every_rule_of_the_standard() -> None:
    """BOM, comments, unknown fields, joined data, all three line ends, the unfinished event."""
    assert EventStream().feed(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    """Whatever the packets, the events are the same."""
    edges = [0, *sorted(cuts), len(STREAM)]
    stream = EventStream()
    found = []
    for start, end in pairwise(edges):
        found += stream.feed(STREAM[start:end])
    assert found == EVENTS


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_taken(blocks: list[bytes]) -> None:
    """No bytes are an error but too many."""
    stream = EventStream()
    for block in blocks:
        assert all(isinstance(event, str) for event in stream.feed(block))


def test_line_without_end_is_refused() -> None:
    """Memory is bounded when the line end never comes."""
    stream = EventStream(line_bytes_max=100)
    stream.feed(b"data: " + b"x" * 90)
    with pytest.raises(EngineError):
        stream.feed(b"x" * 10)


def test_long_line_in_one_block_is_refused() -> None:
    """The limit holds for a line that came whole, too."""
    with pytest.raises(EngineError):
        EventStream(line_bytes_max=10).feed(b"\ndata: 0123456789\n\n")


def test_event_without_end_is_refused() -> None:
    """Memory is bounded when the blank line never comes."""
    with pytest.raises(EngineError):
        EventStream(event_bytes_max=100).feed(b"data: x\n" * 60)
