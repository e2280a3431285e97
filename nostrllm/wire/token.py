"""Cashu tokens, V3 and V4, as data (NUT-00): text ⇄ frozen objects.

Form only: whether a coin is signed and unspent is for `crypto.bdhke` and the mint to say. Every
reader is total: any input gives an object, or RemoteError `payment-token-invalid`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from nostrllm.errors import RemoteError
from nostrllm.wire import base64url, cbor

TOKEN_BYTES_MAX: Final = 128 * 1024
PROOFS_MAX: Final = 256
AMOUNT_MAX: Final = (1 << 63) - 1
SECRET_BYTES_MAX: Final = 1_024
WITNESS_BYTES_MAX: Final = 4_096
MEMO_BYTES_MAX: Final = 4_096
URL_BYTES_MAX: Final = 512

#: For a person, to whom base64, JSON and CBOR mean nothing.
UNREADABLE: Final = "the token cannot be read; perhaps not all of it was pasted"

_POINT = re.compile(r"0[23][0-9a-f]{64}")
_SCALAR = re.compile(r"[0-9a-f]{64}")
#: Version 00, short version 01 (V4 tokens), full version 01 (NUT-02).
_KEYSET_ID = re.compile(r"0[01][0-9a-f]{14}|01[0-9a-f]{64}")
_UNIT = re.compile(r"[a-z0-9_-]{1,16}")
_HOST = re.compile(r"[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\]")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
#: What must not stay in a text; only the first group is money for us.
_BEARER = re.compile(
    r"(?:web\+cashu://|cashu:(?://)?)?"
    r"(?:(cashu[AB][A-Za-z0-9_+/=-]{8,})|creqA[A-Za-z0-9_+/=-]{8,}"
    r"|(?i:creqb1[a-z0-9]{6,}|nsec1[a-z0-9]{6,}|ncryptsec1[a-z0-9]{6,}))"
)


def _refuse(why: str) -> NoReturn:
    raise RemoteError(why, code="payment-token-invalid")


@dataclass(frozen=True, slots=True)
class Dleq:
    """The mint's proof that it signed (NUT-12); hex scalars. `r` is the blinding factor."""

    e: str
    s: str
    r: str | None = None

    def as_dict(self) -> dict[str, str]:
        """As NUT-12 writes it."""
        return {"e": self.e, "s": self.s} | ({} if self.r is None else {"r": self.r})

    @classmethod
    def from_dict(cls, raw: object) -> Dleq:
        """Raises RemoteError unless e, s (and r, if there) are 32 bytes of hex."""
        fields = _fields(raw, "DLEQ")
        r = fields.get("r")
        e, s = (_matching(fields.get(name), _SCALAR, "DLEQ") for name in "es")
        return cls(e, s, None if r is None else _matching(r, _SCALAR, "DLEQ"))


@dataclass(frozen=True, slots=True)
class Proof:
    """A coin: `amount` in units of its keyset, `C` compressed hex, `id` the keyset's."""

    id: str
    amount: int
    secret: str
    C: str
    dleq: Dleq | None = None
    witness: str | None = None

    def as_input(self) -> dict[str, Any]:
        """What a mint needs of it to spend it; the DLEQ stays here, its `r` would unblind us."""
        base = {"id": self.id, "amount": self.amount, "secret": self.secret, "C": self.C}
        return base | ({} if self.witness is None else {"witness": self.witness})

    def as_dict(self) -> dict[str, Any]:
        """Everything, as in a V3 token."""
        return self.as_input() | ({} if self.dleq is None else {"dleq": self.dleq.as_dict()})

    @classmethod
    def from_dict(cls, raw: object) -> Proof:
        """Raises RemoteError for anything that has not the form of a proof."""
        fields = _fields(raw, "proof")
        dleq, witness = fields.get("dleq"), fields.get("witness")
        return cls(
            _matching(fields.get("id"), _KEYSET_ID, "keyset id"),
            _amount(fields.get("amount")),
            _text(fields.get("secret"), SECRET_BYTES_MAX, "secret"),
            _matching(fields.get("C"), _POINT, "C"),
            None if dleq is None else Dleq.from_dict(dleq),
            None if witness is None else _text(witness, WITNESS_BYTES_MAX, "witness"),
        )


