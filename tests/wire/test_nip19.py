"""npub and nprofile: NIP-19's own examples, nostr-sdk's reading, and damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.adapters import keys_sdk
from nostrllm.errors import RemoteError
from nostrllm.wire import bech32
from nostrllm.wire.nip19 import Profile, encode_profile, parse_profile

KEY = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d"
NPROFILE = (
    "nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8gpp4mhxue69uhhytnc9e3k7mgpz4mh"
    "xue69uhkg6nzv9ejuumpv34kytnrdaksjlyr9p"
)


def test_the_examples_of_nip19() -> None:
    profile = Profile(KEY, ("wss://r.x.com", "wss://djbas.sadkb.com"))
    assert parse_profile(NPROFILE) == profile
    assert encode_profile(profile) == NPROFILE
    assert parse_profile(encode_profile(Profile(KEY))) == Profile(KEY)


@given(st.lists(st.from_regex(r"wss://[a-z]{1,20}\.example", fullmatch=True), max_size=4))
def test_nostr_sdk_reads_what_we_write(relays: list[str]) -> None:
    pubkey, found = keys_sdk.parse_profile(encode_profile(Profile(KEY, tuple(relays))))
    assert pubkey == KEY
    assert [url.rstrip("/") for url in found] == relays
    assert parse_profile(keys_sdk.nprofile(KEY, relays)).pubkey == KEY


@pytest.mark.parametrize(
    ("prefix", "data"),
    [
        ("nsec", "00" * 32),
        ("npub", "00" * 31),
        ("nprofile", ""),
        ("nprofile", "00"),
        ("nprofile", "0020" + "00" * 31),
        ("nprofile", "0001ff"),
        ("nprofile", ("0020" + "00" * 32) * 2),
        ("nprofile", "0020" + "00" * 32 + "0101ff"),
    ],
)
def test_refuses(prefix: str, data: str) -> None:
    with pytest.raises(RemoteError):
        parse_profile(bech32.encode(prefix, bytes.fromhex(data), modified=False))


def test_passes_over_what_it_does_not_know() -> None:
    data = bytes.fromhex("0502abcd0020") + bytes.fromhex(KEY)
    assert parse_profile(bech32.encode("nprofile", data, modified=False)) == Profile(KEY)
