"""Receipts name nobody until they are opened, and then exactly one reviewer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import receipt as wire
from nostrllm.wire.event import Event
from nostrllm.wire.order import Usage

KEY, SALT = "ab" * 32, "cd" * 32
DETAILS = wire.Details(
    order=KEY, price=KEY, mint="https://mint.example", cost_msat=3_300, usage=Usage(), nonce=SALT
)


def event() -> Event:
    draft = wire.receipt_draft(wire.commitment(KEY, SALT), "smollm2", DETAILS, 1_800_000_123)
    return Event(KEY, KEY, draft.created_at, draft.kind, draft.tags, draft.content, "ab" * 64)


def test_a_receipt_reads_as_it_was_written() -> None:
    receipt = wire.parse_receipt(event())
    assert receipt.provider == KEY
    assert receipt.content.model == "smollm2"
    assert receipt.content.amount_msat == 4_096
    assert receipt.content.details == DETAILS.digest


def test_its_time_is_the_day() -> None:
    assert event().created_at % wire.DAY_S == 0


def test_it_binds_one_reviewer() -> None:
    receipt = wire.parse_receipt(event())
    assert wire.binds(receipt, KEY, SALT)
    assert not wire.binds(receipt, SALT, KEY)
    assert not wire.binds(receipt, KEY, "no hex")


def test_another_kind_is_no_receipt() -> None:
    with pytest.raises(RemoteError) as caught:
        wire.parse_receipt(replace(event(), kind=1))
    assert caught.value.code == "receipt-invalid"


def test_details_open() -> None:
    assert wire.parse_details(DETAILS.model_dump()) == DETAILS
    with pytest.raises(RemoteError):
        wire.parse_details({"order": 1})


@given(st.integers(0, 2**60))
def test_amounts_are_rounded_to_powers_of_two(msat: int) -> None:
    rounded = wire.round_up(msat)
    assert rounded >= msat
    assert rounded & (rounded - 1) == 0
    assert rounded < 2 * max(msat, 1)