@dataclass(frozen=True, slots=True)
class BlindedMessage:
    """An output we ask the mint to sign (NUT-00)."""

    amount: int
    id: str
    B_: str

    def as_dict(self) -> dict[str, Any]:
        """As NUT-00 writes it."""
        return {"amount": self.amount, "id": self.id, "B_": self.B_}

    @classmethod
    def from_dict(cls, raw: object) -> BlindedMessage:
        """Raises RemoteError for anything that has not the form of an output."""
        fields = _fields(raw, "output")
        return cls(
            _amount(fields.get("amount")),
            _matching(fields.get("id"), _KEYSET_ID, "keyset id"),
            _matching(fields.get("B_"), _POINT, "B_"),
        )


@dataclass(frozen=True, slots=True)
class BlindSignature:
    """The mint's signature on an output (NUT-00); `dleq` without `r`."""

    amount: int
    id: str
    C_: str
    dleq: Dleq | None = None

    def as_dict(self) -> dict[str, Any]:
        """As NUT-00 writes it."""
        base = {"amount": self.amount, "id": self.id, "C_": self.C_}
        return base | ({} if self.dleq is None else {"dleq": self.dleq.as_dict()})

    @classmethod
    def from_dict(cls, raw: object) -> BlindSignature:
        """Raises RemoteError for anything that has not the form of a signature."""
        fields = _fields(raw, "signature")
        dleq = fields.get("dleq")
        return cls(
            _amount(fields.get("amount")),
            _matching(fields.get("id"), _KEYSET_ID, "keyset id"),
            _matching(fields.get("C_"), _POINT, "C_"),
            None if dleq is None else Dleq.from_dict(dleq),
        )


@dataclass(frozen=True, slots=True)
class Token:
    """Coins of one mint and unit, on their way to somebody."""

    mint: str
    unit: str
    proofs: tuple[Proof, ...]
    memo: str | None = None

    @property
    def amount(self) -> int:
        """What the coins are worth, in units."""
        return sum(proof.amount for proof in self.proofs)


def find_tokens(text: str) -> tuple[list[str], str]:
    """The tokens (`cashuA…`, `cashuB…`) in a text, and the text without them.

    Payment requests and secret keys (`creqA…`, `creqb1…`, `nsec1…`, `ncryptsec1…`) are cut out
    too, whether or not they parse: none may reach a prompt or a log.
    """
    tokens = [match[1] for match in _BEARER.finditer(text) if match[1]]
    return tokens, _BEARER.sub("", text).strip()


def normal_url(url: object) -> str:
    """A mint's URL in the one form we compare and store: lower-case host, no trailing slash.

    Raises RemoteError for anything but http(s)://host[:port][/path].
    """
    if not isinstance(url, str) or len(url) > URL_BYTES_MAX:
        _refuse("the mint's URL is no text, or too long")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        _refuse("the mint's URL is not valid")
    host = f"[{host}]" if ":" in host else host
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        _refuse("the mint's URL has no scheme or host that we know")
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    if not plain or not _PATH.fullmatch(parts.path):
        _refuse("the mint's URL has more than host, port and path")
    usual = port in (None, 80 if parts.scheme == "http" else 443)
    return f"{parts.scheme}://{host}{'' if usual else f':{port}'}{parts.path.rstrip('/')}"


def parse_token(text: object) -> Token:
    """A `cashuA…` or `cashuB…` text as a Token, its mint URL in normal form (NUT-00).

    Raises RemoteError `payment-token-invalid`. Keyset ids may be short (16 hex digits).
    """
    if not isinstance(text, str) or not 6 < len(text) <= TOKEN_BYTES_MAX:
        _refuse("the token is empty or too long")
    if text.startswith("cashuB"):
        token = _from_v4(_decoded(text[6:]))
    elif text.startswith("cashuA"):
        token = _from_v3(_decoded(text[6:]))
    else:
        _refuse("the token has no prefix that we know")
    return _whole(token)


def checked_token(mint: str, unit: object, proofs: list[object], memo: object) -> Token:
    """Coins that came in another form than a token's text, under the same limits.

    Raises RemoteError `payment-token-invalid`.
    """
    coins = tuple(Proof.from_dict(raw) for raw in _list(proofs))
    return _whole(Token(mint, _matching(unit, _UNIT, "unit"), coins, _memo(memo)))


def _whole(token: Token) -> Token:
    if not 0 < len(token.proofs) <= PROOFS_MAX or token.amount > AMOUNT_MAX:
        _refuse("the token has no coins, too many, or too much")
    if len({proof.secret for proof in token.proofs}) != len(token.proofs):
        _refuse("the token has a coin twice")
    return token


