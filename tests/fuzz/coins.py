"""Ecash as text."""

from __future__ import annotations

import base64

from nostrllm.wire import cbor, invoice, token
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
    prefix = "lnbc20u"
    words = [0] * 7 + [byte & 31 for byte in data[:600]] + [0] * 104
    ahead = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    check = invoice._polymod([*ahead, *words, *[0] * 6]) ^ 1
    words += [check >> 5 * (5 - place) & 31 for place in range(6)]
    text = prefix + "1" + "".join(invoice._ALPHABET[word] for word in words)
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
