"""Tokens as text: official vectors, round trips, limits, and no input that breaks the reader."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire.token import (
    AMOUNT_MAX,
    PROOFS_MAX,
    TOKEN_BYTES_MAX,
    BlindedMessage,
    BlindSignature,
    Dleq,
    Proof,
    Token,
    encode_token,
    find_tokens,
    normal_url,
    parse_token,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "nut00.json").read_text())
POINT = "02" + "ab" * 32

hex32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
points = hex32.map(lambda x: "02" + x)
full_ids = hex32.map(lambda x: "01" + x) | st.binary(min_size=7, max_size=7).map(
    lambda x: "00" + x.hex()
)
dleqs = st.builds(Dleq, hex32, hex32, hex32 | st.none())
proofs = st.builds(
    Proof,
    id=full_ids,
    amount=st.integers(1, 1 << 40),
    secret=st.text(st.characters(codec="utf-8"), max_size=100),
    C=points,
    dleq=dleqs | st.none(),
    witness=st.none() | st.text(st.characters(codec="utf-8"), max_size=100),
)
tokens = st.builds(
    Token,
    mint=st.just("https://mint.example/path"),
    unit=st.sampled_from(["sat", "msat", "usd"]),
    proofs=st.lists(proofs, min_size=1, max_size=8, unique_by=lambda p: p.secret).map(tuple),
    memo=st.none() | st.text(st.characters(codec="utf-8"), max_size=40),
)


def v3(body: object) -> str:
    return "cashuA" + base64.urlsafe_b64encode(json.dumps(body).encode()).decode()


def v4(body: object) -> str:
    return "cashuB" + base64.urlsafe_b64encode(cbor2.dumps(body)).decode()


def coin(**changes: Any) -> dict[str, Any]:
    return {"id": "00" * 8, "amount": 2, "secret": "s", "C": POINT} | changes


def body3(*coins: object, **changes: Any) -> dict[str, Any]:
    return {"token": [{"mint": "https://m.example", "proofs": list(coins)}]} | changes


def body4(**changes: Any) -> dict[str, Any]:
    one = {"a": 1, "s": "x", "c": bytes.fromhex(POINT)}
    return {"m": "https://m.example", "u": "sat", "t": [{"i": b"\0" * 8, "p": [one]}]} | changes


@pytest.mark.parametrize("text", VECTORS["tokens"])
def test_official_tokens_are_read_and_written_the_same(text: str) -> None:
    token = parse_token(text)
    if text.startswith("cashuB"):
        assert encode_token(token) == text.rstrip("=")
    assert parse_token(encode_token(token, 3)) == token
    assert parse_token(encode_token(token, 4)) == replace(
        token,
        proofs=tuple(sorted(token.proofs, key=lambda p: [q.id for q in token.proofs].index(p.id))),
    )


def test_official_example_values() -> None:
    token = parse_token(VECTORS["tokens"][0])
    assert (token.mint, token.unit, token.memo) == ("https://8333.space:3338", "sat", "Thank you.")
    assert token.amount == 10
    assert [proof.id for proof in token.proofs] == ["009a1f293253e41e"] * 2


@pytest.mark.parametrize("text", VECTORS["bad_tokens"])
def test_official_bad_tokens_are_refused(text: str) -> None:
    with pytest.raises(RemoteError):
        parse_token(text)


@pytest.mark.parametrize(
    "text",
    [
        "cashuAnot-a-token!",
        "cashuA" + base64.urlsafe_b64encode(b"{").decode(),
        v3([]),
        "cashuBabcdefgh",  # a reserved length of CBOR
        "cashuB/////w==",
        v4("text"),
        v4(body4())[:-9],
    ],
)
def test_a_damaged_token_is_refused_in_words_for_a_person(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_token(text)
    assert caught.value.message == "the token cannot be read; perhaps not all of it was pasted"
    assert caught.value.code == "payment-token-invalid"


@given(tokens)
def test_version_3_round_trip(token: Token) -> None:
    assert parse_token(encode_token(token, 3)) == token


@given(tokens)
def test_version_4_keeps_the_coins_under_short_ids(token: Token) -> None:
    back = parse_token(encode_token(token))
    short = [replace(proof, id=proof.id[:16]) for proof in token.proofs]
    assert sorted(back.proofs, key=repr) == sorted(short, key=repr)
    assert (back.mint, back.unit, back.memo) == (token.mint, token.unit, token.memo)


@given(
    st.text(max_size=200)
    | st.binary(max_size=200).map(lambda data: "cashuB" + base64.urlsafe_b64encode(data).decode())
    | st.binary(max_size=200).map(lambda data: "cashuA" + base64.urlsafe_b64encode(data).decode())
)
def test_any_text_gives_a_token_or_an_error(text: str) -> None:
    try:
        parse_token(text)
    except RemoteError as error:
        if error.code != "payment-token-invalid":
            raise


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["token", "mint", "proofs", "id", "amount", "secret", "C", "dleq", "unit"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_gives_a_token_or_an_error(value: object) -> None:
    for read in (
        lambda: parse_token(v3(value)),
        lambda: parse_token(v3(body3(value))),
        lambda: Proof.from_dict(value),
        lambda: BlindedMessage.from_dict(value),
        lambda: BlindSignature.from_dict(value),
        lambda: Dleq.from_dict(value),
    ):
        try:
            read()
        except RemoteError as error:
            if error.code != "payment-token-invalid":
                raise


@pytest.mark.parametrize(
    "text",
    [
        7,
        "cashuA",
        "cashuC" + "A" * 20,
        "cashuB" + "A" * TOKEN_BYTES_MAX,
        "cashuB!!!!",
        "cashuBA",
        "cashuBé",
        "cashuA" + base64.urlsafe_b64encode(b"[" * 50_000).decode(),
        VECTORS["tokens"][0] + "AAAA",
        VECTORS["tokens"][-1] + "AAAA",
        v3([]),
        v3({"token": []}),
        v3({"token": [{"mint": "https://m.example", "proofs": {}}]}),
        v3(body3()),
        v3(body3(*[coin(secret=str(i)) for i in range(PROOFS_MAX + 1)])),
        v3(body3(coin(), coin())),
        v3(body3(coin(amount=AMOUNT_MAX), coin(secret="t"))),
        v3(body3(coin(amount=0))),
        v3(body3(coin(amount=AMOUNT_MAX + 1))),
        v3(body3(coin(amount=True))),
        v3(body3(coin(amount="2"))),
        v3(body3(coin(id="I2yN+iRYfkzT"))),
        v3(body3(coin(C="04" + "ab" * 32))),
        v3(body3(coin(secret="s" * 1025))),
        v3(body3(coin(secret="\ud800"))),
        v3(body3(coin(witness={"signatures": []}))),
        v3(body3(coin(dleq={"e": "00"}))),
        v3(body3(coin(), unit="SAT!")),
        v3(body3(coin(), memo=7)),
        v3({"token": [{"mint": f"https://{m}.example", "proofs": [coin(secret=m)]} for m in "ab"]}),
        v4([]),
        v4(body4(u=7)),
        v4(body4(t=7)),
        v4(body4(t=[{"i": "00" * 8, "p": []}])),
        v4(body4(t=[{"i": b"\0" * 9, "p": [{"a": 1, "s": "x", "c": bytes(33)}]}])),
        v4(body4(t=[{"i": b"\0" * 8, "p": [{"a": 1, "s": "x", "c": "text"}]}])),
        v4(body4(t=[{"i": b"\0" * 8, "p": [{"a": 1, "s": "x", "c": b"", "d": 1}]}])),
        v4(body4(t=[{"i": b"\0" * 8, "p": [7]}])),
    ],
)
def test_refuses_and_says_no_more_than_it_must(text: object) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_token(text)
    assert caught.value.code == "payment-token-invalid"
    assert len(caught.value.message) < 90


def test_version_4_takes_full_keyset_ids_too() -> None:
    body = body4()
    body["t"][0]["i"] = b"\1" * 33
    assert parse_token(v4(body)).proofs[0].id == "01" * 33


def test_what_a_mint_gets_has_no_blinding_factor() -> None:
    proof = Proof("00" * 8, 1, "s", POINT, Dleq("aa" * 32, "bb" * 32, "cc" * 32), "w")
    assert proof.as_input() == coin(amount=1, witness="w")
    assert Proof.from_dict(proof.as_dict()) == proof
    assert Proof.from_dict(proof.as_input()) == replace(proof, dleq=None)


def test_outputs_and_signatures_round_trip() -> None:
    output = BlindedMessage(4, "01" * 33, POINT)
    assert BlindedMessage.from_dict(output.as_dict()) == output
    for dleq in (None, Dleq("aa" * 32, "bb" * 32)):
        signature = BlindSignature(4, "01" * 33, POINT, dleq)
        assert BlindSignature.from_dict(signature.as_dict()) == signature


TOKEN = "cashuBo2F0gqJhaUgA_9SLj17PgGFwgaNhYQFhc3hA"


@pytest.mark.parametrize(
    ("text", "found", "rest"),
    [
        (f"why is the sky blue? {TOKEN}", [TOKEN], "why is the sky blue?"),
        (f"cashu:{TOKEN}\nhi", [TOKEN], "hi"),
        (f"web+cashu://{TOKEN} hi", [TOKEN], "hi"),
        (f"{TOKEN} and {TOKEN}.", [TOKEN, TOKEN], "and ."),
        ("pay creqAaaaaaaaaaa or CREQB1QQQQQQQQ", [], "pay  or"),
        ("my key is nsec1qqqqqqqqqqq ok", [], "my key is  ok"),
        ("NCRYPTSEC1QQQQQQQQ", [], ""),
        ("cashuA is a prefix, cashuBack is not a token", [], None),
    ],
)
def test_bearer_texts_are_cut_out(text: str, found: list[str], rest: str | None) -> None:
    assert find_tokens(text) == (found, text if rest is None else rest)


@given(st.text(max_size=300))
def test_no_token_is_left_in_any_text(text: str) -> None:
    _, rest = find_tokens(f"{text} {TOKEN} {text}")
    assert TOKEN not in rest


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://Mint.Example/", "https://mint.example"),
        ("HTTPS://mint.example:443/a/b//", "https://mint.example/a/b"),
        ("http://127.0.0.1:3338", "http://127.0.0.1:3338"),
        ("http://[::1]:80/Bitcoin", "http://[::1]/Bitcoin"),
    ],
)
def test_one_form_of_each_url(url: str, normal: str) -> None:
    assert normal_url(url) == normal
    assert normal_url(normal) == normal


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "mint.example",
        "ftp://mint.example",
        "https://",
        "https://user:secret@mint.example",
        "https://mint.example/?q=1",
        "https://mint.example/#f",
        "https://mint.example:99999",
        "https://[::1",
        "https://mint.example/a b",
        "https://mïnt.example",
        "https://m.example/" + "a" * 600,
    ],
)
def test_refuses_other_urls(url: object) -> None:
    with pytest.raises(RemoteError):
        normal_url(url)


@given(st.text(max_size=80))
def test_any_text_gives_a_url_or_an_error(text: str) -> None:
    try:
        assert normal_url("http://" + text)
    except RemoteError:
        return
