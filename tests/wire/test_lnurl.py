"""Lightning addresses and LNURL-pay: the URLs they stand for, and what their owners may say."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import bech32
from nostrllm.wire.lnurl import (
    PayRequest,
    invoice_of,
    is_address,
    parse_pay_request,
    pay_url,
)
from tests.invoices import invoice

METADATA = json.dumps([["image/png;base64", "x"], ["text/plain", "a cup\nof tea"]])
ANSWER = {
    "tag": "payRequest",
    "callback": "https://tea.example/pay",
    "minSendable": 1_000,
    "maxSendable": 9_000,
    "metadata": METADATA,
}


def lnurl(url: str, prefix: str = "lnurl") -> str:
    return bech32.encode(prefix, url.encode(), modified=False)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("Tea@Tea.example", "https://tea.example/.well-known/lnurlp/tea"),
        (" lightning:a.b_c+d@x.example ", "https://x.example/.well-known/lnurlp/a.b_c+d"),
        ("tea@abc.onion", "http://abc.onion/.well-known/lnurlp/tea"),
        ("tea@127.0.0.1:81", "http://127.0.0.1:81/.well-known/lnurlp/tea"),
        (lnurl("https://x.example/a?b=c"), "https://x.example/a?b=c"),
        ("LIGHTNING:" + lnurl("http://abc.onion").upper(), "http://abc.onion"),
        ("lnurlp://x.example/a?b=c#d", "https://x.example/a?b=c"),
        ("lnurlp://abc.onion/a", "http://abc.onion/a"),
    ],
)
def test_what_they_stand_for(text: str, url: str) -> None:
    assert is_address(text)
    assert pay_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tea",
        "@tea.example",
        "t ea@tea.example",
        "lnurl1junk",
        lnurl("ftp://x.example"),
        lnurl("https://x.example/ü"),
        lnurl("https://x.example/ b"),
        lnurl("https://x.example", "lnurl1x"),
        "lnurlp://[x",
        "lnbc1",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(RemoteError):
        pay_url(text)


@given(st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    with contextlib.suppress(RemoteError):
        assert pay_url(text).startswith(("http://", "https://"))
    with contextlib.suppress(RemoteError):
        parse_pay_request(text)


def test_an_invoice_is_no_address() -> None:
    assert not is_address(invoice(1_000))
    assert not is_address("lightning:" + invoice(1_000))


def test_what_a_payee_takes() -> None:
    found = parse_pay_request(json.dumps(ANSWER))
    assert found == PayRequest("https://tea.example/pay", 1_000, 9_000, METADATA, "a cup of tea")
    assert found.invoice_url(5) == "https://tea.example/pay?amount=5"
    other = parse_pay_request(json.dumps(ANSWER | {"callback": "https://x.example/?a=b"}))
    assert other.invoice_url(5) == "https://x.example/?a=b&amount=5"
    for metadata in ("[]", "{}", '[["text/plain", 5], "x"]'):
        assert parse_pay_request(json.dumps(ANSWER | {"metadata": metadata})).description == ""


@pytest.mark.parametrize(
    "bent",
    [
        {"tag": "withdrawRequest"},
        {"callback": None},
        {"callback": "ftp://x.example"},
        {"minSendable": 0},
        {"minSendable": True},
        {"minSendable": "1000"},
        {"minSendable": 10_000},
        {"maxSendable": -1},
        {"maxSendable": 1 << 80},
        {"metadata": None},
        {"metadata": "["},
    ],
)
def test_what_a_payee_may_not_say(bent: dict[str, object]) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_pay_request(json.dumps(ANSWER | bent))
    assert caught.value.code == "payment-invoice-invalid"


def test_his_own_words_are_told_when_he_refuses() -> None:
    with pytest.raises(RemoteError, match=r"it says: gone\b"):
        parse_pay_request(json.dumps({"status": "ERROR", "reason": "gone\n"}))
    for text in ('{"status": "ERROR"}', "[]", "{"):
        with pytest.raises(RemoteError):
            parse_pay_request(text)


def test_the_invoice_is_the_one_that_was_asked_for() -> None:
    request = parse_pay_request(json.dumps(ANSWER))
    meant = hashlib.sha256(METADATA.encode()).hexdigest()
    for made in (invoice(5_000, description_hash=meant), invoice(5_000)):
        assert invoice_of(json.dumps({"pr": made}), request, 5_000).amount_msat == 5_000
    for wrong in (
        {"pr": invoice(5_000, description_hash="ab" * 32)},
        {"pr": invoice(6_000, description_hash=meant)},
        {"pr": invoice(None, description_hash=meant)},
        {"pr": "junk"},
        {},
        {"status": "ERROR", "reason": "no"},
    ):
        with pytest.raises(RemoteError) as caught:
            invoice_of(json.dumps(wrong), request, 5_000)
        assert caught.value.code == "payment-invoice-invalid"
