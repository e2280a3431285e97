"""Payment requests and what answers them."""

from __future__ import annotations

import json

from nostrllm.core.plain_lock import is_plain_lock
from nostrllm.wire import base64url, bech32, creqb, nip19, payment_request
from tests.fuzz.target import Target, refusing, text_of

KEY = "02" + "ab" * 32


@refusing()
def payment_request_text(data: bytes) -> None:
    found = payment_request.parse_request(text_of(data))
    assert payment_request.parse_request(payment_request.encode_request(found)) == found


@refusing()
def payment_request_cbor(data: bytes) -> None:
    """`data` is the CBOR inside."""
    payment_request.parse_request("creqA" + base64url.encode(data))


@refusing()
def short_request_text(data: bytes) -> None:
    creqb.parse_request(text_of(data))


@refusing()
def short_request_tlv(data: bytes) -> None:
    """`data` is the TLV inside."""
    found = creqb.parse_request(bech32.encode(creqb.PREFIX, data, modified=True))
    assert creqb.parse_request(creqb.encode_request(found)) == found


@refusing()
def payment_payload(data: bytes) -> None:
    text = text_of(data)
    payment_request.is_payload(text)
    found = payment_request.parse_payload(text)
    assert payment_request.parse_payload(payment_request.encode_payload(found)) == found


@refusing()
def nprofile(data: bytes) -> None:
    """`data` is the TLV inside."""
    found = nip19.parse_profile(bech32.encode("nprofile", data, modified=False))
    assert nip19.parse_profile(nip19.encode_profile(found)) == found


def plain_lock(data: bytes) -> None:
    """What is taken for locked to us is JSON that names our key."""
    secret = text_of(data)
    if is_plain_lock(secret, KEY):
        assert KEY[2:] in json.loads(secret)[1]["data"].lower()


TARGETS: dict[str, Target] = {
    "payment_request_text": payment_request_text,
    "payment_request_cbor": payment_request_cbor,
    "short_request_text": short_request_text,
    "short_request_tlv": short_request_tlv,
    "payment_payload": payment_payload,
    "nprofile": nprofile,
    "plain_lock": plain_lock,
}
