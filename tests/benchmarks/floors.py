"""What nobody can do without, done with the bare libraries: the floors of the benchmarks."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coincurve import GLOBAL_CONTEXT, PrivateKey, PublicKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]  # built by cffi

from tests.benchmarks.figures import cpu_each_us


def pair(secret: bytes) -> object:
    """libsecp256k1's key pair."""
    made = ffi.new("secp256k1_keypair *")
    lib.secp256k1_keypair_create(GLOBAL_CONTEXT.ctx, made, secret)
    return made


_KEY: Final = PrivateKey(secrets.token_bytes(32))
_OTHER: Final = PrivateKey(secrets.token_bytes(32))
_DIGEST: Final = secrets.token_bytes(32)
_SIGNATURE: Final = _KEY.sign_schnorr(_DIGEST)
_PAIR: Final = pair(secrets.token_bytes(32))
_POINT: Final = _KEY.public_key_xonly.format()
_PEER: Final = _OTHER.public_key.format()


def verify() -> object:
    """One Schnorr signature (BIP-340), the public key parsed as it comes off the wire."""
    return PublicKeyXOnly(_POINT).verify(_SIGNATURE, _DIGEST)


def sign() -> object:
    """One Schnorr signature by a key whose point is known: libsecp256k1's alone.

    coincurve's own method works the point out each time, and verifies what it has signed.
    """
    sig = ffi.new("unsigned char[64]")
    lib.secp256k1_schnorrsig_sign32(GLOBAL_CONTEXT.ctx, sig, _DIGEST, _PAIR, _DIGEST)
    return bytes(ffi.buffer(sig, 64))


def ecdh() -> object:
    """One ECDH, libsecp256k1's own."""
    return _KEY.ecdh(_PEER)


def fresh_key() -> object:
    """A key and its point: one multiplication of the generator."""
    return pair(secrets.token_bytes(32))


def multiply() -> object:
    """One multiplication of another point."""
    return PublicKey(_PEER).multiply(_DIGEST)


def hash_to_curve() -> object:
    """A point out of a hash (NUT-00): half of all hashes are none, so the second try gives one."""
    x = hashlib.sha256(_DIGEST).digest()
    try:
        return PublicKey(b"\2" + b"\xff" * 32)
    except ValueError:
        return PublicKey(_PEER), x


@dataclass(frozen=True, slots=True)
class Curve:
    """Curve operations that a piece of work cannot do without."""

    verify: int = 0
    sign: int = 0
    ecdh: int = 0
    fresh_key: int = 0
    multiply: int = 0
    hash_to_curve: int = 0

    def cpu_ms(self, count: int) -> float:
        """Processor milliseconds of all of them with bare coincurve; each timed `count` times."""
        works = (
            (self.verify, verify),
            (self.sign, sign),
            (self.ecdh, ecdh),
            (self.fresh_key, fresh_key),
            (self.multiply, multiply),
            (self.hash_to_curve, hash_to_curve),
        )
        return sum(times * cpu_each_us(work, count) for times, work in works if times) / 1_000


def account_order(chunks: int) -> Curve:
    """What a provider computes for one order from an account, streamed in so many events.

    The order comes as a gift wrap: outer signature and seal verified, one ECDH with the wrap's key
    (that with the author is known from earlier orders). The result goes out as a wrap: seal and
    wrap signed, a key used once, an ECDH with it, and one with the order's reply key. Acceptance,
    receipt and statement are signed. There is a session key; if it streams, one ECDH with it and a
    signature per event, and a wrap more, in which the acceptance goes ahead.
    """
    streams = int(chunks > 0)
    return Curve(
        verify=2,
        sign=2 + 3 + 2 * streams + chunks,
        ecdh=3 + 2 * streams,
        fresh_key=2 + streams,
    )


def token_order(chunks: int, coins: int) -> Curve:
    """The same paid with a token: `coins` that come in and go out of the swap are blinded or
    unblinded, and the mint's proof of each is checked (NUT-12)."""
    order = account_order(chunks)
    return Curve(
        verify=order.verify,
        sign=order.sign,
        ecdh=order.ecdh,
        fresh_key=order.fresh_key + 2 * coins,
        multiply=4 * coins,
        hash_to_curve=coins,
    )


def commits_per_s(folder: Path, count: int) -> float:
    """Single-insert transactions a second, each on disk when it returns (WAL, FULL): one fsync."""
    with closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS row (text TEXT)")
        began = time.perf_counter()
        for _ in range(count):
            connection.execute("INSERT INTO row VALUES (?)", ("x" * 200,))
        return count / (time.perf_counter() - began)
