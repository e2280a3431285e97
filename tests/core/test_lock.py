"""Only the one form of a lock is taken; every lenient one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.lock import Lock, Wanted, common_lock, is_locked, locked_secret, parse_locked
from nostrllm.crypto.bdhke import public_key_of
from nostrllm.errors import RemoteError

KEY, OTHER, REFUND = (public_key_of(bytes([n]) * 32) for n in (1, 2, 3))
NONCE = "d4" * 32
LOCK = Lock(KEY, 1_800_000_000, REFUND)
SECRET = locked_secret(NONCE, LOCK)
WANTED = Wanted(KEY, 1_799_999_000, 1_800_001_000)
SIGFLAG, LOCKTIME, REFUNDS = json.loads(SECRET)[1]["tags"]

hex32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
keys = st.integers(1, 1 << 250).map(lambda key: public_key_of(key.to_bytes(32, "big")))
locks = st.builds(Lock, keys, st.integers(1, 10**12 - 1), keys)


@given(hex32, locks)
def test_what_is_written_is_read(nonce: str, lock: Lock) -> None:
    assert parse_locked(locked_secret(nonce, lock)) == lock


def test_the_form_byte_by_byte() -> None:
    assert SECRET == (
        '["P2PK",{"nonce":"' + NONCE + '","data":"' + KEY + '","tags":[["sigflag","SIG_INPUTS"],'
        '["locktime","1800000000"],["refund","' + REFUND + '"]]}]'
    )
    assert is_locked(SECRET)
    assert is_locked(' ["HTLC",{}]')
    assert not is_locked(NONCE)


def secret(kind: str = "P2PK", data: str = KEY, nonce: str = NONCE, **more: Any) -> str:
    tags = more.pop("tags", [SIGFLAG, LOCKTIME, REFUNDS])
    fields = {"nonce": nonce, "data": data, "tags": tags, **more}
    return json.dumps([kind, fields], separators=(",", ":"))


@pytest.mark.parametrize(
    "lenient",
    [
        "",
        NONCE,
        "[]",
        "null",
        "[" * 300,
        '["P2PK"]',
        '["P2PK",[]]',
        '["P2PK",{"nonce":1,"data":2,"tags":3}]',
        SECRET + " ",
        SECRET.replace(",", ", "),
        SECRET.replace('"1800000000"', "1800000000"),
        SECRET.replace("1800000000", "01800000000"),
        SECRET.replace("1800000000", "-1800000000"),
        SECRET.replace("1800000000", "\\u0031800000000"),
        SECRET.replace("1800000000", "٣800000000"),
        SECRET.replace(KEY, KEY.upper()),
        SECRET.replace("P2PK", "HTLC"),
        SECRET.replace('"nonce"', '"nonce":"' + NONCE + '","nonce"'),
        secret(nonce="d4" * 31),
        secret(data="04" + "a1" * 32),
        secret(data="a1" * 32),
        secret(data="02" + "ff" * 32),
        secret(tags=[SIGFLAG, LOCKTIME, ["refund", "02" + "ff" * 32]]),
        secret(tags=[SIGFLAG, LOCKTIME]),
        secret(tags=[SIGFLAG, LOCKTIME, [*REFUNDS, OTHER]]),
        secret(tags=[SIGFLAG, LOCKTIME, REFUNDS, ["pubkeys", OTHER]]),
        secret(tags=[SIGFLAG, LOCKTIME, REFUNDS, ["n_sigs", "1"]]),
        secret(tags=[SIGFLAG, LOCKTIME, REFUNDS, REFUNDS]),
        secret(tags=[SIGFLAG, REFUNDS, LOCKTIME]),
        secret(tags=[["sigflag", "SIG_ALL"], LOCKTIME, REFUNDS]),
        secret(tags=[["sigflag"], LOCKTIME, REFUNDS]),
        secret(more=1),
        "x" * 100_000,
    ],
)
def test_lenient_forms_are_refused(lenient: str) -> None:
    with pytest.raises(RemoteError) as refused:
        parse_locked(lenient)
    assert refused.value.code == "payment-token-locked-wrong"


def locked_to(refund: str, key: str = KEY, locktime: int = LOCK.locktime) -> str:
    return locked_secret(NONCE, Lock(key, locktime, refund))


def test_coins_of_one_token() -> None:
    later = locked_to(OTHER, locktime=LOCK.locktime + 60)
    assert common_lock([SECRET], WANTED) == LOCK.locktime
    assert common_lock([later, SECRET], WANTED) == LOCK.locktime


@pytest.mark.parametrize(
    "secrets",
    [
        [SECRET, NONCE],
        [locked_to(REFUND, key=OTHER)],
        [SECRET, SECRET],
        [locked_to(KEY)],
        [locked_to(REFUND, locktime=WANTED.locktime_min - 1)],
        [locked_to(REFUND, locktime=WANTED.locktime_max + 1)],
    ],
)
def test_coins_that_are_not_locked_as_wanted(secrets: list[str]) -> None:
    with pytest.raises(RemoteError) as refused:
        common_lock(secrets, WANTED)
    assert refused.value.code == "payment-token-locked-wrong"


@given(st.text(max_size=400))
def test_reading_is_total(text: str) -> None:
    with pytest.raises(RemoteError):
        parse_locked(text)
