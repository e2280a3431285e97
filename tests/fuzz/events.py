"""Events, rumors and relay frames."""

from __future__ import annotations

import orjson

from nostrllm.adapters.relay_wire import parse_frame
from nostrllm.crypto.keys import is_public_key, verify_event
from nostrllm.errors import RemoteError
from nostrllm.wire.event import parse_event, parse_rumor
from tests.fuzz.target import Target, refusing, text_of


def _json(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise RemoteError from None


@refusing()
def event(data: bytes) -> None:
    found = parse_event(_json(data))
    verify_event(found)
    assert parse_event(found.as_dict()) == found


@refusing()
def rumor(data: bytes) -> None:
    found = parse_rumor(_json(data))
    assert parse_rumor(found.as_dict()) == found


@refusing()
def frame(data: bytes) -> None:
    parse_frame(text_of(data))


@refusing()
def public_key(data: bytes) -> None:
    is_public_key(text_of(data))


TARGETS: dict[str, Target] = {
    "event": event,
    "rumor": rumor,
    "frame": frame,
    "public_key": public_key,
}
