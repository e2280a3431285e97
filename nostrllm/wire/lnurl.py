"""Lightning addresses and LNURL-pay (LUD-06, LUD-16, LUD-17): from `name@host` to an invoice.

Pure: which URL is asked, what its answer must be, and whether the invoice is the one that was asked
for. Every reader is total: any input gives an object, or RemoteError.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit, urlunsplit

from nostrllm.errors import RemoteError
from nostrllm.wire import bech32
from nostrllm.wire.invoice import Invoice, parse_invoice
from nostrllm.wire.message import MSAT_MAX

URL_CHARS_MAX: Final = 2_048
DESCRIPTION_CHARS_MAX: Final = 1_000

_ADDRESS: Final = re.compile(r"([a-z0-9._+-]{1,64})@([a-z0-9.-]{1,253}(?::[0-9]{1,5})?)", re.ASCII)
#: Hosts of this machine, where nobody has a certificate; whoever asks decides whether he does.
_LOCAL: Final = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class PayRequest:
    """What a payee takes (LUD-06): amounts in msat, where invoices are made, what they are for.

    An invoice's description hash is that of `metadata`; `description` is its text for a person.
    """

    callback: str
    min_msat: int
    max_msat: int
    metadata: str
    description: str

    def invoice_url(self, msat: int) -> str:
        """Where an invoice of so many msat is made."""
        mark = "&" if "?" in self.callback else "?"
        return f"{self.callback}{mark}amount={msat}"


def is_address(text: str) -> bool:
    """Is this meant as a Lightning address or LNURL, rather than as an invoice?"""
    bare = _bare(text).lower()
    return bare.startswith(("lnurl1", "lnurlp://")) or _ADDRESS.fullmatch(bare) is not None


def pay_url(text: str) -> str:
    """The URL that a Lightning address or LNURL stands for; HTTP for an onion and for this machine,
    else HTTPS, as far as the text leaves it open. Raises RemoteError."""
    bare = _bare(text)
    found = _ADDRESS.fullmatch(bare.lower())
    if found is not None:
        return f"{_scheme(found[2])}://{found[2]}/.well-known/lnurlp/{found[1]}"
    if bare.lower().startswith("lnurl1"):
        prefix, data = bech32.decode(bare, modified=False)
        if prefix != "lnurl":
            _refuse("another prefix")
        return _url(_text(data))
    if not bare.lower().startswith("lnurlp://"):
        _refuse("neither an address nor an LNURL")
    try:
        parts = urlsplit(bare)
    except ValueError:
        _refuse("a URL has a wrong form")
    return _url(urlunsplit((_scheme(parts.netloc), *parts[1:4], "")))


def parse_pay_request(text: str) -> PayRequest:
    """The first answer of a payee. Raises RemoteError, with his words where he refuses."""
    fields = _object(text)
    if fields.get("tag") != "payRequest":
        _refuse("it takes no payments")
    least, most = _msat(fields.get("minSendable")), _msat(fields.get("maxSendable"))
    metadata = fields.get("metadata")
    if not isinstance(metadata, str) or not 1 <= least <= most:
        _refuse("its answer has a wrong form")
    return PayRequest(_url(fields.get("callback")), least, most, metadata, _described(metadata))


def invoice_of(text: str, request: PayRequest, msat: int) -> Invoice:
    """The invoice of the second answer, if it is of this amount, and for what the first one said.

    Some payees make invoices with a description of their own; one with a hash must have ours.
    Raises RemoteError `payment-invoice-invalid`.
    """
    invoice = parse_invoice(str(_object(text).get("pr")))
    if invoice.amount_msat != msat:
        raise RemoteError("the invoice is of another amount", code="payment-invoice-invalid")
    meant = hashlib.sha256(request.metadata.encode(errors="replace")).hexdigest()
    if invoice.description_hash not in ("", meant):
        raise RemoteError("the invoice is for something else", code="payment-invoice-invalid")
    return invoice


def _bare(text: str) -> str:
    bare = text.strip()
    return bare[len("lightning:") :] if bare.lower().startswith("lightning:") else bare


def _scheme(host: str) -> str:
    name = host.lower().partition(":")[0]
    return "http" if name.endswith(".onion") or name in _LOCAL else "https"


def _url(raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > URL_CHARS_MAX or not raw.isascii():
        _refuse("a URL has a wrong form")
    if not raw.startswith(("https://", "http://")) or any(c.isspace() for c in raw):
        _refuse("a URL has a wrong form")
    return raw


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        _refuse("it holds no URL")


def _object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        _refuse("its answer is no JSON")
    if not isinstance(fields, dict):
        _refuse("its answer has a wrong form")
    if fields.get("status") == "ERROR":
        reason = " ".join(str(fields.get("reason", ""))[:200].split())
        _refuse(f"it says: {reason or 'no'}")
    return fields


def _msat(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= MSAT_MAX:
        _refuse("an amount has a wrong form")
    return raw


def _described(metadata: str) -> str:
    """The `text/plain` of the metadata, in one line; "" where there is none."""
    try:
        entries = json.loads(metadata)
    except (ValueError, RecursionError):
        _refuse("its metadata is no JSON")
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case ["text/plain", str() as said, *_]:
                return " ".join(said[:DESCRIPTION_CHARS_MAX].split())
    return ""


def _refuse(why: str) -> NoReturn:
    message = f"the Lightning address cannot be paid: {why}"
    raise RemoteError(message, code="payment-invoice-invalid")
