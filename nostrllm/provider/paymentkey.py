"""The key that coins are locked to, so that only this provider can take them (NUT-11)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence

from nostrllm.crypto.bdhke import public_key_of, sign_secret, witness
from nostrllm.crypto.keys import derive


class PaymentKey:
    """Belongs to one store: no other knows which of the coins that it can spend were claimed.

    It is derived from the seed and the store's name, which is read when the provider opens.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._secrets: dict[str, bytes] = {}
        self.public = ""

    def open(self, instance: str, former: Sequence[str] = ()) -> None:
        """From now on it is the key of the store of this name; `public` is compressed hex.

        Coins locked to it under one of its `former` names can still be taken.
        """
        found = [derive(self._seed, "payment", name) for name in (*former, instance)]
        self._secrets = {public_key_of(secret): secret for secret in found}
        self.public = public_key_of(found[-1])

    def sign(self, secret: str) -> str:
        """Its signature on the secret of a coin, in hex: what releases one to its payer."""
        key = self._secrets.get(_locked_to(secret)) or self._secrets[self.public]
        return sign_secret(secret, key, secrets.token_bytes(32))

    def unlock(self, secret: str) -> str:
        """The witness by which the mint takes such a coin from us."""
        return witness(self.sign(secret))


def _locked_to(secret: str) -> str:
    """The key that a locked secret names first; "" for another."""
    try:
        return str(json.loads(secret)[1]["data"])
    except (ValueError, LookupError, TypeError):
        return ""
