"""Cashu payment requests and what answers them (NUT-18): text and JSON ⇄ frozen objects.

`creqA…` is CBOR; the form for QR codes, `creqb1…`, is in `wire.creqb` (NUT-26) and read here too.
Every reader is total: any input gives an object, or RemoteError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from nostrllm.errors import RemoteError
from nostrllm.wire import base64url, cbor
from nostrllm.wire.token import AMOUNT_MAX, Token, checked_token, normal_url

TEXT_CHARS_MAX: Final = 16_384
ITEMS_MAX: Final = 64
FIELD_CHARS_MAX: Final = 4_096
PAYLOAD_CHARS_MAX: Final = 300_000
ID_CHARS_MAX: Final = 256

Tags = tuple[tuple[str, ...], ...]

#: For a person, to whom CBOR and JSON mean nothing.
UNREADABLE: Final = "the payment cannot be read"


def _refuse(why: str) -> NoReturn:
    raise RemoteError(f"payment request: {why}")


@dataclass(frozen=True, slots=True)
class Transport:
    """Where the coins go: `kind` is `nostr` (target: nprofile) or `post` (target: URL)."""

    kind: str
    target: str
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class LockWanted:
    """How the coins are to be locked (NUT-10): a secret's kind, data and tags."""

    kind: str
    data: str
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What is asked for; `amount` in units, what the payee is to have after the mint's input fee.

    What is None or () is not said: any amount, any mint, in-band.
    """

    id: str | None = None
    amount: int | None = None
    unit: str | None = None
    single_use: bool | None = None
    mints: tuple[str, ...] = ()
    description: str | None = None
    transports: tuple[Transport, ...] = ()
    lock: LockWanted | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """Coins that answer a request (PaymentRequestPayload); `id` is the request's."""

    id: str | None
    token: Token


def encode_request(request: PaymentRequest) -> str:
    """The request as `creqA…`."""
    body: dict[str, Any] = {
        "i": request.id,
        "a": request.amount,
        "u": request.unit,
        "s": request.single_use,
        "m": list(request.mints) or None,
        "d": request.description,
        "t": [_as_transport(one) for one in request.transports] or None,
        "nut10": None if request.lock is None else _as_lock(request.lock),
    }
    said = {key: value for key, value in body.items() if value is not None}
    return "creqA" + base64url.encode(cbor.dumps(said))


def parse_request(text: object) -> PaymentRequest:
    """A `creqA…` text. Raises RemoteError; fields it does not know are passed over."""
    if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX or not text.startswith("creqA"):
        _refuse("no text of this form, or too long")
    try:
        fields = _object(cbor.loads(base64url.decode(text[5:])))
    except ValueError:
        _refuse("not base64")
    lock = fields.get("nut10")
    return checked(
        PaymentRequest(
            id=_text_or_none(fields.get("i")),
            amount=_amount(fields.get("a")),
            unit=_text_or_none(fields.get("u")),
            single_use=_flag(fields.get("s")),
            mints=tuple(_text(url) for url in _list(fields.get("m"))),
            description=_text_or_none(fields.get("d")),
            transports=tuple(_transport(raw) for raw in _list(fields.get("t"))),
            lock=None if lock is None else _lock(lock),
        )
    )


def checked(request: PaymentRequest) -> PaymentRequest:
    """The request, if it says what it must: an amount has a unit. Raises RemoteError."""
    if request.amount is not None and request.unit is None:
        _refuse("an amount without a unit")
    return request


def _as_transport(one: Transport) -> dict[str, Any]:
    return {"t": one.kind, "a": one.target} | _as_tags("g", one.tags)


def _as_lock(lock: LockWanted) -> dict[str, Any]:
    return {"k": lock.kind, "d": lock.data} | _as_tags("t", lock.tags)


def _as_tags(name: str, tags: Tags) -> dict[str, Any]:
    return {name: [list(tag) for tag in tags]} if tags else {}


def _transport(raw: object) -> Transport:
    fields = _object(raw)
    return Transport(_text(fields.get("t")), _text(fields.get("a")), _tags(fields.get("g")))


def _lock(raw: object) -> LockWanted:
    fields = _object(raw)
    return LockWanted(_text(fields.get("k")), _text(fields.get("d")), _tags(fields.get("t")))


def _tags(raw: object) -> Tags:
    return tuple(tuple(_text(value) for value in _list(tag)) for tag in _list(raw))


def _object(raw: object) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        _refuse("a part is no object")
    return raw


def _list(raw: object) -> list[Any]:
    if raw is None:
        return []
    if not isinstance(raw, list) or len(raw) > ITEMS_MAX:
        _refuse("a part is no list, or too long")
    return raw


def _text(raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > FIELD_CHARS_MAX:
        _refuse("a part is no text, or too long")
    return raw


def _text_or_none(raw: object) -> str | None:
    return None if raw is None else _text(raw)


def _amount(raw: object) -> int | None:
    if raw is None:
        return None
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= AMOUNT_MAX:
        _refuse("the amount is no whole number")
    return raw


def _flag(raw: object) -> bool | None:
    if raw is not None and not isinstance(raw, bool):
        _refuse("single use is yes or no")
    return raw


# what answers


def encode_payload(payload: Payload) -> str:
    """The JSON text that a wallet sends; keyset ids and DLEQs are whole in it."""
    body: dict[str, Any] = {} if payload.id is None else {"id": payload.id}
    if payload.token.memo is not None:
        body["memo"] = payload.token.memo
    proofs = [proof.as_dict() for proof in payload.token.proofs]
    body |= {"mint": payload.token.mint, "unit": payload.token.unit, "proofs": proofs}
    return json.dumps(body, separators=(",", ":"))


def is_payload(text: str) -> bool:
    """Is this meant as a payload? Also a damaged one is: it has coins in it, and is no prompt."""
    return text.lstrip().startswith("{") and '"proofs"' in text


def parse_payload(text: str) -> Payload:
    """A PaymentRequestPayload. Raises RemoteError `payment-token-invalid`.

    What a wallet says beside is passed over, a witness too: coins for us need ours.
    """
    if len(text) > PAYLOAD_CHARS_MAX:
        raise _invalid("the payment is too long")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid(UNREADABLE) from None
    if not isinstance(fields, dict) or not isinstance(fields.get("proofs"), list):
        raise _invalid(UNREADABLE)
    named, memo, unit = (fields.get(name) for name in ("id", "memo", "unit"))
    # An id that no request of ours can have is as good as none.
    known = isinstance(named, str) and len(named) <= ID_CHARS_MAX and named.isprintable()
    return Payload(
        named if known else None,
        checked_token(
            normal_url(fields.get("mint")),
            "sat" if unit is None else unit,
            [_bare(raw) for raw in fields["proofs"]],
            memo,
        ),
    )


def _bare(raw: object) -> object:
    return {k: v for k, v in raw.items() if k != "witness"} if isinstance(raw, dict) else raw


def _invalid(why: str) -> RemoteError:
    return RemoteError(why, code="payment-token-invalid")
