"""Which locked coins are ours alone: every harmless form passes, every other is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.plain_lock import SECRET_CHARS_MAX, is_plain_lock, plain_secret

KEY = "02" + "ab" * 32
OTHER = "02" + "cd" * 32


def secret(*tags: object, **fields: Any) -> str:
    body = {"nonce": "00" * 32, "data": KEY, "tags": list(tags)} | fields
    return json.dumps(["P2PK", body], separators=(",", ":"))


@pytest.mark.parametrize(
    "text",
    [
        secret(),
        secret(["sigflag", "SIG_INPUTS"]),
        secret(["n_sigs", "1"], ["sigflag", "SIG_INPUTS"]),
        secret(data="03" + KEY[2:]),
        secret(data="02" + KEY[2:].upper()),
        secret(nonce=""),
        f'["P2PK",{{"nonce":"1","data":"{KEY}"}}]',
        f' [ "P2PK" , {{ "data": "{KEY}", "nonce": "1" }} ] ',
    ],
)
def test_harmless_forms_pass(text: str) -> None:
    assert is_plain_lock(text, KEY)
    assert is_plain_lock(text, "03" + KEY[2:])
    assert not is_plain_lock(text, OTHER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab" * 32,
        "[" * 100_000,
        "[]",
        "7",
        secret().replace("P2PK", "HTLC"),
        secret().replace("P2PK", "p2pk"),
        secret()[:-1] + ",7]",
        secret(data=OTHER),
        secret(data=KEY[2:]),
        secret(data="04" + KEY[2:]),
        secret(data="02" + "ab" * 31),
        secret(data=7),
        secret(nonce=7),
        secret(more=1),
        secret(tags=None),
        secret(tags={}),
        secret(["pubkeys", OTHER]),
        secret(["n_sigs", "2"]),
        secret(["n_sigs", 1]),
        secret(["sigflag", "SIG_ALL"]),
        secret(["sigflag"]),
        secret(["sigflag", "SIG_INPUTS", "SIG_ALL"]),
        secret(["sigflag", "SIG_INPUTS"], ["sigflag", "SIG_INPUTS"]),
        secret(["sigflag", "SIG_INPUTS"], ["n_sigs", "1"], ["locktime", "9"]),
        secret(["locktime", "99999999999"]),
        secret(["refund", OTHER]),
        secret(["n_sigs_refund", "1"]),
        secret(["", ""]),
        secret("sigflag"),
        secret().replace('"tags"', f'"data":"{OTHER}","tags"'),
        secret().replace('"tags"', f'"d\\u0061ta":"{OTHER}","tags"'),
        secret(nonce="0" * SECRET_CHARS_MAX),
    ],
)
def test_every_other_form_is_refused(text: str) -> None:
    assert not is_plain_lock(text, KEY)


values = st.recursive(
    st.sampled_from(["P2PK", KEY, OTHER, "sigflag", "SIG_INPUTS", "locktime", "9"]) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["nonce", "data", "tags", "x"]), inner, max_size=4)
    ),
)


@given(st.text(max_size=80) | values.map(json.dumps))
def test_any_text_gives_an_answer(text: str) -> None:
    assert is_plain_lock(text, KEY) in (True, False)


def test_what_we_make_is_one() -> None:
    secret = plain_secret("ab" * 32, "02" + "cd" * 32)
    assert is_plain_lock(secret, "02" + "cd" * 32)
    assert not is_plain_lock(secret, "02" + "ce" * 32)
