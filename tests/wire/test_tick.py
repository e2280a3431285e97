"""Ticks there and back, and what is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nostrllm.crypto.keys import sign_event
from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.announcement import Price
from nostrllm.wire.tick import MODELS_MAX, LiveModel, parse_tick, tick_drafts

MODELS = [
    LiveModel(id=f"m{n}", price=Price(input=n, output=2 * n), wait_s=n)
    for n in range(MODELS_MAX + 1)
]


def test_ticks_come_back_as_they_were() -> None:
    drafts = tick_drafts(MODELS, d="shop", seq=7, reasons=("congestion",), at=1_800_000_000)
    ticks = [parse_tick(sign_event(draft, b"\x01" * 32)) for draft in drafts]
    assert [model for tick in ticks for model in tick.models] == MODELS
    assert {tick.seq for tick in ticks} == {7}
    assert ticks[0].reasons == ["congestion"]
    assert kinds.is_ephemeral(drafts[0].kind)
    assert tick_drafts([], d="shop", seq=7, reasons=(), at=0) == []


def test_what_is_no_tick() -> None:
    [draft] = tick_drafts(MODELS[:1], d="shop", seq=7, reasons=(), at=1_800_000_000)
    assert parse_tick(sign_event(draft, b"\x01" * 32)).reasons is None
    for wrong in (
        replace(draft, kind=kinds.CHUNK),
        replace(draft, tags=(("d", "shop"),)),
        replace(draft, content="{}"),
        replace(draft, content=draft.content.replace('"id":"m0"', '"id":""')),
    ):
        with pytest.raises(RemoteError):
            parse_tick(sign_event(wrong, b"\x01" * 32))
