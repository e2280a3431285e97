"""Proof of work, mined and checked; a second implementation agrees with the id."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from nostr_sdk import Event as SdkEvent

from nostrllm.crypto.keys import public_key, sign_event
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.pow import mined, work_of, zero_bits

KEY = b"\1" * 32
PLAIN = Draft(1, 'a "text" with ["nonce","????????" in it\n', 1_700_000_000, (("p", "ab" * 32),))


def event(draft: Draft) -> Event:
    return sign_event(draft, KEY)


@pytest.mark.parametrize("bits", [1, 8, 10])
def test_mined_work_is_there(bits: int) -> None:
    done = event(mined(PLAIN, public_key(KEY), bits))
    assert zero_bits(done.id) >= bits
    assert work_of(done) == bits
    assert done.tags[0] == PLAIN.tags[0]
    assert SdkEvent.from_json(json.dumps(done.as_dict())).verify()


def test_the_example_of_the_nip() -> None:
    assert zero_bits("000000000e9d97a1ab09fc381030b346cdd7a142ad57e6df0b46dc9bef6c7e2d") == 36
    assert zero_bits("f" * 64) == 0
    assert zero_bits("0" * 64) == 256


@pytest.mark.parametrize(
    "tag", [("p", "1"), ("nonce", "1"), *(("nonce", "1", bad) for bad in ("x", "0x8", "9999", "²"))]
)
def test_luck_and_nonsense_do_not_count(tag: tuple[str, ...]) -> None:
    lucky = replace(event(PLAIN), id="00" * 32, tags=(tag,))
    assert work_of(lucky) == 0


def test_a_promise_that_is_not_kept_does_not_count() -> None:
    done = event(mined(PLAIN, public_key(KEY), 8))
    assert work_of(replace(done, id="0f" + done.id[2:])) == 0
