"""Ecash as text."""

from __future__ import annotations

import base64

from nostrllm.wire import bech32, cbor, invoice, token
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


@refusing()
def invoice_text(data: bytes) -> None:
    text = text_of(data)
    found = invoice.parse_invoice(text)
    assert found.text == text.lower()
    assert found.expires_at >= found.created_at >= 0
    assert found.amount_msat is None or found.amount_msat > 0


@refusing()
def invoice_fields(data: bytes) -> None:
    """`data` is the words between timestamp and signature, under a checksum that holds."""
    words = [0] * 7 + [byte & 31 for byte in data[:600]] + [0] * 104
    text = bech32.encode_words("lnbc20u", words, modified=False)
    assert len(invoice.parse_invoice(text).payment_hash) == 64


TARGETS: dict[str, Target] = {
    "invoice_text": invoice_text,
    "invoice_fields": invoice_fields,
    "token_text": token_text,
    "token_v3": token_v3,
    "token_v4": token_v4,
    "tokens_in_text": tokens_in_text,
    "cbor_item": cbor_item,
}
