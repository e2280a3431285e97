"""Payment requests and payloads: official vectors, round trips, and any input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import base64url
from nostrllm.wire.payment_request import (
    FIELD_CHARS_MAX,
    ITEMS_MAX,
    PAYLOAD_CHARS_MAX,
    TEXT_CHARS_MAX,
    LockWanted,
    Payload,
    PaymentRequest,
    Transport,
    encode_payload,
    encode_request,
    is_payload,
    parse_payload,
    parse_request,
)
from tests.wire.test_token import coin, tokens

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "nut18.json").read_text())["requests"]

words = st.text(st.characters(codec="utf-8"), max_size=30)
tags = st.lists(st.lists(words, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)
amounts = st.integers(0, 1 << 62)
requests = st.builds(
    PaymentRequest,
    id=st.none() | words,
    amount=st.none() | amounts,
    unit=st.sampled_from(["sat", "msat", "usd"]),
    single_use=st.none() | st.booleans(),
    mints=st.lists(words, max_size=4).map(tuple),
    description=st.none() | words,
    transports=st.lists(
        st.builds(Transport, st.sampled_from(["nostr", "post"]), words, tags), max_size=3
    ).map(tuple),
    lock=st.none() | st.builds(LockWanted, st.sampled_from(["P2PK", "HTLC"]), words, tags),
)


def as_request(raw: dict[str, Any]) -> PaymentRequest:
    """What the JSON of a vector says."""

    def pairs(fields: dict[str, Any], name: str) -> tuple[tuple[str, ...], ...]:
        return tuple(map(tuple, fields.get(name, [])))

    lock = raw.get("nut10")
    return PaymentRequest(
        raw.get("i"),
        raw.get("a"),
        raw.get("u"),
        raw.get("s"),
        tuple(raw.get("m", [])),
        raw.get("d"),
        tuple(Transport(one["t"], one["a"], pairs(one, "g")) for one in raw.get("t", [])),
        None if lock is None else LockWanted(lock["k"], lock["d"], pairs(lock, "t")),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["title"]))
def test_official_requests(vector: dict[str, Any]) -> None:
    read, wanted = parse_request(vector["encoded"]), as_request(vector["request"])
    if vector["title"] == "Basic Payment Request":  # its text is of another mint and nprofile
        wanted = replace(wanted, mints=read.mints, transports=read.transports)
        assert read.mints == ("https://nofees.testnut.cashu.space",)
    assert read == wanted
    assert parse_request(encode_request(read)) == read


@given(requests)
def test_round_trip(request: PaymentRequest) -> None:
    assert parse_request(encode_request(request)) == request


def test_fields_we_do_not_know_are_passed_over() -> None:
    text = "creqA" + base64url.encode(cbor2.dumps({"i": "x", "mp": True, "sm": [{"mn": "bolt11"}]}))
    assert parse_request(text) == PaymentRequest(id="x")


@pytest.mark.parametrize(
    "body",
    [
        7,
        {"i": 7},
        {"a": -1, "u": "sat"},
        {"a": True, "u": "sat"},
        {"a": 1 << 63, "u": "sat"},
        {"a": 1},
        {"s": 1},
        {"m": "https://m.example"},
        {"m": [1]},
        {"m": ["m"] * (ITEMS_MAX + 1)},
        {"d": "d" * (FIELD_CHARS_MAX + 1)},
        {"t": [7]},
        {"t": [{"t": "nostr"}]},
        {"t": [{"t": "nostr", "a": "x", "g": [7]}]},
        {"nut10": {"k": "P2PK"}},
        {"nut10": []},
    ],
)
def test_requests_out_of_form_are_refused(body: object) -> None:
    with pytest.raises(RemoteError):
        parse_request("creqA" + base64url.encode(cbor2.dumps(body)))


@pytest.mark.parametrize(
    "text", [None, "", "creqB", "creqA!", "creqA", "creqA" + "A" * TEXT_CHARS_MAX]
)
def test_what_is_no_request_is_refused(text: object) -> None:
    with pytest.raises(RemoteError):
        parse_request(text)


# payloads


@given(
    st.none() | st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=40), tokens
)
def test_payload_round_trip(payment_id: str | None, token: Any) -> None:
    token = replace(
        token,
        mint="https://mint.example/path",
        proofs=tuple(replace(proof, witness=None) for proof in token.proofs),
    )
    payload = Payload(payment_id, token)
    text = encode_payload(payload)
    assert is_payload(text)
    assert parse_payload(text) == payload


def payment(*coins: object, **changes: Any) -> str:
    body = {"id": "abc", "mint": "https://m.example", "unit": "sat", "proofs": list(coins)}
    return json.dumps(body | changes)


def test_what_a_wallet_says_beside_is_passed_over() -> None:
    text = payment(coin(witness={"signatures": []}, p2pk_e="02"), unit=None, more=1)
    payload = parse_payload(text)
    assert payload.id == "abc"
    assert payload.token.unit == "sat"
    assert payload.token.proofs[0].witness is None


@pytest.mark.parametrize("odd", [7, "x" * 300, "a\nb", "\ud800", None])
def test_an_id_that_cannot_be_ours_is_none(odd: object) -> None:
    assert parse_payload(payment(coin(), id=odd)).id is None


@pytest.mark.parametrize(
    "text",
    [
        '{"proofs"',
        '{"proofs":{}}',
        '["proofs"]',
        "[" * 100_000,
        payment(),
        payment(7),
        payment(coin(), coin()),
        payment(*(coin(secret=str(n)) for n in range(257))),
        payment(*({} for _ in range(10_000))),
        payment(coin(), mint="ftp://m.example"),
        payment(coin(), mint=None),
        payment(coin(), unit="SAT"),
        payment(coin(), unit=7),
        payment(coin(), memo=7),
        payment(coin(amount=0)),
        payment(coin(amount=1.0)),
        payment(coin(dleq={"e": "0"})),
        "9" * (PAYLOAD_CHARS_MAX + 1),
    ],
)
def test_payloads_out_of_form_are_refused(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_payload(text)
    assert caught.value.code == "payment-token-invalid"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (' {"id":"x","proofs":[', True),
        ('{"question":1}', False),
        ('What are "proofs"?', False),
        ("", False),
    ],
)
def test_what_is_meant_as_a_payment(text: str, meant: bool) -> None:
    assert is_payload(text) == meant
