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
from nostrllm.wire.message import MSAT_MAX

#: Characters of an invoice; those with many route hints have some 2,000.
CHARS_MAX: Final = 4_096

#: Seconds that an invoice is good for when it does not say.
EXPIRY_S: Final = 3_600

_TIME_MAX: Final = 1 << 40
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX: Final = re.compile(r"ln(bcrt|bc|tbs|tb|sb)(?:([1-9][0-9]{0,17})([munp]?))?", re.ASCII)

#: Tenths of a msat in one of each multiplier.
_TENTHS: Final = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}

#: Words of five bits: timestamp, signature, checksum, and a hash of 256 bits.
_STAMP, _SIGNATURE, _CHECKSUM, _HASH = 7, 104, 6, 52
_HASH_TAG: Final = _VALUES["p"]
_EXPIRY_TAG: Final = _VALUES["x"]


@dataclass(frozen=True, slots=True)
class Invoice:
    """What an invoice asks for. `amount_msat` None: whatever the payer likes.

    `network`: bc is Bitcoin itself, the others are for tests. `text` is in lower case.
    """

    text: str
    network: str
    amount_msat: int | None
    payment_hash: str
    created_at: int
    expiry_s: int

    @property
    def expires_at(self) -> int:
        """Unix seconds after which it should not be paid."""
        return self.created_at + self.expiry_s


def parse_invoice(text: str) -> Invoice:
    """The invoice in a text that is nothing else.

    Raises RemoteError `payment-invoice-invalid`.
    """
    text, prefix, words = _bech32(text)
    found = _PREFIX.fullmatch(prefix)
    if found is None:
        _refuse("its prefix or amount has a wrong form")
    if len(words) < _STAMP + _SIGNATURE:
        _refuse("it is too short")
    fields = list(_fields(words[_STAMP:-_SIGNATURE]))
    hashes = [data for tag, data in fields if tag == _HASH_TAG and len(data) == _HASH]
    expiries = [data for tag, data in fields if tag == _EXPIRY_TAG]
    if len(hashes) != 1 or len(expiries) > 1:
        _refuse("it has not one payment hash, or more than one expiry")
    expiry_s = _number(expiries[0]) if expiries else EXPIRY_S
    if expiry_s > _TIME_MAX:
        _refuse("its expiry is out of range")
    amount_msat = None if found[2] is None else _msat(int(found[2]), found[3])
    payment_hash = f"{_number(hashes[0]) >> 4:064x}"
    return Invoice(text, found[1], amount_msat, payment_hash, _number(words[:_STAMP]), expiry_s)


def _msat(amount: int, multiplier: str) -> int:
    msat, rest = divmod(amount * _TENTHS[multiplier], 10)
    if rest or msat > MSAT_MAX:
        _refuse("its amount is out of range")
    return msat


def _bech32(text: str) -> tuple[str, str, list[int]]:
    """The text in lower case, its prefix and its words without checksum (BIP 173, any length)."""
    if len(text) > CHARS_MAX or not text.isascii() or text not in (text.lower(), text.upper()):
        _refuse("it is too long, or no bech32")
    text = text.lower()
    prefix, _, data = text.rpartition("1")
    words = [_VALUES.get(letter, -1) for letter in data]
    if not prefix or -1 in words or len(words) < _CHECKSUM:
        _refuse("it is no bech32")
    high_low = [ord(letter) >> 5 for letter in prefix], [ord(letter) & 31 for letter in prefix]
    if _polymod([*high_low[0], 0, *high_low[1], *words]) != 1:
        _refuse("its checksum is wrong")
    return text, prefix, words[:-_CHECKSUM]


def _polymod(values: Sequence[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            check ^= generator if top >> bit & 1 else 0
    return check


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
