"""Ecash as text."""

from __future__ import annotations

import base64

from nostrllm.wire import cbor, token
from tests.fuzz.target import Target, refusing, text_of


@refusing()
def token_text(data: bytes) -> None:
    found = token.parse_token(text_of(data))
    assert token.parse_token(token.encode_token(found)) == found


@refusing()
def token_v3(data: bytes) -> None:
    """`data` is the JSON inside."""
    token.parse_token("cashuA" + base64.urlsafe_b64encode(data).decode())


@refusing()
def token_v4(data: bytes) -> None:
    """`data` is the CBOR inside."""
    token.parse_token("cashuB" + base64.urlsafe_b64encode(data).decode())


def tokens_in_text(data: bytes) -> None:
    token.find_tokens(text_of(data))


@refusing()
def cbor_item(data: bytes) -> None:
    cbor.loads(data)


TARGETS: dict[str, Target] = {
    "token_text": token_text,
    "token_v3": token_v3,
    "token_v4": token_v4,
    "tokens_in_text": tokens_in_text,
    "cbor_item": cbor_item,
}
