"""Chunks on both sides: what is shown is always a beginning of the answer, and all of it comes."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import stream
from nostrllm.core.stream import Chunker, Stream

TEXT = st.text(max_size=30)


def shown(seqs: list[int], texts: list[str]) -> tuple[Stream, str]:
    client = Stream()
    return client, "".join(client.push(seq, texts[seq]) for seq in seqs)


def test_chunks_in_order_are_shown_at_once() -> None:
    client = Stream()
    assert [client.push(seq, text) for seq, text in enumerate("abc")] == ["a", "b", "c"]
    assert client.shown_chars == 3
    assert client.finish("abcd") == "d"
    assert not client.diverged


def test_early_chunks_wait_and_doubles_are_ignored() -> None:
    client = Stream()
    assert client.push(2, "c") == ""
    assert client.push(2, "C") == ""
    assert client.push(0, "a") == "a"
    assert client.push(0, "A") == ""
    assert client.push(1, "b") == "bc"
    assert client.finish("abc") == ""
    assert not client.diverged


def test_nothing_is_shown_after_the_end() -> None:
    client = Stream()
    client.push(0, "a")
    assert client.finish("ab") == "b"
    assert not client.open
    assert client.push(1, "b") == ""
    assert client.finish("ab") == ""


def test_a_negative_seq_is_ignored() -> None:
    assert Stream().push(-1, "x") == ""


def test_too_many_waiting_chunks_end_the_stream() -> None:
    client = Stream()
    assert client.push(0, "a") == "a"
    for seq in range(2, 2 + stream.PENDING_MAX):
        assert client.push(seq, "x") == ""
        assert client.open
    assert client.push(1_000, "x") == ""
    assert not client.open
    assert client.push(1, "b") == ""
    assert client.finish("abx") == "bx"
    assert not client.diverged


def test_too_many_waiting_bytes_end_the_stream() -> None:
    client = Stream()
    assert client.push(1, "é" * (stream.PENDING_BYTES_MAX // 2)) == ""
    assert client.open
    assert client.push(2, "x") == ""
    assert not client.open


def test_filling_the_gap_frees_the_buffer() -> None:
    client = Stream()
    client.push(1, "x" * stream.PENDING_BYTES_MAX)
    assert len(client.push(0, "a")) == 1 + stream.PENDING_BYTES_MAX
    client.push(3, "x" * stream.PENDING_BYTES_MAX)
    assert client.open


@pytest.mark.parametrize("full", ["", "a", "abX", "xab"])
def test_another_text_than_was_shown_diverges(full: str) -> None:
    client = Stream()
    client.push(0, "abc")
    assert client.finish(full) == full
    assert client.diverged
    assert client.shown_chars == len(full)


@given(st.lists(TEXT, max_size=12), st.data())
def test_lost_doubled_and_reordered_chunks(texts: list[str], data: st.DataObject) -> None:
    seqs = data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else []
    client, seen = shown(seqs, texts)
    full = "".join(texts)
    assert full.startswith(seen)
    assert seen + client.finish(full) == full
    assert not client.diverged


@given(st.lists(TEXT, max_size=12), st.randoms(use_true_random=False))
def test_all_chunks_in_any_order_are_all_shown(texts: list[str], random: Random) -> None:
    seqs = list(range(len(texts)))
    random.shuffle(seqs)
    assert shown(seqs, texts)[1] == "".join(texts)


@given(st.lists(st.tuples(st.integers(-5, 1 << 40), st.text(max_size=3_000)), max_size=80))
def test_the_buffer_is_bounded(chunks: list[tuple[int, str]]) -> None:
    client = Stream()
    for seq, text in chunks:
        client.push(seq, text)
        assert len(client._pending) <= stream.PENDING_MAX
        size = sum(len(text.encode(errors="surrogatepass")) for text in client._pending.values())
        assert size == client._pending_bytes <= stream.PENDING_BYTES_MAX


def test_first_token_goes_at_once_and_the_rest_by_interval() -> None:
    chunker = Chunker(0.25)
    due = [chunker.due_at]
    assert chunker.push("a", 10.0) == ["a"]
    assert [*due, chunker.due_at] == [None, None]
    assert chunker.push("b", 10.1) == []
    assert chunker.push("c", 10.2) == []
    assert chunker.due_at == 10.25
    assert chunker.poll(10.2) == []
    assert chunker.poll(10.25) == ["bc"]
    assert chunker.poll(11.0) == []
    assert chunker.push("d", 11.0) == ["d"]
    assert chunker.push("e", 11.1) == []
    assert chunker.flush() == ["e"]
    assert chunker.flush() == []


def test_empty_text_is_no_chunk() -> None:
    chunker = Chunker()
    assert chunker.push("", 0.0) == []
    assert chunker.push("a", 0.0) == ["a"]


def test_much_text_does_not_wait() -> None:
    chunker = Chunker()
    chunker.push("a", 0.0)
    assert chunker.push("x" * (stream.CHUNK_BYTES_MAX - 1), 0.01) == []
    assert chunker.push("yz", 0.02) == ["x" * (stream.CHUNK_BYTES_MAX - 1) + "y", "z"]


@pytest.mark.parametrize(("asked", "given_s"), [(0.0, 0.05), (-1.0, 0.05), (9.0, 1.0), (0.5, 0.5)])
def test_interval_is_held_within_limits(asked: float, given_s: float) -> None:
    chunker = Chunker(asked)
    chunker.push("a", 1.0)
    chunker.push("b", 1.0)
    assert chunker.due_at == 1.0 + given_s


@given(st.lists(st.tuples(st.text(max_size=4_000), st.floats(0, 0.5)), max_size=20))
def test_chunks_make_the_text_again(said: list[tuple[str, float]]) -> None:
    chunker, now_s, chunks = Chunker(), 0.0, list[str]()
    for text, pause_s in said:
        now_s += pause_s
        chunks += chunker.push(text, now_s)
    chunks += chunker.flush()
    full = "".join(text for text, _ in said)
    assert "".join(chunks) == full
    assert all(0 < len(c.encode(errors="surrogatepass")) <= 8_000 for c in chunks)
    client = Stream()
    assert "".join(client.push(seq, text) for seq, text in enumerate(chunks)) == full
    assert client.finish(full) == ""


@given(st.text(max_size=60), st.integers(4, 20))
def test_cut_respects_characters(text: str, bytes_max: int) -> None:
    pieces = stream.cut(text, bytes_max)
    assert "".join(pieces) == text
    assert all(len(piece.encode(errors="surrogatepass")) <= bytes_max for piece in pieces)


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        (2, 256),
        (256, 256),
        (257, 512),
        (512, 512),
        (513, 1_024),
        (8_000, 8_192),
        (32_769, 65_535),
        (65_535, 65_535),
        (70_000, 70_000),
    ],
)
def test_padded_sizes(size: int, padded: int) -> None:
    text = '"' + "x" * (size - 2) + '"'
    assert len(stream.pad(text)) == padded
    assert json.loads(stream.pad(text)) == "x" * (size - 2)
    assert stream.unpad(stream.pad(text)) == text


@given(st.text(max_size=600))
def test_padding_is_total(text: str) -> None:
    raw = json.dumps(text, ensure_ascii=False)
    assert len(stream.pad(raw).encode(errors="surrogatepass")) in (256, 512, 1_024, 2_048, 4_096)
    assert stream.unpad(stream.pad(raw)) == raw
    assert stream.pad(stream.unpad(text)).startswith(stream.unpad(text))
