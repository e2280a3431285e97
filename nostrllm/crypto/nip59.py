"""NIP-59: a rumor in a seal in a gift wrap.

The seal proves who wrote the rumor and hides what it says; the wrap, signed by a key used once,
hides who wrote it. Nothing is drawn or read here: keys, nonces and times come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from nostrllm.crypto import nip44
from nostrllm.crypto.keys import KeyPair, sign_event, verify_event
from nostrllm.errors import LocalError, RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, Rumor, Tags, parse_event, parse_rumor
from nostrllm.wire.pow import mined

WRAP_KINDS: Final = (kinds.GIFT_WRAP, kinds.GIFT_WRAP_EPHEMERAL)


@dataclass(frozen=True, slots=True, repr=False)
class Wrapping:
    """All that a gift wrap needs besides the rumor; secret, so it has no repr.

    `once` is a fresh key, the nonces are 32 fresh bytes each, times are unix seconds.
    `work`: zero bits that the wrap's id is to have (NIP-13).
    `conversation` is the NIP-44 key of author and `to`, when the caller keeps it.
    """

    author: KeyPair
    to: str
    once: KeyPair
    seal_nonce: bytes
    wrap_nonce: bytes
    seal_created_at: int
    wrap_created_at: int
    expiration: int | None = None
    ephemeral: bool = False
    work: int = 0
    conversation: bytes | None = None


def seal(rumor: Rumor, how: Wrapping) -> Event:
    """The rumor encrypted to `how.to` and signed by its author (kind 13).

    Raises LocalError when the author's key did not write the rumor, RemoteError when it is too
    long or the recipient's key is none.
    """
    if rumor.pubkey != how.author.pubkey:
        raise LocalError("only a rumor's author can seal it")
    key = how.conversation or nip44.conversation_key(how.author.secret, how.to)
    text = nip44.encrypt(key, _json(rumor), how.seal_nonce)
    return sign_event(Draft(kinds.SEAL, text, how.seal_created_at), how.author)


def wrap(rumor: Rumor, how: Wrapping) -> Event:
    """The rumor sealed and wrapped: kind 1059, or 21059 which relays do not keep.

    Raises LocalError and RemoteError as `seal` does.
    """
    key = nip44.conversation_key(how.once.secret, how.to)
    text = nip44.encrypt(key, _json(seal(rumor, how)), how.wrap_nonce)
    tags: Tags = (("p", how.to),)
    if how.expiration is not None:
        tags = (*tags, ("expiration", str(how.expiration)))
    kind = kinds.GIFT_WRAP_EPHEMERAL if how.ephemeral else kinds.GIFT_WRAP
    draft = Draft(kind, text, how.wrap_created_at, tags)
    if how.work:
        draft = mined(draft, how.once.pubkey, how.work)
    return sign_event(draft, how.once)


def open_wrap(event: Event, secret: bytes, *, verify_outer: bool = False) -> Event:
    """The seal inside a gift wrap to `secret`: kind and signature checked, tags ignored.

    The outer signature is by a key nobody knows, so it proves nothing; `verify_outer` is for
    events that no relay adapter has verified. Raises RemoteError.
    """
    if event.kind not in WRAP_KINDS:
        raise RemoteError("the event is not a gift wrap")
    if verify_outer and not verify_event(event):
        raise RemoteError("the gift wrap's signature is wrong")
    inner = parse_event(_loads(nip44.decrypt(_conversation(event, secret), event.content)))
    if inner.kind != kinds.SEAL:
        raise RemoteError("the gift wrap holds no seal")
    if not verify_event(inner):
        raise RemoteError("the seal's signature is wrong")
    return inner


def open_seal(event: Event, conversation: bytes) -> Rumor:
    """The rumor inside a seal that `open_wrap` gave; its author is the seal's, its id recomputed.

    `conversation` is the NIP-44 key of reader and `event.pubkey`. Raises RemoteError.
    """
    inner = parse_rumor(_loads(nip44.decrypt(conversation, event.content)))
    if inner.pubkey != event.pubkey:
        raise RemoteError("the rumor is not by the author of its seal")
    return inner


def unwrap(event: Event, secret: bytes, *, verify_outer: bool = False) -> Rumor:
    """The rumor in a gift wrap to `secret`, everything checked. Raises RemoteError."""
    inner = open_wrap(event, secret, verify_outer=verify_outer)
    return open_seal(inner, _conversation(inner, secret))


def _conversation(event: Event, secret: bytes) -> bytes:
    return nip44.conversation_key(secret, event.pubkey)


def _json(what: Rumor | Event) -> bytes:
    try:
        return orjson.dumps(what.as_dict())
    except orjson.JSONEncodeError:
        raise RemoteError("the event holds text that is not Unicode") from None


def _loads(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RemoteError("the decrypted text is not JSON") from None
