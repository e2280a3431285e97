"""How JSON texts of the wire become frozen objects: one base class, one parser, one error.

pydantic does the work; nothing of it leaves this package. Unknown fields are ignored, so that a
later version may add some, except where a class says otherwise.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from nostrllm.errors import RemoteError

VERSION: Final = 1

#: The longest JSON text that is looked at.
TEXT_BYTES_MAX: Final = 1 << 20

#: 21 million coins in msat; no amount is larger.
MSAT_MAX: Final = 2_100_000_000_000_000_000

T = TypeVar("T")

Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# \p{C}: control and format characters, which would reach terminals.
RelayUrl = Annotated[str, StringConstraints(pattern=r"^wss?://[^\s\p{C}]+$", max_length=256)]
MintUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s\p{C}]+$", max_length=256)]
ModelId = Annotated[str, StringConstraints(pattern=r"^[^\s\p{C}]+$", max_length=128)]
Line = Annotated[str, StringConstraints(max_length=1_000)]


class Wire(BaseModel):
    """The base of everything that travels as JSON: frozen, strict, numbers finite."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    def as_json(self) -> str:
        """The shortest JSON text of this object; fields that are None are left out."""
        return self.model_dump_json(exclude_none=True, by_alias=True)


def parse(kind: TypeAdapter[T], text: str | bytes) -> T:
    """`text` as an object of `kind`.

    Raises RemoteError: `message-too-large`, `version-unsupported` when the text states a version we
    do not speak, `message-invalid` naming the first wrong field.
    """
    if len(text) > TEXT_BYTES_MAX:
        raise RemoteError("the message is too large", code="message-too-large")
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise _refusal(text, error) from None


def _refusal(text: str | bytes, error: ValidationError) -> RemoteError:
    try:
        version: object = _HEAD.validate_json(text).v
    except ValidationError:
        version = VERSION
    if version != VERSION:
        return RemoteError(f"only version {VERSION} is spoken here", code="version-unsupported")
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step)[:40] for step in first["loc"][:6]) or "the message"
    return RemoteError(f"{where}: {first['type']}")


def canonical(value: object) -> bytes:
    """A JSON value in the one form that hashes are taken of: keys sorted, no blanks, UTF-8.

    Taken of what was received, fields we do not know among it, so that a later version may add
    some and an older reader still gets the same hash.
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode(errors="replace")


def digest(value: object) -> str:
    """sha256 of the canonical form, hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


class _Head(Wire):
    v: int


_HEAD: Final = TypeAdapter(_Head)
