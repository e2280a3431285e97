"""Payment requests in the form for QR codes (NUT-26): `creqb1…`, TLV in Bech32m.

A nostr target travels as the bare key, its relays as tags `r`; here it is an nprofile again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NoReturn

from nostrllm.errors import LocalError, RemoteError
from nostrllm.wire import bech32
from nostrllm.wire.nip19 import Profile, encode_profile, parse_profile
from nostrllm.wire.payment_request import (
    ITEMS_MAX,
    LockWanted,
    PaymentRequest,
    Tags,
    Transport,
    checked,
)
from nostrllm.wire.token import AMOUNT_MAX

PREFIX: Final = "creqb"

_ID, _AMOUNT, _UNIT, _SINGLE, _MINT, _DESCRIPTION, _TRANSPORT, _LOCK = range(1, 9)
_KIND, _TARGET, _TAG = 1, 2, 3
_SAT: Final = b"\0"
_LOCKS: Final = {"P2PK": 0, "HTLC": 1}
_NOSTR, _POST = 0, 1

Fields = dict[int, list[bytes]]


def _refuse(why: str) -> NoReturn:
    raise RemoteError(f"payment request: {why}")


def encode_request(request: PaymentRequest) -> str:
    """The request as `CREQB1…`, upper case for QR codes. Raises LocalError, RemoteError for what
    this form cannot say."""
    unit = request.unit
    fields: list[tuple[int, bytes | None]] = [
        (_ID, _bytes(request.id)),
        (_AMOUNT, None if request.amount is None else request.amount.to_bytes(8, "big")),
        (_UNIT, _SAT if unit == "sat" else _bytes(unit)),
        (_SINGLE, None if request.single_use is None else bytes([request.single_use])),
        *((_MINT, _bytes(url)) for url in request.mints),
        (_DESCRIPTION, _bytes(request.description)),
        *((_TRANSPORT, _as_transport(one)) for one in request.transports),
        (_LOCK, None if request.lock is None else _as_lock(request.lock)),
    ]
    return bech32.encode(PREFIX, _tlv(fields), modified=True).upper()


def parse_request(text: str) -> PaymentRequest:
    """A `creqb1…` text, in either case. Raises RemoteError; unknown fields are passed over."""
    prefix, data = bech32.decode(text, modified=True)
    if prefix != PREFIX:
        _refuse("another prefix")
    fields = _fields(data)
    unit, single, amount = _one(fields, _UNIT), _one(fields, _SINGLE), _one(fields, _AMOUNT)
    lock = _one(fields, _LOCK)
    if single not in (None, b"\0", b"\1") or len(amount or b"8 bytes.") != 8:
        _refuse("single use or amount has another size")
    transports = (_transport(value) for value in fields.get(_TRANSPORT, ()))
    return checked(
        PaymentRequest(
            id=_text(_one(fields, _ID)),
            amount=None if amount is None else _amount(amount),
            unit="sat" if unit == _SAT else _text(unit),
            single_use=None if single is None else single == b"\1",
            mints=tuple(_words(value) for value in fields.get(_MINT, ())),
            description=_text(_one(fields, _DESCRIPTION)),
            transports=tuple(one for one in transports if one is not None),
            lock=None if lock is None else _lock(lock),
        )
    )


# out


def _tlv(fields: list[tuple[int, bytes | None]]) -> bytes:
    said = [(kind, value) for kind, value in fields if value is not None]
    if any(len(value) > 0xFFFF for _, value in said):
        raise LocalError("a part of the payment request is too long for this form")
    return b"".join(bytes([kind]) + len(value).to_bytes(2, "big") + value for kind, value in said)


def _as_transport(one: Transport) -> bytes:
    tags, target = one.tags, one.target.encode()
    if one.kind == "nostr":
        profile = parse_profile(one.target)
        target = bytes.fromhex(profile.pubkey)
        tags = (*tags, *(("r", url) for url in profile.relays))
    elif one.kind != "post":
        raise LocalError(f"there is no short form of the transport {one.kind!r}")
    kind = _NOSTR if one.kind == "nostr" else _POST
    return _tlv([(_KIND, bytes([kind])), (_TARGET, target), *_as_tags(tags)])


def _as_lock(lock: LockWanted) -> bytes:
    if lock.kind not in _LOCKS:
        raise LocalError(f"there is no short form of the lock {lock.kind!r}")
    kind = bytes([_LOCKS[lock.kind]])
    return _tlv([(_KIND, kind), (_TARGET, lock.data.encode()), *_as_tags(lock.tags)])


def _as_tags(tags: Tags) -> list[tuple[int, bytes | None]]:
    out: list[tuple[int, bytes | None]] = []
    for tag in tags:
        values = [value.encode() for value in tag]
        if any(len(value) > 0xFF for value in values):
            raise LocalError("a tag of the payment request is too long for this form")
        out.append((_TAG, b"".join(bytes([len(value)]) + value for value in values)))
    return out


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


# in


def _fields(data: bytes) -> Fields:
    fields: Fields = {}
    at = 0
    while at < len(data):
        head = data[at : at + 3]
        end = at + 3 + int.from_bytes(head[1:], "big")
        if len(head) < 3 or end > len(data):
            _refuse("it ends too early")
        values = fields.setdefault(head[0], [])
        values.append(data[at + 3 : end])
        if len(values) > ITEMS_MAX:
            _refuse("too many of one kind")
        at = end
    return fields


def _one(fields: Fields, kind: int) -> bytes | None:
    values = fields.get(kind, [])
    if len(values) > 1:
        _refuse("a part is there twice")
    return values[0] if values else None


def _needed(fields: Fields, kind: int) -> bytes:
    value = _one(fields, kind)
    if value is None:
        _refuse("a part is missing")
    return value


def _transport(data: bytes) -> Transport | None:
    """A transport; None for one of a kind that we do not know."""
    fields = _fields(data)
    kind, target, tags = _needed(fields, _KIND), _needed(fields, _TARGET), _tags(fields)
    if kind == bytes([_POST]):
        return Transport("post", _words(target), tags)
    if kind != bytes([_NOSTR]):
        return None
    if len(target) != 32:
        _refuse("a key is not of 32 bytes")
    relays = tuple(tag[1] for tag in tags if tag[:1] == ("r",) and len(tag) > 1)
    others = tuple(tag for tag in tags if tag[:1] != ("r",))
    return Transport("nostr", encode_profile(Profile(target.hex(), relays)), others)


def _lock(data: bytes) -> LockWanted:
    fields = _fields(data)
    kind, wanted = _needed(fields, _KIND), _needed(fields, _TARGET)
    names = {bytes([number]): name for name, number in _LOCKS.items()}
    if kind not in names:
        _refuse("a lock of an unknown kind")
    return LockWanted(names[kind], _words(wanted), _tags(fields))


def _tags(fields: Fields) -> Tags:
    return tuple(tuple(_tag(value)) for value in fields.get(_TAG, ()))


def _tag(data: bytes) -> Iterator[str]:
    while data:
        value = data[1 : 1 + data[0]]
        if len(value) != data[0]:
            _refuse("a tag ends too early")
        yield _words(value)
        data = data[1 + len(value) :]


def _amount(value: bytes) -> int:
    amount = int.from_bytes(value, "big")
    if amount > AMOUNT_MAX:
        _refuse("the amount is too large")
    return amount


def _text(value: bytes | None) -> str | None:
    return None if value is None else _words(value)


def _words(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        _refuse("a text is not UTF-8")
