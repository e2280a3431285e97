"""The group of the curve without the curve: its points are their own discrete logarithms.

Blind signatures and their proofs work as they do on secp256k1, byte for byte of the same shape, and
cost a multiplication of integers. Nothing is secret in it. `drawn` puts it in the place of
libsecp256k1 for one run; the code of `crypto.bdhke` that runs on it is the product's own.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import coincurve

from nostrllm.crypto import bdhke, keys
from nostrllm.crypto.keys import ORDER

_HALF: Final = (ORDER - 1) // 2


class ToyPoint:
    """What coincurve.PublicKey is to Cashu: even and odd are x and -x, half of all x are points."""

    __slots__ = ("_log",)

    def __init__(self, data: bytes | int) -> None:
        if isinstance(data, int):
            self._log = data % ORDER
            if not self._log:
                raise ValueError("the point at infinity")
            return
        x = int.from_bytes(data[1:], "big")
        if len(data) != 33 or data[0] not in (2, 3) or not 0 < x <= _HALF:
            raise ValueError("no point")
        self._log = x if data[0] == 2 else ORDER - x

    def format(self, compressed: bool = True) -> bytes:
        """33 bytes, or 65."""
        even = self._log <= _HALF
        x = (self._log if even else ORDER - self._log).to_bytes(32, "big")
        sign = b"\x02" if even else b"\x03"
        return sign + x if compressed else b"\x04" + x + sign.rjust(32, b"\0")

    def multiply(self, scalar: bytes) -> ToyPoint:
        """Scalar times point. Raises ValueError for what is no scalar."""
        number = int.from_bytes(scalar, "big")
        if not 0 < number < ORDER:
            raise ValueError("no scalar")
        return ToyPoint(self._log * number)

    @classmethod
    def from_secret(cls, secret: bytes) -> ToyPoint:
        """The public key. Raises ValueError for what is no secret."""
        return ToyKey(secret).public_key

    @classmethod
    def combine_keys(cls, points: Sequence[ToyPoint]) -> ToyPoint:
        """The sum. Raises ValueError when it is nothing."""
        return cls(sum(point._log for point in points))


class ToyKey:
    """What coincurve.PrivateKey is to Cashu."""

    __slots__ = ("public_key", "secret")

    def __init__(self, secret: bytes) -> None:
        if not 0 < int.from_bytes(secret, "big") < ORDER:
            raise ValueError("no secret")
        self.secret = secret
        self.public_key = ToyPoint(int.from_bytes(secret, "big"))

    def sign_schnorr(self, digest: bytes, aux: bytes) -> bytes:
        """A signature that whoever knows the public key can make."""
        return _signature(self.public_key.format()[1:], digest)


def _signature(pubkey: bytes, digest: bytes) -> bytes:
    return hashlib.sha512(pubkey + digest).digest()


def _verify(pubkey: str, sig: str, digest: bytes) -> bool:
    return _signature(bytes.fromhex(pubkey), digest).hex() == sig


@dataclass(frozen=True)
class Group:
    """Points and keys to reckon with."""

    point: Any
    key: Any
    verify: Callable[[str, str, bytes], bool]


CURVE: Final = Group(coincurve.PublicKey, coincurve.PrivateKey, keys.verify)
TOY: Final = Group(ToyPoint, ToyKey, _verify)


@contextlib.contextmanager
def drawn(group: Group) -> Iterator[None]:
    """Let the blind signatures of this process be of that group."""
    with mock.patch.multiple(
        bdhke, PublicKey=group.point, PrivateKey=group.key, verify=group.verify
    ):
        yield
