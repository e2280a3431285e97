"""Bech32 and Bech32m: a prefix and bytes ⇄ text with a checksum (BIP-173, BIP-350).

Of any length: NIP-19 and NUT-26 lift the 90 characters that Bitcoin allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from nostrllm.errors import RemoteError

TEXT_CHARS_MAX: Final = 16_384

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUE: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PLAIN: Final = 1
_MODIFIED: Final = 0x2BC830A3
_CHECKSUM: Final = 6


def encode(prefix: str, data: bytes, *, modified: bool) -> str:
    """`data` in lower case; `modified` for Bech32m."""
    values = _regroup(data, 8, 5)
    return encode_words(prefix, values, modified=modified)


def encode_words(prefix: str, words: Sequence[int], *, modified: bool) -> str:
    """Words of five bits each."""
    checked = [*words, *_checksum(prefix, words, modified=modified)]
    return f"{prefix}1" + "".join(_ALPHABET[word] for word in checked)


def decode_words(text: str, *, modified: bool) -> tuple[str, list[int]]:
    """Prefix and words of a text that is all lower or all upper case. Raises RemoteError."""
    if len(text) > TEXT_CHARS_MAX or not text.isascii():
        raise RemoteError("the text is too long, or not of this alphabet")
    if text not in (text.lower(), text.upper()):
        raise RemoteError("the text mixes upper and lower case")
    prefix, mark, rest = text.lower().rpartition("1")
    if not mark or not prefix or len(rest) < _CHECKSUM or not set(rest) <= _VALUE.keys():
        raise RemoteError("the text has no prefix, or letters that are not used")
    values = [_VALUE[letter] for letter in rest]
    body, checksum = values[:-_CHECKSUM], values[-_CHECKSUM:]
    if checksum != _checksum(prefix, body, modified=modified):
        raise RemoteError("the checksum is wrong")
    return prefix, body


def decode(text: str, *, modified: bool) -> tuple[str, bytes]:
    """Prefix and bytes, of which the words are made. Raises RemoteError."""
    prefix, body = decode_words(text, modified=modified)
    padding = len(body) * 5 % 8
    if padding > 4 or (body and body[-1] & ((1 << padding) - 1)):
        raise RemoteError("the text has bits after its end")
    return prefix, bytes(_regroup(body, 5, 8)[: len(body) * 5 // 8])


def _checksum(prefix: str, values: Iterable[int], *, modified: bool) -> list[int]:
    high, low = [ord(c) >> 5 for c in prefix], [ord(c) & 31 for c in prefix]
    state = 1
    for value in [*high, 0, *low, *values, *[0] * _CHECKSUM]:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            state ^= generator if top >> bit & 1 else 0
    state ^= _MODIFIED if modified else _PLAIN
    return [state >> 5 * (_CHECKSUM - 1 - place) & 31 for place in range(_CHECKSUM)]


def _regroup(values: Iterable[int], from_bits: int, to_bits: int) -> list[int]:
    """The same bits in groups of another size, zeros at the end."""
    held, bits, groups = 0, 0, []
    for value in values:
        held, bits = held << from_bits | value, bits + from_bits
        while bits >= to_bits:
            bits -= to_bits
            groups.append(held >> bits)
            held &= (1 << bits) - 1
    return [*groups, held << to_bits - bits] if bits else groups
