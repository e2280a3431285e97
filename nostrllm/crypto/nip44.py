"""NIP-44 version 2: encrypted payloads between two keys.

The conversation key of two parties never changes and costs an ECDH, so callers keep it and pass
it in. Sizes are checked before any work, the MAC before anything is decrypted.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from nostrllm.crypto.keys import shared_x
from nostrllm.errors import LocalError, RemoteError

#: The longest plaintext we send, in bytes: many readers know no longer one.
PLAINTEXT_BYTES_MAX: Final = 65_535
#: The shortest payload there can be, and the longest we read, in characters of base64.
PAYLOAD_CHARS_MIN: Final = 132
PAYLOAD_CHARS_MAX: Final = 1 << 18

_VERSION = b"\2"
_MAC_BYTES = 32


def conversation_key(secret: bytes, pubkey: str) -> bytes:
    """The 32 bytes that `secret` and `pubkey` (x-only hex) share; the same from both sides.

    Raises RemoteError for a public key off the curve, LocalError for a bad secret.
    """
    return hmac.digest(b"nip44-v2", shared_x(secret, pubkey), "sha256")


def encrypt(key: bytes, plaintext: bytes, nonce: bytes) -> str:
    """`plaintext` (1 to 65,535 bytes) as a base64 payload; `nonce` is 32 fresh random bytes.

    Raises RemoteError `message-too-large` (or `message-invalid` when empty).
    """
    size = len(plaintext)
    if size > PLAINTEXT_BYTES_MAX:
        raise RemoteError("the text is too long to encrypt", code="message-too-large")
    if not size:
        raise RemoteError("there is no text to encrypt")
    if len(nonce) != 32:
        raise LocalError("a NIP-44 nonce is 32 bytes")
    cipher_key, cipher_nonce, mac_key = message_keys(key, nonce)
    padded = size.to_bytes(2, "big") + plaintext + bytes(padded_size(size) - size)
    ciphertext = _chacha20(cipher_key, cipher_nonce, padded)
    mac = hmac.digest(mac_key, nonce + ciphertext, "sha256")
    return base64.b64encode(_VERSION + nonce + ciphertext + mac).decode()


def decrypt(key: bytes, payload: str) -> bytes:
    """The plaintext of a payload, the extended length of more than 65,535 bytes included.

    Raises RemoteError: `version-unsupported`, `message-too-large`, else `message-invalid`.
    """
    nonce, ciphertext, mac = _split(payload)
    cipher_key, cipher_nonce, mac_key = message_keys(key, nonce)
    if not hmac.compare_digest(hmac.digest(mac_key, nonce + ciphertext, "sha256"), mac):
        raise RemoteError("the encrypted payload is not authentic")
    return _unpad(_chacha20(cipher_key, cipher_nonce, ciphertext))


def message_keys(key: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """ChaCha20 key, ChaCha20 nonce and HMAC key of one message: HKDF-expand to 76 bytes."""
    first = hmac.digest(key, nonce + b"\1", "sha256")
    second = hmac.digest(key, first + nonce + b"\2", "sha256")
    third = hmac.digest(key, second + nonce + b"\3", "sha256")
    return first, second[:12], second[12:] + third[:12]


def padded_size(size_bytes: int) -> int:
    """How long a plaintext of this length becomes, so that its length shows only roughly."""
    if size_bytes <= 32:
        return 32
    power = 1 << (size_bytes - 1).bit_length()
    step = 32 if power <= 256 else power // 8
    return step * ((size_bytes - 1) // step + 1)


def _split(payload: str) -> tuple[bytes, bytes, bytes]:
    if payload.startswith("#"):
        raise RemoteError("the encryption version is unknown", code="version-unsupported")
    if len(payload) > PAYLOAD_CHARS_MAX:
        raise RemoteError("the encrypted payload is too long", code="message-too-large")
    if len(payload) < PAYLOAD_CHARS_MIN:
        raise RemoteError("the encrypted payload is too short")
    try:
        raw = base64.b64decode(payload, validate=True)
    except ValueError:
        raise RemoteError("the encrypted payload is not base64") from None
    if raw[:1] != _VERSION:
        raise RemoteError("the encryption version is unknown", code="version-unsupported")
    return raw[1:33], raw[33:-_MAC_BYTES], raw[-_MAC_BYTES:]


def _unpad(padded: bytes) -> bytes:
    size, start = int.from_bytes(padded[:2], "big"), 2
    if not size:
        size, start = int.from_bytes(padded[2:6], "big"), 6
        if size <= PLAINTEXT_BYTES_MAX:
            raise RemoteError("the encrypted payload states a wrong length")
    if len(padded) != start + padded_size(size):
        raise RemoteError("the encrypted payload is padded wrongly")
    return padded[start : start + size]


def _chacha20(key: bytes, nonce: bytes, text: bytes) -> bytes:
    counter = bytes(4)
    return Cipher(ChaCha20(key, counter + nonce), None).encryptor().update(text)
