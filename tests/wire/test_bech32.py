"""Bech32 and Bech32m: the vectors of BIP-173 and BIP-350, and damage that must be seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import bech32

#: Valid strings of the two BIPs whose data is a whole number of bytes.
PLAIN = ["A12UEL5L", "a12uel5l", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "?1ezyfcl"]
MODIFIED = ["A1LQFN3A", "a1lqfn3a", "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx", "?1v759aa"]


@pytest.mark.parametrize("text", PLAIN)
def test_official_plain(text: str) -> None:
    assert bech32.encode(*bech32.decode(text, modified=False), modified=False) == text.lower()


@pytest.mark.parametrize("text", MODIFIED)
def test_official_modified(text: str) -> None:
    assert bech32.encode(*bech32.decode(text, modified=True), modified=True) == text.lower()


@given(st.binary(max_size=200), st.booleans())
def test_round_trip_and_case(data: bytes, modified: bool) -> None:
    text = bech32.encode("creqb", data, modified=modified)
    for written in (text, text.upper()):
        assert bech32.decode(written, modified=modified) == ("creqb", data)
    with pytest.raises(RemoteError, match="checksum"):
        bech32.decode(text, modified=not modified)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_one_wrong_letter_is_seen(data: bytes, choice: st.DataObject) -> None:
    text = bech32.encode("creqb", data, modified=True)
    place = choice.draw(st.integers(6, len(text) - 1))
    letter = choice.draw(
        st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l").filter(text[place].__ne__)
    )
    with pytest.raises(RemoteError, match="checksum"):
        bech32.decode(text[:place] + letter + text[place + 1 :], modified=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a" * (bech32.TEXT_CHARS_MAX + 1), "too long"),
        ("creqb1ä", "alphabet"),
        ("Creqb1qqqqqq", "mixes"),
        ("nothing", "no prefix"),
        ("1qqqqqqq", "no prefix"),
        ("creqb1qqq", "no prefix"),
        ("creqb1bbbbbbb", "letters"),
    ],
)
def test_refuses(text: str, why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        bech32.decode(text, modified=True)


@pytest.mark.parametrize("values", [[31], [0, 1], [0, 0, 0]])
def test_bits_after_the_end_are_refused(values: list[int]) -> None:
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    checksum = bech32._checksum("a", values, modified=True)
    text = "a1" + "".join(letters[value] for value in [*values, *checksum])
    with pytest.raises(RemoteError, match="bits after"):
        bech32.decode(text, modified=True)
