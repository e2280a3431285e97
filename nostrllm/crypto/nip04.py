"""NIP-04: the old direct message, AES-256-CBC without authentication.

Kept because widely used clients still write it. Only the signature of the event around a payload
says that it is whole, so callers decrypt nothing whose event was not verified.
"""

from __future__ import annotations

import base64
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from nostrllm.crypto.keys import shared_x
from nostrllm.errors import LocalError, RemoteError

PLAINTEXT_BYTES_MAX: Final = 1 << 16
PAYLOAD_CHARS_MAX: Final = 1 << 17

_BLOCK = 16


def conversation_key(secret: bytes, pubkey: str) -> bytes:
    """The AES key that `secret` and `pubkey` (x-only hex) share: 32 bytes.

    Raises RemoteError for a public key off the curve, LocalError for a bad secret.
    """
    return shared_x(secret, pubkey)


def encrypt(key: bytes, plaintext: bytes, iv: bytes) -> str:
    """`plaintext` as `<base64>?iv=<base64>`; `iv` is 16 fresh random bytes.

    Raises RemoteError `message-too-large`.
    """
    if len(plaintext) > PLAINTEXT_BYTES_MAX:
        raise RemoteError("the text is too long to encrypt", code="message-too-large")
    if len(iv) != _BLOCK:
        raise LocalError("a NIP-04 iv is 16 bytes")
    padder = PKCS7(8 * _BLOCK).padder()
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize())
    return f"{base64.b64encode(ciphertext).decode()}?iv={base64.b64encode(iv).decode()}"


def decrypt(key: bytes, payload: str) -> bytes:
    """The plaintext of `<base64>?iv=<base64>`. Raises RemoteError."""
    if len(payload) > PAYLOAD_CHARS_MAX:
        raise RemoteError("the encrypted payload is too long", code="message-too-large")
    body, _, tail = payload.partition("?iv=")
    try:
        ciphertext = base64.b64decode(body, validate=True)
        iv = base64.b64decode(tail, validate=True)
    except ValueError:
        raise RemoteError("the encrypted payload is not base64") from None
    if len(iv) != _BLOCK or not ciphertext or len(ciphertext) % _BLOCK:
        raise RemoteError("the encrypted payload has a wrong length")
    padded = Cipher(AES256(key), CBC(iv)).decryptor().update(ciphertext)
    unpadder = PKCS7(8 * _BLOCK).unpadder()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise RemoteError("the encrypted payload is padded wrongly") from None
