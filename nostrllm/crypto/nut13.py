"""Secrets and blinding factors from a seed (NUT-13), so that the mint can give coins back.

Version "00" keysets derive by BIP32, version "01" by HMAC; both number outputs by a counter.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from coincurve import PrivateKey

from nostrllm.crypto.keys import ORDER

_HARDENED: Final = 1 << 31
_PURPOSE: Final = 129372


def derive(seed: bytes, keyset_id: str, counter: int) -> tuple[str, bytes]:
    """Secret (hex text) and blinding factor (32 bytes) of output number `counter`.

    `keyset_id` is the full id. The seed is the 64 bytes that BIP39 makes of its words, or any
    other 16 to 64 bytes.
    """
    if keyset_id.startswith("01"):
        return _by_hmac(seed, keyset_id, counter)
    node = _master(seed)
    for index in (_PURPOSE, 0, int(keyset_id, 16) % (_HARDENED - 1), counter):
        node = _child(*node, index + _HARDENED)
    return _child(*node, 0)[0].hex(), _child(*node, 1)[0]


def _by_hmac(seed: bytes, keyset_id: str, counter: int) -> tuple[str, bytes]:
    base = b"Cashu_KDF_HMAC_SHA256" + bytes.fromhex(keyset_id) + counter.to_bytes(8, "big")
    secret = hmac.digest(seed, base + b"\0", "sha256").hex()
    factor = int.from_bytes(hmac.digest(seed, base + b"\1", "sha256"), "big") % ORDER
    return secret, factor.to_bytes(32, "big")


def _master(seed: bytes) -> tuple[bytes, bytes]:
    node = hmac.digest(b"Bitcoin seed", seed, hashlib.sha512)
    return node[:32], node[32:]


def _child(key: bytes, chain: bytes, index: int) -> tuple[bytes, bytes]:
    """BIP32; an index of 2^31 or more is hardened."""
    head = b"\0" + key if index >= _HARDENED else PrivateKey(key).public_key.format()
    node = hmac.digest(chain, head + index.to_bytes(4, "big"), hashlib.sha512)
    number = (int.from_bytes(node[:32], "big") + int.from_bytes(key, "big")) % ORDER
    return number.to_bytes(32, "big"), node[32:]
