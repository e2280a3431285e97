"""Keys as people write them: npub, nsec, nprofile (NIP-19) and ncryptsec (NIP-49).

Used where a person or a file names a key, never on the hot path. nostr-sdk's own errors may quote
their input, so none of them is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nostr_sdk import (
    EncryptedSecretKey,
    Nip19Profile,
    NostrSdkError,
    PublicKey,
    RelayUrl,
    SecretKey,
)

from nostrllm.crypto import keys
from nostrllm.errors import ConfigError, LocalError

_SCHEME = "nostr:"
_HEX64 = re.compile(r"[0-9a-fA-F]{64}")


def to_npub(pubkey: str) -> str:
    """32 bytes of hex as npub. Raises ConfigError."""
    with _blaming("that is no public key"):
        return str(PublicKey.parse(_on_curve(pubkey)).to_bech32())


def to_nsec(secret: bytes) -> str:
    """32 secret bytes as nsec. Raises LocalError."""
    keys.load(secret)
    return str(SecretKey.from_bytes(secret).to_bech32())


def nprofile(pubkey: str, relays: Sequence[str]) -> str:
    """A public key and where to find its owner, as nprofile. Raises ConfigError."""
    with _blaming("a public key or a relay's URL is wrong"):
        author = PublicKey.parse(_on_curve(pubkey))
        return str(Nip19Profile(author, [RelayUrl.parse(url) for url in relays]).to_bech32())


def parse_pubkey(text: str) -> str:
    """npub, nprofile or hex, with or without `nostr:`, as hex. Raises ConfigError."""
    return parse_profile(text)[0]


def parse_profile(text: str) -> tuple[str, tuple[str, ...]]:
    """As `parse_pubkey`, with the relays that an nprofile names. Raises ConfigError."""
    bare = text.strip().removeprefix(_SCHEME)
    if bare.startswith("nsec1"):
        raise ConfigError("that is a secret key; only a public key belongs here")
    with _blaming("a public key is written as npub, nprofile or 64 digits of hex"):
        if bare.startswith("nprofile1"):
            profile = Nip19Profile.from_bech32(bare)
            relays = tuple(str(url) for url in profile.relays())
            return _on_curve(profile.public_key().to_hex()), relays
        return _on_curve(PublicKey.parse(bare).to_hex()), ()


def parse_secret(text: str) -> bytes:
    """nsec or hex as 32 bytes. Raises ConfigError, which never quotes the text."""
    bare = text.strip()
    if bare.startswith("ncryptsec1"):
        raise ConfigError("the secret key is encrypted: its password is needed")
    with _blaming("a secret key is written as nsec or 64 digits of hex"):
        if not (bare.startswith("nsec1") or _HEX64.fullmatch(bare)):
            raise ValueError
        return bytes.fromhex(SecretKey.parse(bare).to_hex())


def decrypt_ncryptsec(text: str, password: str) -> bytes:
    """The 32 secret bytes in an ncryptsec (NIP-49); takes about a second, by design.

    Raises ConfigError for a text that is none, LocalError for a wrong password.
    """
    with _blaming("an encrypted secret key is written as ncryptsec"):
        encrypted = EncryptedSecretKey.from_bech32(text.strip())
    try:
        return bytes.fromhex(encrypted.decrypt(password).to_hex())
    except (NostrSdkError, UnicodeError):
        raise LocalError("the password does not open the secret key") from None


def _on_curve(pubkey: str) -> str:
    if not keys.is_public_key(pubkey):
        raise ValueError
    return pubkey


@contextmanager
def _blaming(message: str) -> Iterator[None]:
    try:
        yield
    except (NostrSdkError, ValueError):
        raise ConfigError(message) from None
