"""Keys that sign and seal without cryptography: the contract of ports.Signer, cheap and seeded.

Public keys are real points, for the provider looks at that. A wrap names the place where the
keyring keeps its rumor; a signature is a hash that `verify` can recompute.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import Final

from coincurve import PublicKeyXOnly

from nostrllm.errors import RemoteError
from nostrllm.ports import Clock
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, Rumor, event_id

BACKDATE_S: Final = 2 * 86_400

#: What fits into a seal and a wrap (NIP-44: 65,535 bytes each, and each grows by a third).
SEALED_CHARS_MAX: Final = 48_000


class SimSigner:
    """ports.Signer."""

    def __init__(self, keyring: SimKeyring, secret: bytes) -> None:
        self._pubkey = PublicKeyXOnly.from_secret(secret).format().hex()
        self._keyring = keyring

    @property
    def pubkey(self) -> str:
        """See ports.Signer."""
        return self._pubkey

    async def sign(self, draft: Draft) -> Event:
        """See ports.Signer."""
        return _signed(draft, self._pubkey)

    async def wrap(
        self,
        rumor: Rumor,
        to: str,
        *,
        expiration: int | None = None,
        ephemeral: bool = False,
        work: int = 0,
    ) -> Event:
        """See ports.Signer; no work is done."""
        if len(rumor.content) > SEALED_CHARS_MAX:
            raise RemoteError("the message is too large", code="message-too-large")
        keyring = self._keyring
        tags: tuple[tuple[str, ...], ...] = (("p", to),)
        if expiration is not None:
            tags += (("expiration", str(expiration)),)
        kind = kinds.GIFT_WRAP_EPHEMERAL if ephemeral else kinds.GIFT_WRAP
        back_s = 0 if ephemeral else keyring.rng.randrange(BACKDATE_S)
        created_at = int(keyring.clock.now()) - back_s
        once = keyring.rng.randbytes(32).hex()
        return _signed(Draft(kind, keyring.seal(self._pubkey, to, rumor), created_at, tags), once)

    async def unwrap(self, wrap: Event) -> Rumor:
        """See ports.Signer."""
        sealed = self._keyring.sealed.get(wrap.content)
        if sealed is None or wrap.kind not in (kinds.GIFT_WRAP, kinds.GIFT_WRAP_EPHEMERAL):
            raise RemoteError("no gift wrap")
        author, to, letter = sealed
        if to != self._pubkey:
            raise RemoteError("not for this key")
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
    """ports.Keyring; fresh keys come from the seed. What was sealed lies here, not in the wrap."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self.clock = clock
        self.rng = rng
        self.sealed: dict[str, tuple[str, str, Rumor]] = {}

    def seal(self, author: str, to: str, rumor: Rumor) -> str:
        """The text by which the reader's signer finds the rumor again."""
        text = f"sealed {len(self.sealed)} {len(rumor.content)}"
        self.sealed[text] = (author, to, rumor)
        return text

    def signer(self, secret: bytes | None = None) -> SimSigner:
        """See ports.Keyring."""
        return SimSigner(self, secret or self.rng.randbytes(32))

    def verify(self, event: Event) -> bool:
        """See ports.Keyring."""
        draft = Draft(event.kind, event.content, event.created_at, event.tags)
        return _signed(draft, event.pubkey) == event


def _signed(draft: Draft, pubkey: str) -> Event:
    number = event_id(pubkey, draft.created_at, draft.kind, draft.tags, draft.content)
    sig = hashlib.sha512(f"{pubkey}{number}".encode()).hexdigest()
    return Event(number, pubkey, draft.created_at, draft.kind, draft.tags, draft.content, sig)
