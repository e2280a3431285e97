"""Keys as people write them, read and written; the examples are those of NIP-19 and NIP-49."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.adapters import keys_sdk
from nostrllm.crypto import keys
from nostrllm.errors import ConfigError, LocalError

PUBKEY = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
NPUB = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
SECRET = bytes.fromhex("67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa")
NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
PROFILE_KEY = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d"
NPROFILE = (
    "nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8gpp4mhxue69uhhytnc9e3k7mgpz4"
    "mhxue69uhkg6nzv9ejuumpv34kytnrdaksjlyr9p"
)
NCRYPTSEC = (
    "ncryptsec1qgg9947rlpvqu76pj5ecreduf9jxhselq2nae2kghhvd5g7dgjtcxfqtd67p9m0w57lspw8gsq6yphnm8623"
    "nsl8xn9j4jdzz84zm3frztj3z7s35vpzmqf6ksu8r89qk5z2zxfmu5gv8th8wclt0h4p"
)


def test_public_keys() -> None:
    assert keys_sdk.to_npub(PUBKEY) == NPUB
    for text in (NPUB, PUBKEY, PUBKEY.upper(), f"nostr:{NPUB}", f"  {NPUB}\n"):
        assert keys_sdk.parse_pubkey(text) == PUBKEY


def test_profiles() -> None:
    relays = ("wss://r.x.com", "wss://djbas.sadkb.com")
    assert keys_sdk.parse_pubkey(NPROFILE) == PROFILE_KEY
    assert keys_sdk.parse_profile(f"nostr:{NPROFILE}") == (PROFILE_KEY, relays)
    assert keys_sdk.parse_profile(NPUB) == (PUBKEY, ())
    assert keys_sdk.nprofile(PROFILE_KEY, relays) == NPROFILE


def test_secret_keys() -> None:
    assert keys_sdk.to_nsec(SECRET) == NSEC
    for text in (NSEC, SECRET.hex(), f"{NSEC}\n"):
        assert keys_sdk.parse_secret(text) == SECRET


def test_ncryptsec() -> None:
    secret = keys_sdk.decrypt_ncryptsec(NCRYPTSEC, "nostr")
    assert secret.hex() == "3501454135014541350145413501453fefb02227e449e57cf4d3a3ce05378683"
    with pytest.raises(LocalError):
        keys_sdk.decrypt_ncryptsec(NCRYPTSEC, "Nostr")
    with pytest.raises(ConfigError):
        keys_sdk.decrypt_ncryptsec(NSEC, "nostr")


@pytest.mark.parametrize("text", ["", "npub1", NPUB[:-1], NPROFILE[:-1], "f" * 64, NSEC, "\ud800"])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ConfigError):
        keys_sdk.parse_pubkey(text)


@pytest.mark.parametrize("pubkey", ["", "f" * 64, NPUB])
def test_what_cannot_be_written(pubkey: str) -> None:
    with pytest.raises(ConfigError):
        keys_sdk.to_npub(pubkey)
    with pytest.raises(ConfigError):
        keys_sdk.nprofile(pubkey, ())


def test_a_relay_needs_a_url() -> None:
    with pytest.raises(ConfigError):
        keys_sdk.nprofile(PUBKEY, ["not a url"])


@pytest.mark.parametrize(
    "text", ["", NPUB, NCRYPTSEC, NSEC[:-1], SECRET.hex()[:-1], "f" * 64, "0" * 64, "\ud800"]
)
def test_what_is_no_secret_key(text: str) -> None:
    with pytest.raises(ConfigError):
        keys_sdk.parse_secret(text)


def test_errors_do_not_tell_the_secret() -> None:
    for text in (NSEC[:-1] + "x", SECRET.hex()[:-1] + "g"):
        with pytest.raises(ConfigError) as caught:
            keys_sdk.parse_secret(text)
        shown = "".join(traceback.format_exception(caught.value)[-1:])
        assert text[:20] not in shown
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    with pytest.raises(ConfigError) as caught:
        keys_sdk.parse_pubkey(NSEC)
    assert NSEC[:20] not in str(caught.value)


def test_bad_secret_is_not_written() -> None:
    with pytest.raises(LocalError):
        keys_sdk.to_nsec(bytes(32))


@given(st.text(max_size=80))
def test_parsing_is_total(text: str) -> None:
    with pytest.raises(ConfigError):
        keys_sdk.parse_pubkey(text)
    with pytest.raises(ConfigError):
        keys_sdk.parse_secret(text)


@given(st.integers(1, keys.ORDER - 1).map(lambda number: number.to_bytes(32, "big")))
def test_round_trip(secret: bytes) -> None:
    pubkey = keys.public_key(secret)
    assert keys_sdk.parse_secret(keys_sdk.to_nsec(secret)) == secret
    assert keys_sdk.parse_pubkey(keys_sdk.to_npub(pubkey)) == pubkey
    assert keys_sdk.parse_profile(keys_sdk.nprofile(pubkey, [])) == (pubkey, ())
