"""Keys that live in this process: `ports.Signer` and `ports.Keyring` on our own crypto.

Randomness and time enter here. An ECDH costs as much as a signature, so the conversation keys of
recent peers are kept; one-off keys of gift wraps are not, they never come again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import Final

from coincurve.utils import get_valid_secret

from nostrllm.crypto import keys, nip04, nip44, nip59
from nostrllm.errors import RemoteError
from nostrllm.ports import Clock
from nostrllm.wire.event import Draft, Event, Rumor

#: How far back a stored wrap may be dated (NIP-59), so that its time says nothing.
BACKDATE_S: Final = 2 * 86_400
CONVERSATIONS_MAX: Final = 1_024


class LocalSigner:
    """One secret key in memory; neither repr nor an error ever shows it."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        """`secret`: 32 bytes. Raises LocalError when they are no key."""
        self._key = keys.load(secret)
        self._clock = clock
        self._conversations: OrderedDict[str, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"LocalSigner({self.pubkey[:8]}…)"

    def __reduce__(self) -> str:
        raise TypeError("a signer is not copied or pickled")

    @property
    def pubkey(self) -> str:
        """32 bytes, x-only, hex."""
        return self._key.pubkey

    async def sign(self, draft: Draft) -> Event:
        """The draft as an event by this key (NIP-01)."""
        return keys.sign_event(draft, self._key, secrets.token_bytes(32))

    async def wrap(
        self,
        rumor: Rumor,
        to: str,
        *,
        expiration: int | None = None,
        ephemeral: bool = False,
        work: int = 0,
    ) -> Event:
        """`rumor`, which this key wrote, sealed and gift-wrapped for `to` (NIP-59)."""
        how = nip59.Wrapping(
            author=self._key,
            to=to,
            once=keys.load(get_valid_secret()),
            seal_nonce=secrets.token_bytes(32),
            wrap_nonce=secrets.token_bytes(32),
            seal_created_at=self._created_at(ephemeral),
            wrap_created_at=self._created_at(ephemeral),
            expiration=expiration,
            ephemeral=ephemeral,
            work=work,
            conversation=self._conversation(to),
        )
        if work:
            return await asyncio.to_thread(nip59.wrap, rumor, how)
        return nip59.wrap(rumor, how)

    async def unwrap(self, wrap: Event) -> Rumor:
        """The rumor in a gift wrap to this key; seal, author and id are all checked."""
        inner = nip59.open_wrap(wrap, self._key.secret)
        return nip59.open_seal(inner, self._conversation(inner.pubkey))

    async def encrypt(self, text: str, to: str) -> str:
        """NIP-44 version 2."""
        return nip44.encrypt(self._conversation(to), _bytes(text), secrets.token_bytes(32))

    async def decrypt(self, payload: str, author: str) -> str:
        """NIP-44 version 2. Raises RemoteError."""
        return _text(nip44.decrypt(self._conversation(author), payload))

    async def encrypt_legacy(self, text: str, to: str) -> str:
        """NIP-04."""
        key = nip04.conversation_key(self._key.secret, to)
        return nip04.encrypt(key, _bytes(text), secrets.token_bytes(16))

    async def decrypt_legacy(self, payload: str, author: str) -> str:
        """NIP-04. Raises RemoteError."""
        key = nip04.conversation_key(self._key.secret, author)
        return _text(nip04.decrypt(key, payload))

    def _created_at(self, ephemeral: bool) -> int:
        """Relays refuse ephemeral events that look old, so only stored ones are back-dated."""
        return int(self._clock.now()) - (0 if ephemeral else secrets.randbelow(BACKDATE_S))

    def _conversation(self, pubkey: str) -> bytes:
        """The NIP-44 key shared with `pubkey`, from the recent ones if it is there."""
        key = self._conversations.get(pubkey)
        if key is None:
            key = nip44.conversation_key(self._key.secret, pubkey)
            self._conversations[pubkey] = key
            if len(self._conversations) > CONVERSATIONS_MAX:
                self._conversations.popitem(last=False)
        else:
            self._conversations.move_to_end(pubkey)
        return key


class LocalKeyring:
    """Makes local signers, and verifies anybody's events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def signer(self, secret: bytes | None = None) -> LocalSigner:
        """A signer for 32 secret bytes, or for a fresh random key. Raises LocalError."""
        return LocalSigner(get_valid_secret() if secret is None else secret, self._clock)

    def verify(self, event: Event) -> bool:
        """Do id and signature belong to the event?"""
        return keys.verify_event(event)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise RemoteError("the text is not Unicode") from None


def _text(plaintext: bytes) -> str:
    try:
        return plaintext.decode()
    except UnicodeDecodeError:
        raise RemoteError("the decrypted text is not UTF-8") from None
