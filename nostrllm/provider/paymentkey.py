"""The key that coins are locked to, so that only this provider can take them (NUT-11)."""

from __future__ import annotations

import secrets

from nostrllm.crypto.bdhke import public_key_of, sign_secret, witness
from nostrllm.crypto.keys import derive


class PaymentKey:
    """Belongs to one store: no other knows which of the coins that it can spend were claimed.

    It is derived from the seed and the store's name, which is read when the provider opens.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._secret = b""
        self.public = ""

    def open(self, instance: str) -> None:
        """From now on it is the key of the store of this name; `public` is compressed hex."""
        self._secret = derive(self._seed, "payment", instance)
        self.public = public_key_of(self._secret)

    def sign(self, secret: str) -> str:
        """Its signature on the secret of a coin, in hex: what releases one to its payer."""
        return sign_secret(secret, self._secret, secrets.token_bytes(32))

    def unlock(self, secret: str) -> str:
        """The witness by which the mint takes such a coin from us."""
        return witness(self.sign(secret))
