"""What is decrypted before it is parsed; the targets encrypt, so that the inside is reached."""

from __future__ import annotations

import base64
import hmac
import json

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from nostrllm.crypto import keys, nip04, nip44, nip59
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from tests.fuzz.target import READ_BY, SEALED_BY, Target, refusing, text_of

NONCE = bytes(32)
KEY = nip44.conversation_key(SEALED_BY, keys.public_key(READ_BY))


@refusing()
def nip44_payload(data: bytes) -> None:
    nip44.decrypt(KEY, text_of(data))


@refusing()
def nip44_raw(data: bytes) -> None:
    nip44.decrypt(KEY, base64.b64encode(b"\2" + data).decode())


@refusing()
def nip44_padding(data: bytes) -> None:
    """`data` is what comes out of the cipher."""
    cipher_key, cipher_nonce, mac_key = nip44.message_keys(KEY, NONCE)
    ciphertext = Cipher(ChaCha20(cipher_key, bytes(4) + cipher_nonce), None).encryptor()
    body = NONCE + ciphertext.update(data)
    payload = b"\2" + body + hmac.digest(mac_key, body, "sha256")
    nip44.decrypt(KEY, base64.b64encode(payload).decode())


@refusing()
def nip04_payload(data: bytes) -> None:
    nip04.decrypt(KEY, text_of(data))


@refusing()
def nip04_raw(data: bytes) -> None:
    body, iv = base64.b64encode(data[16:]).decode(), base64.b64encode(data[:16]).decode()
    nip04.decrypt(KEY, f"{body}?iv={iv}")


@refusing()
def gift_wrap(data: bytes) -> None:
    """`data` is where the seal should be."""
    nip59.unwrap(_encrypted(data, kinds.GIFT_WRAP), READ_BY)


@refusing()
def seal(data: bytes) -> None:
    """`data` is where the rumor should be."""
    inner = json.dumps(_encrypted(data, kinds.SEAL).as_dict()).encode()
    nip59.unwrap(_encrypted(inner, kinds.GIFT_WRAP), READ_BY)


def _encrypted(data: bytes, kind: int) -> Event:
    return keys.sign_event(Draft(kind, nip44.encrypt(KEY, data, NONCE), 5), SEALED_BY)


TARGETS: dict[str, Target] = {
    "nip44_payload": nip44_payload,
    "nip44_raw": nip44_raw,
    "nip44_padding": nip44_padding,
    "nip04_payload": nip04_payload,
    "nip04_raw": nip04_raw,
    "gift_wrap": gift_wrap,
    "seal": seal,
}
