"""Keys, signatures and derived keys (NIP-01, BIP-340), on libsecp256k1.

Everything here is a function of its arguments: who draws the random bytes is the caller's affair,
so that a signature or a derived key can be computed again.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import re
from typing import Final

from coincurve import GLOBAL_CONTEXT, PublicKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]  # built by cffi

from nostrllm.errors import LocalError, RemoteError
from nostrllm.wire.event import Draft, Event, event_id

#: The order of the curve's group; a secret is a number from 1 to ORDER - 1.
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SEED_BYTES_MIN: Final = 16

_DERIVE = b"nostrllm derive 1"
_NO_AUX = bytes(32)
_HEX64 = re.compile(r"[0-9a-f]{64}")


class KeyPair:
    """A secret key with its public point worked out, which costs as much as a signature: keep it.

    Signatures are not verified after they are made, as coincurve's own are: that costs as much
    again, and a wrong one is refused by whoever reads it. Against faults there is `aux`.
    """

    __slots__ = ("_pair", "pubkey", "secret")

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes. Raises LocalError when they are no secret of the curve."""
        _check(secret)
        self.secret = secret
        self._pair = ffi.new("secp256k1_keypair *")
        point = ffi.new("secp256k1_xonly_pubkey *")
        x = ffi.new("unsigned char[32]")
        lib.secp256k1_keypair_create(GLOBAL_CONTEXT.ctx, self._pair, secret)
        lib.secp256k1_keypair_xonly_pub(GLOBAL_CONTEXT.ctx, point, ffi.NULL, self._pair)
        lib.secp256k1_xonly_pubkey_serialize(GLOBAL_CONTEXT.ctx, x, point)
        #: The public key as Nostr writes it: x-only, hex.
        self.pubkey = bytes(ffi.buffer(x, 32)).hex()

    def __repr__(self) -> str:
        return f"KeyPair({self.pubkey[:8]}…)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not copied or pickled")

    def sign_schnorr(self, digest: bytes, aux: bytes) -> bytes:
        """The BIP-340 signature of 32 bytes; `aux` is 32 bytes too. Raises LocalError."""
        if len(digest) != 32 or len(aux) != 32:
            raise LocalError("a signature is made of 32 bytes and 32 bytes of randomness")
        sig = ffi.new("unsigned char[64]")
        lib.secp256k1_schnorrsig_sign32(GLOBAL_CONTEXT.ctx, sig, digest, self._pair, aux)
        return bytes(ffi.buffer(sig, 64))


def load(secret: bytes) -> KeyPair:
    """32 secret bytes as a key. Raises LocalError when they are no secret of the curve."""
    return KeyPair(secret)


def public_key(secret: bytes) -> str:
    """The public key of 32 secret bytes: x-only, hex. Raises LocalError."""
    return load(secret).pubkey


def is_public_key(text: str) -> bool:
    """Is `text` 32 bytes of lower-case hex that lie on the curve (BIP-340)?"""
    if not _HEX64.fullmatch(text):
        return False
    try:
        PublicKeyXOnly(bytes.fromhex(text))
    except ValueError:
        return False
    return True


def sign_event(draft: Draft, secret: bytes | KeyPair, aux: bytes = _NO_AUX) -> Event:
    """The draft with author, id and BIP-340 signature (NIP-01).

    `aux` is 32 random bytes, which harden the signer against faults and power analysis; without
    them the signature is a function of draft and secret. Raises LocalError for a bad secret and
    RemoteError for text that is not Unicode.
    """
    key = secret if isinstance(secret, KeyPair) else load(secret)
    author = key.pubkey
    number = event_id(author, draft.created_at, draft.kind, draft.tags, draft.content)
    sig = key.sign_schnorr(bytes.fromhex(number), aux).hex()
    return Event(number, author, draft.created_at, draft.kind, draft.tags, draft.content, sig)


def verify_event(event: Event) -> bool:
    """Do id and signature belong to the event (NIP-01)? The id is recomputed first, being cheap."""
    try:
        number = event_id(event.pubkey, event.created_at, event.kind, event.tags, event.content)
    except RemoteError:
        return False
    return number == event.id and verify(event.pubkey, event.sig, bytes.fromhex(number))


def verify(pubkey: str, sig: str, digest: bytes) -> bool:
    """Is `sig` (64 bytes of hex) the BIP-340 signature of `pubkey` over the 32 bytes `digest`?

    The lengths are checked here because libsecp256k1 reads past the end of shorter buffers.
    """
    try:
        point, signature = bytes.fromhex(pubkey), bytes.fromhex(sig)
        if len(point) != 32:
            return False
        return bool(PublicKeyXOnly(point).verify(signature, digest))
    except ValueError:
        return False


def shared_x(secret: bytes, pubkey: str) -> bytes:
    """The x coordinate of the point that `secret` and `pubkey` share: 32 bytes, not hashed.

    NIP-04 and NIP-44 start from it. Computed in constant time, which coincurve's own `multiply`
    is not and its `ecdh` only with a hash of its choice. Raises LocalError for the secret and
    RemoteError for the public key.
    """
    _check(secret)
    try:
        point = PublicKey(bytes.fromhex("02" + pubkey))
    except ValueError:
        raise RemoteError("the public key is not a point of the curve") from None
    x = ffi.new("unsigned char[32]")
    lib.secp256k1_ecdh(GLOBAL_CONTEXT.ctx, x, point.public_key, secret, _COPY_X, ffi.NULL)
    return bytes(ffi.buffer(x, 32))


def _copy_x(output: int, x: int, _y: int, _argument: int) -> int:
    """The "hash function" of ECDH that libsecp256k1 is given: x as it is."""
    ctypes.memmove(output, x, 32)
    return 1


# ctypes rather than cffi makes this callback: cffi's needs memory that is writable and executable,
# which a hardened service is refused.
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(_copy_x)
_COPY_X: Final = ffi.cast(
    "secp256k1_ecdh_hash_function", ctypes.cast(_CALLBACK, ctypes.c_void_p).value
)


def _check(secret: bytes) -> None:
    if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < ORDER:
        raise LocalError("a secret key is 32 bytes, neither zero nor beyond the curve's order")


def derive(seed: bytes, *path: str) -> bytes:
    """A secret key of 32 bytes for `path`, the same one for the same seed.

    Reply keys, session keys and the pseudonyms shown to each provider come from here, so that a
    restarted process finds them again. Each part is prefixed by its length, hence ("ab", "c") and
    ("a", "bc") differ; 512 bits are reduced, hence no bias and no second try. Raises LocalError for
    a seed under 16 bytes or an empty path.
    """
    if len(seed) < SEED_BYTES_MIN or not path:
        raise LocalError("a key is derived from at least 16 bytes and a path")
    parts = [part.encode(errors="surrogatepass") for part in path]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    wide = hmac.digest(seed, _DERIVE + message, hashlib.sha512)
    return (int.from_bytes(wide, "big") % (ORDER - 1) + 1).to_bytes(32, "big")
