"""Keys that sign and seal without cryptography: the contract of ports.Signer, cheap and seeded.

Public keys are real points, for the provider looks at that. A wrap carries its rumor as plain JSON
with the names of author and reader; a signature is a hash that `verify` can recompute.
"""

from __future__ import annotations

import hashlib
import json
import random

from coincurve import PublicKeyXOnly

from nostrllm.errors import RemoteError
from nostrllm.ports import Clock
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, Rumor, event_id, parse_rumor

BACKDATE_S = 2 * 86_400


class SimSigner:
    """ports.Signer."""

    def __init__(self, secret: bytes, clock: Clock, rng: random.Random) -> None:
        self._pubkey = PublicKeyXOnly.from_secret(secret).format().hex()
        self._clock = clock
        self._rng = rng

    @property
    def pubkey(self) -> str:
        """See ports.Signer."""
        return self._pubkey

    async def sign(self, draft: Draft) -> Event:
        """See ports.Signer."""
        return _signed(draft, self._pubkey)

    async def wrap(
        self, rumor: Rumor, to: str, *, expiration: int | None = None, ephemeral: bool = False
    ) -> Event:
        """See ports.Signer."""
        content = {"from": self._pubkey, "to": to, "rumor": rumor.as_dict()}
        back_s = 0 if ephemeral else self._rng.randrange(BACKDATE_S)
        tags: tuple[tuple[str, ...], ...] = (("p", to),)
        if expiration is not None:
            tags += (("expiration", str(expiration)),)
        kind = kinds.GIFT_WRAP_EPHEMERAL if ephemeral else kinds.GIFT_WRAP
        created_at = int(self._clock.now()) - back_s
        once = self._rng.randbytes(32).hex()
        return _signed(Draft(kind, json.dumps(content), created_at, tags), once)

    async def unwrap(self, wrap: Event) -> Rumor:
        """See ports.Signer."""
        try:
            content = json.loads(wrap.content)
            author, to = content["from"], content["to"]
        except (ValueError, TypeError, KeyError):
            raise RemoteError("no gift wrap") from None
        if to != self._pubkey:
            raise RemoteError("not for this key")
        letter = parse_rumor(content["rumor"])
        if letter.pubkey != author:
            raise RemoteError("the rumor is not by the seal's author")
        return letter

    async def encrypt(self, text: str, to: str) -> str:
        """See ports.Signer."""
        return json.dumps([self._pubkey, to, text])

    async def decrypt(self, payload: str, author: str) -> str:
        """See ports.Signer."""
        try:
            by, to, text = json.loads(payload)
        except (ValueError, TypeError):
            raise RemoteError("not encrypted") from None
        if (by, to) != (author, self._pubkey):
            raise RemoteError("not for this key")
        return str(text)

    encrypt_legacy = encrypt
    decrypt_legacy = decrypt


class SimKeyring:
    """ports.Keyring; fresh keys come from the seed."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng

    def signer(self, secret: bytes | None = None) -> SimSigner:
        """See ports.Keyring."""
        return SimSigner(secret or self._rng.randbytes(32), self._clock, self._rng)

    def verify(self, event: Event) -> bool:
        """See ports.Keyring."""
        draft = Draft(event.kind, event.content, event.created_at, event.tags)
        return _signed(draft, event.pubkey) == event


def _signed(draft: Draft, pubkey: str) -> Event:
    number = event_id(pubkey, draft.created_at, draft.kind, draft.tags, draft.content)
    sig = hashlib.sha512(f"{pubkey}{number}".encode()).hexdigest()
    return Event(number, pubkey, draft.created_at, draft.kind, draft.tags, draft.content, sig)
