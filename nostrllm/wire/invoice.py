"""Lightning invoices as far as money needs them: amount, payment hash, and when they end (BOLT 11).

Stricter than a node: where two readers could differ (two payment hashes, an amount with a leading
zero) nothing is read, because a hash that we book must be the one that is paid. The signature is
left to the node that pays: whoever forges one forges an invoice to himself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from nostrllm.errors import RemoteError
from nostrllm.wire import bech32
from nostrllm.wire.message import MSAT_MAX
from nostrllm.wire.order import INVOICE_CHARS_MAX

#: Seconds that an invoice is good for when it does not say.
EXPIRY_S: Final = 3_600

_TIME_MAX: Final = 1 << 40
_PREFIX: Final = re.compile(r"ln(bcrt|bc|tbs|tb|sb)(?:([1-9][0-9]{0,17})([munp]?))?", re.ASCII)

#: Tenths of a msat in one of each multiplier.
_TENTHS: Final = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}

#: Words of five bits: timestamp, signature, and a hash of 256 bits.
_STAMP, _SIGNATURE, _HASH = 7, 104, 52

#: The tags `p`, `x` and `h`.
_HASH_TAG, _EXPIRY_TAG, _MEANT_TAG = 1, 6, 23


@dataclass(frozen=True, slots=True)
class Invoice:
    """What an invoice asks for. `amount_msat` None: whatever the payer likes.

    `network`: bc is Bitcoin itself, the others are for tests. `text` is in lower case.
    `description_hash`: sha256 of what it is for, where that stands elsewhere; else "".
    """

    text: str
    network: str
    amount_msat: int | None
    payment_hash: str
    created_at: int
    expiry_s: int
    description_hash: str = ""

    @property
    def expires_at(self) -> int:
        """Unix seconds after which it should not be paid."""
        return self.created_at + self.expiry_s


def parse_invoice(text: str) -> Invoice:
    """The invoice in a text that is nothing else.

    Raises RemoteError `payment-invoice-invalid`.
    """
    if len(text) > INVOICE_CHARS_MAX:
        _refuse("it is too long")
    try:
        prefix, words = bech32.decode_words(text, modified=False)
    except RemoteError as error:
        _refuse(error.message)
    found = _PREFIX.fullmatch(prefix)
    if found is None:
        _refuse("its prefix or amount has a wrong form")
    if len(words) < _STAMP + _SIGNATURE:
        _refuse("it is too short")
    fields = list(_fields(words[_STAMP:-_SIGNATURE]))
    hashes = [data for tag, data in fields if tag == _HASH_TAG and len(data) == _HASH]
    meant = [data for tag, data in fields if tag == _MEANT_TAG and len(data) == _HASH]
    expiries = [data for tag, data in fields if tag == _EXPIRY_TAG]
    if len(hashes) != 1 or len(expiries) > 1 or len(meant) > 1:
        _refuse("it has not one payment hash, or more than one expiry or description hash")
    expiry_s = _number(expiries[0]) if expiries else EXPIRY_S
    if expiry_s > _TIME_MAX:
        _refuse("its expiry is out of range")
    amount_msat = None if found[2] is None else _msat(int(found[2]), found[3])
    payment_hash = f"{_number(hashes[0]) >> 4:064x}"
    created_at = _number(words[:_STAMP])
    description_hash = f"{_number(meant[0]) >> 4:064x}" if meant else ""
    return Invoice(
        text.lower(), found[1], amount_msat, payment_hash, created_at, expiry_s, description_hash
    )


def _msat(amount: int, multiplier: str) -> int:
    msat, rest = divmod(amount * _TENTHS[multiplier], 10)
    if rest or msat > MSAT_MAX:
        _refuse("its amount is out of range")
    return msat


def _fields(words: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Tag and words of each tagged field."""
    at = 0
    while at < len(words):
        head = words[at : at + 3]
        end = at + 3 + (head[1] * 32 + head[2] if len(head) == 3 else len(words))
        if end > len(words):
            _refuse("a field of it is cut")
        yield head[0], words[at + 3 : end]
        at = end


def _number(words: Sequence[int]) -> int:
    value = 0
    for word in words:
        value = value << 5 | word
    return value


def _refuse(why: str) -> NoReturn:
    raise RemoteError(f"the invoice cannot be read: {why}", code="payment-invoice-invalid")
