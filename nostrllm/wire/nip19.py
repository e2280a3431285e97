"""A key and where its owner reads, as `nprofile1…` or `npub1…` (NIP-19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nostrllm.errors import RemoteError
from nostrllm.wire import bech32

_PUBKEY: Final = 0
_RELAY: Final = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """`pubkey`: 32 bytes of hex; `relays`: URLs, as written."""

    pubkey: str
    relays: tuple[str, ...] = ()


def encode_profile(profile: Profile) -> str:
    """As nprofile; as npub where there is no relay."""
    key = bytes.fromhex(profile.pubkey)
    if not profile.relays:
        return bech32.encode("npub", key, modified=False)
    fields = [(_PUBKEY, key), *((_RELAY, url.encode()) for url in profile.relays)]
    data = b"".join(bytes([kind, len(value)]) + value for kind, value in fields)
    return bech32.encode("nprofile", data, modified=False)


def parse_profile(text: str) -> Profile:
    """An npub or nprofile. Raises RemoteError; fields that it does not know are passed over."""
    prefix, data = bech32.decode(text, modified=False)
    if prefix == "npub" and len(data) == 32:
        return Profile(data.hex())
    if prefix != "nprofile":
        raise RemoteError("this is no public key")
    keys: list[str] = []
    relays: list[str] = []
    while data:
        value = data[2 : 2 + data[1]] if len(data) > 1 else b""
        if len(data) < 2 or len(value) != data[1]:
            raise RemoteError("the nprofile ends too early")
        if data[0] == _PUBKEY:
            keys.append(value.hex())
        elif data[0] == _RELAY:
            relays.append(_url(value))
        data = data[2 + data[1] :]
    if len(keys) != 1 or len(keys[0]) != 64:
        raise RemoteError("the nprofile has not one key")
    return Profile(keys[0], tuple(relays))


def _url(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise RemoteError("a relay's URL is not ASCII") from None
