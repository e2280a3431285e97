"""Blind signatures of Cashu on secp256k1 (NUT-00), proofs of them (NUT-12), keyset ids (NUT-02).

Points travel as compressed hex, scalars as 32 bytes. Randomness is handed in.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Final

from coincurve import PrivateKey, PublicKey

from nostrllm.crypto.keys import verify
from nostrllm.wire.token import Dleq, Proof

_DOMAIN: Final = b"Secp256k1_HashToCurve_Cashu_"


def hash_to_curve(message: bytes) -> PublicKey:
    """The point that stands for `message` (NUT-00); nobody knows its logarithm."""
    seed = hashlib.sha256(_DOMAIN + message).digest()
    counter = 0
    while True:
        x = hashlib.sha256(seed + counter.to_bytes(4, "little")).digest()
        try:
            return PublicKey(b"\x02" + x)
        except ValueError:
            counter += 1  # half of all x have no point


def y_of(secret: str) -> str:
    """Y, the public name of the coin with this secret (NUT-07)."""
    return _hex(hash_to_curve(secret.encode()))


def is_point(text: str) -> bool:
    """Is the hex text a compressed point of the curve?"""
    try:
        return len(text) == 66 and bool(PublicKey(bytes.fromhex(text)))
    except ValueError:
        return False


def blind(secret: str, r: bytes) -> str:
    """B_ = Y + rG, what the mint signs without learning Y."""
    return _hex(_plus(hash_to_curve(secret.encode()), PublicKey.from_secret(r)))


def unblind(C_: str, r: bytes, key: str) -> str:
    """C = C_ - rK, the coin's signature under the mint's key K for its amount."""
    return _hex(_minus(_point(C_), _point(key).multiply(r)))


def verify_dleq(B_: str, C_: str, dleq: Dleq | None, key: str) -> bool:
    """Did the mint sign B_ with `key`? A missing proof is a failure (NUT-12)."""
    if dleq is None:
        return False
    try:
        e, s = bytes.fromhex(dleq.e), bytes.fromhex(dleq.s)
        B, C, A = _point(B_), _point(C_), _point(key)
        R1 = _minus(PublicKey.from_secret(s), A.multiply(e))
        R2 = _minus(B.multiply(s), C.multiply(e))
    except ValueError:
        return False
    return hmac.compare_digest(hash_e((R1, R2, A, C)), e)


def verify_proof_dleq(proof: Proof, key: str) -> bool:
    """Did the mint sign this coin with `key`? Without a complete proof: False (NUT-12, "Carol")."""
    if proof.dleq is None or proof.dleq.r is None:
        return False
    try:
        r = bytes.fromhex(proof.dleq.r)
        C_ = _hex(_plus(_point(proof.C), _point(key).multiply(r)))
        B_ = blind(proof.secret, r)
    except ValueError:
        return False
    return verify_dleq(B_, C_, proof.dleq, key)


def hash_e(points: Sequence[PublicKey]) -> bytes:
    """The challenge of NUT-12: sha256 over the uncompressed hex of the points."""
    text = "".join(point.format(compressed=False).hex() for point in points)
    return hashlib.sha256(text.encode()).digest()


def keyset_id_v0(keys: Mapping[int, str]) -> str:
    """The "00" id of a keyset: amount → compressed hex (NUT-02)."""
    joined = b"".join(bytes.fromhex(keys[amount]) for amount in sorted(keys))
    return "00" + hashlib.sha256(joined).hexdigest()[:14]


def keyset_id_v1(
    keys: Mapping[int, str], unit: str, fee_ppk: int = 0, final_expiry: int | None = None
) -> str:
    """The "01" id, which also binds unit, fee and expiry (NUT-02)."""
    text = ",".join(f"{amount}:{keys[amount]}" for amount in sorted(keys))
    text += f"|unit:{unit}"
    text += f"|input_fee_ppk:{fee_ppk}" if fee_ppk else ""
    text += "" if final_expiry is None else f"|final_expiry:{final_expiry}"
    return "01" + hashlib.sha256(text.encode()).hexdigest()


def public_key_of(secret: bytes) -> str:
    """The compressed public key (hex) of a secret key."""
    return PublicKey.from_secret(secret).format().hex()


def sign_secret(secret: str, key: bytes, aux: bytes) -> str:
    """`key`'s signature on the secret of a coin that is locked to it, in hex (NUT-11, SIG_INPUTS).

    `aux`: 32 random bytes for the Schnorr signature.
    """
    digest = hashlib.sha256(secret.encode()).digest()
    return PrivateKey(key).sign_schnorr(digest, aux).hex()


def verify_secret(secret: str, signature: str, key: str) -> bool:
    """Is that signature by `key` (compressed hex)? Then its witness spends the coin."""
    return verify(key[2:], signature, hashlib.sha256(secret.encode()).digest())


def witness(signature: str) -> str:
    """The signature as a mint takes it with a locked coin (NUT-11)."""
    return json.dumps({"signatures": [signature]}, separators=(",", ":"))


def sign_witness(secret: str, key: bytes, aux: bytes) -> str:
    """The witness that spends a coin locked to `key`; see `sign_secret`."""
    return witness(sign_secret(secret, key, aux))


def _point(text: str) -> PublicKey:
    return PublicKey(bytes.fromhex(text))


def _hex(point: PublicKey) -> str:
    return point.format().hex()


def _plus(one: PublicKey, other: PublicKey) -> PublicKey:
    return PublicKey.combine_keys([one, other])


def _minus(one: PublicKey, other: PublicKey) -> PublicKey:
    data = other.format()
    return _plus(one, PublicKey(bytes([data[0] ^ 1]) + data[1:]))
