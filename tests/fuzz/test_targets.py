"""Every target holds on its corpus, on any bytes, and on corpus that was damaged a little."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

STORED = Path(__file__).parent / "corpus"
CORPUS = {
    name: [path.read_bytes() for path in sorted((STORED / name).glob("*"))] for name in TARGETS
}
#: Inputs that broke parsers elsewhere: depth, huge numbers, endless escapes, bytes of no text.
EVIL = [
    b"",
    b"\0",
    b"\xff" * 40,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"9" * 10_000,
    b"1e999",
    b"-",
    b'"\\ud800"',
    b'{"v":1' + b"0" * 5_000 + b"}",
    b"\x9f" * 50_000,
    b"\x9b" + b"\xff" * 8,
    b"\xef\xbb\xbf{}",
    "cashuAcashuB٣𝟛 \u2028".encode() * 500,
]


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """A sample with a stretch of it taken out and other bytes put in."""
    sample = draw(st.sampled_from(samples))
    start = draw(st.integers(0, len(sample)))
    stop = draw(st.integers(start, min(len(sample), start + 20)))
    return sample[:start] + draw(st.binary(max_size=12)) + sample[stop:]


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_known_evil(name: str) -> None:
    for data in (*CORPUS[name], *EVIL):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    samples = CORPUS[name]
    inputs = st.binary(max_size=400) | (damaged(samples) if samples else st.nothing())

    @settings(deadline=None)
    @given(inputs)
    def hold(data: bytes) -> None:
        TARGETS[name](data)

    hold()


def test_every_corpus_has_a_target() -> None:
    stored = {path.name for path in STORED.iterdir()}
    assert stored == {name for name, samples in CORPUS.items() if samples}
