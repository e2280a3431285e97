"""Requests for QR codes: official vectors byte for byte, round trips, and damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import LocalError, RemoteError
from nostrllm.wire import bech32, creqb
from nostrllm.wire.nip19 import Profile, encode_profile, parse_profile
from nostrllm.wire.payment_request import LockWanted, PaymentRequest, Transport
from tests.wire.test_nip19 import KEY
from tests.wire.test_payment_request import as_request, requests, words

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "nut26.json").read_text())["requests"]

profiles = st.builds(
    Profile,
    st.just(KEY),
    st.lists(st.from_regex(r"wss://[a-z]{1,20}\.example", fullmatch=True), max_size=3).map(tuple),
)


def one_form(request: PaymentRequest) -> PaymentRequest:
    """Keys as this form says them: an npub where no relay is named."""
    return replace(
        request,
        transports=tuple(
            replace(one, target=encode_profile(parse_profile(one.target)))
            if one.kind == "nostr"
            else one
            for one in request.transports
        ),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["title"]))
def test_official_requests(vector: dict[str, Any]) -> None:
    wanted = as_request(vector["request"])
    assert creqb.encode_request(wanted) == vector["encoded"]
    for text in (vector["encoded"], vector["encoded"].lower()):
        assert creqb.parse_request(text) == one_form(wanted)


@given(requests, st.lists(profiles, max_size=2), words)
def test_round_trip(request: PaymentRequest, found: list[Profile], url: str) -> None:
    nostr = tuple(Transport("nostr", encode_profile(one), (("n", "17"),)) for one in found)
    request = replace(request, transports=(*nostr, Transport("post", url)))
    assert creqb.parse_request(creqb.encode_request(request)) == request


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (PaymentRequest(description="d" * 70_000), LocalError),
        (PaymentRequest(transports=(Transport("carrier pigeon", "x"),)), LocalError),
        (PaymentRequest(transports=(Transport("nostr", "nonsense"),)), RemoteError),
        (PaymentRequest(lock=LockWanted("RIDDLE", "x")), LocalError),
        (PaymentRequest(lock=LockWanted("P2PK", "x", (("t", "v" * 256),))), LocalError),
    ],
)
def test_what_this_form_cannot_say(request_: PaymentRequest, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        creqb.encode_request(request_)


def written(*fields: tuple[int, str]) -> str:
    """A request of these fields, values in hex."""
    data = b"".join(
        bytes([kind]) + (len(value) // 2).to_bytes(2, "big") + bytes.fromhex(value)
        for kind, value in fields
    )
    return bech32.encode(creqb.PREFIX, data, modified=True)


@pytest.mark.parametrize(
    "text",
    [
        bech32.encode("creqa", b"", modified=True),
        bech32.encode(creqb.PREFIX, b"\1\0", modified=True),
        bech32.encode(creqb.PREFIX, b"\1\0\2a", modified=True),
        written((1, "61"), (1, "62")),
        written((1, "ff")),
        written((2, "01"), (3, "00")),
        written((2, "ff" * 8), (3, "00")),
        written((2, "00" * 8)),
        written((4, "02")),
        written(*[(5, "61")] * 65),
        written((7, "")),
        written((7, "010001000200010a")),
        written((7, "01000101020001ff")),
        written((8, "0100010502000161")),
        written((8, "010001000200016103000205aa")),
    ],
)
def test_requests_out_of_form_are_refused(text: str) -> None:
    with pytest.raises(RemoteError):
        creqb.parse_request(text)


def test_what_we_do_not_know_is_passed_over() -> None:
    text = written((0x63, "01"), (7, "010001090200016103000101"), (1, "61"))
    with pytest.raises(RemoteError, match="tag ends"):
        creqb.parse_request(text)
    text = written((0x63, "01"), (7, "0100010902000161"), (1, "61"))
    assert creqb.parse_request(text) == PaymentRequest(id="a")