def encode_token(token: Token, version: int = 4) -> str:
    """The token as text: version 4 (short keyset ids, CBOR) or 3 (full ids, JSON)."""
    if version == 4:
        return "cashuB" + base64url.encode(cbor.dumps(_as_v4(token)))
    entry = {"mint": token.mint, "proofs": [proof.as_dict() for proof in token.proofs]}
    body: dict[str, Any] = {"token": [entry], "unit": token.unit}
    if token.memo is not None:
        body["memo"] = token.memo
    return "cashuA" + base64url.encode(json.dumps(body, separators=(",", ":")).encode())


def _from_v3(data: bytes) -> Token:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        _refuse(UNREADABLE)
    fields = _fields(raw, "token")
    entries = fields.get("token")
    if not isinstance(entries, list) or not 0 < len(entries) <= PROOFS_MAX:
        _refuse("the token has no entries, or too many")
    rows = [_fields(entry, "token") for entry in entries]
    mints = {normal_url(row.get("mint")) for row in rows}
    if len(mints) != 1:
        _refuse("the token is of several mints")
    proofs = tuple(Proof.from_dict(raw) for row in rows for raw in _list(row.get("proofs")))
    unit = fields.get("unit")
    return Token(
        mints.pop(),
        "sat" if unit is None else _matching(unit, _UNIT, "unit"),
        proofs,
        _memo(fields.get("memo")),
    )


def _from_v4(data: bytes) -> Token:
    try:
        raw = cbor.loads(data)
    except RemoteError:
        _refuse(UNREADABLE)
    fields = _fields(raw, "token")
    groups = [_fields(group, "token") for group in _list(fields.get("t"))]
    proofs = [
        Proof.from_dict(_long(coin, _hex(group.get("i"))))
        for group in groups
        for coin in _list(group.get("p"))
    ]
    return Token(
        normal_url(fields.get("m")),
        _matching(fields.get("u"), _UNIT, "unit"),
        tuple(proofs),
        _memo(fields.get("d")),
    )


def _long(raw: object, keyset_id: str) -> dict[str, Any]:
    """A V4 coin with the field names of V3."""
    coin = _fields(raw, "proof")
    dleq = coin.get("d")
    if dleq is not None:
        dleq = {key: _hex(value) for key, value in _fields(dleq, "DLEQ").items()}
    return {
        "id": keyset_id,
        "amount": coin.get("a"),
        "secret": coin.get("s"),
        "C": _hex(coin.get("c")),
        "dleq": dleq,
        "witness": coin.get("w"),
    }


def _as_v4(token: Token) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for proof in token.proofs:
        coin: dict[str, Any] = {"a": proof.amount, "s": proof.secret, "c": bytes.fromhex(proof.C)}
        if proof.dleq is not None:
            coin["d"] = {key: bytes.fromhex(text) for key, text in proof.dleq.as_dict().items()}
        if proof.witness is not None:
            coin["w"] = proof.witness
        groups.setdefault(proof.id[:16], []).append(coin)
    body: dict[str, Any] = {
        "t": [{"i": bytes.fromhex(name), "p": coins} for name, coins in groups.items()]
    }
    if token.memo is not None:
        body["d"] = token.memo
    return body | {"m": token.mint, "u": token.unit}


def _decoded(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError:
        _refuse(UNREADABLE)


def _fields(raw: object, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        _refuse(UNREADABLE if what == "token" else f"the {what} is not an object")
    return raw


def _list(raw: object) -> list[Any]:
    if not isinstance(raw, list) or len(raw) > PROOFS_MAX:
        _refuse("the token's coins are no list, or too many")
    return raw


def _matching(raw: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(raw, str) or not form.fullmatch(raw):
        _refuse(f"the {what} has not the right form")
    return raw


def _hex(raw: object) -> str:
    if not isinstance(raw, bytes):
        _refuse("the token has a number that is not in bytes")
    return raw.hex()


def _amount(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 < raw <= AMOUNT_MAX:
        _refuse("the amount is not a whole positive number")
    return raw


def _memo(raw: object) -> str | None:
    return None if raw is None else _text(raw, MEMO_BYTES_MAX, "memo")


def _text(raw: object, size_bytes_max: int, what: str) -> str:
    if not isinstance(raw, str):
        _refuse(f"the {what} is not text")
    try:
        size_bytes = len(raw.encode())
    except UnicodeEncodeError:
        _refuse(f"the {what} is not Unicode")
    if size_bytes > size_bytes_max:
        _refuse(f"the {what} is too long")
    return raw
