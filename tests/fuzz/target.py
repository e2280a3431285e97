"""What a fuzz target is: bytes in, nothing out, and only the errors it names are swallowed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from nostrllm.errors import NostrllmError, RemoteError
from nostrllm.wire.event import Event, parse_event

Target = Callable[[bytes], None]

SEALED_BY = b"\1" * 32
READ_BY = b"\2" * 32


def refusing(*errors: type[NostrllmError]) -> Callable[[Callable[[bytes], object]], Target]:
    """The function as a target that may raise `errors` (RemoteError unless told) and no other."""
    allowed = errors or (RemoteError,)

    def wrap(function: Callable[[bytes], object]) -> Target:
        @functools.wraps(function)
        def target(data: bytes) -> None:
            try:
                function(data)
            except allowed:
                return

        return target

    return wrap


def text_of(data: bytes) -> str:
    """Any text: UTF-8, with lone surrogates where it is not."""
    return data.decode(errors="surrogateescape")


def event_of(data: bytes, kind: int) -> Event:
    """An event of `kind` whose content is `data`, or whose fields are those of the JSON in it."""
    fields: dict[str, Any] = {
        "id": "0" * 64,
        "pubkey": "a" * 64,
        "created_at": 1_700_000_000,
        "kind": kind,
        "tags": [],
        "content": text_of(data),
        "sig": "0" * 128,
    }
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        raw = None
    if isinstance(raw, dict) and raw.keys() & {"tags", "content"}:
        fields |= {name: raw[name] for name in ("tags", "content") if name in raw}
    return parse_event(fields)
