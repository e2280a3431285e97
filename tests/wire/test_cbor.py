"""CBOR of tokens: what we write others read, what others write we read, and nothing else passes."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import cbor

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.binary(max_size=300)
    | st.text(max_size=300)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def depth(value: object) -> int:
    match value:
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
        case _:
            return 1


@given(values.filter(lambda value: depth(value) < cbor.DEPTH_MAX))
def test_agrees_with_cbor2(value: Any) -> None:
    assert cbor.dumps(value) == cbor2.dumps(value)
    assert cbor.loads(cbor2.dumps(value)) == value


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_an_error(data: bytes) -> None:
    try:
        cbor.loads(data)
    except RemoteError:
        return


def test_arrays_and_maps_of_unknown_length() -> None:
    assert cbor.loads(bytes.fromhex("9f01bf6161f6ffff")) == [1, {"a": None}]


def test_what_javascript_calls_undefined_is_nothing() -> None:
    assert cbor.loads(cbor2.dumps({"a": cbor2.undefined})) == {"a": None}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "ends too early"),
        ("0100", "after its end"),
        ("ff", "after its end"),
        ("1c", "reserved length"),
        ("5f4100ff", "string in pieces"),
        ("1f", "string in pieces"),
        ("62c328", "not UTF-8"),
        ("82ff00", "where an item was due"),
        ("bf6161ff", "keys are not text"),
        ("a10101", "keys are not text"),
        ("a2616101616102", "key twice"),
        ("c000", "tag, a float"),
        ("f90000", "tag, a float"),
        ("f8ff", "tag, a float"),
        ("81" * cbor.DEPTH_MAX + "00", "too deep"),
        ("992001" + "00" * 8193, "too many items"),
    ],
)
def test_refuses(data: str, why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        cbor.loads(bytes.fromhex(data))


@pytest.mark.parametrize(("value", "kind"), [(1.5, TypeError), (1 << 64, ValueError)])
def test_does_not_write_what_it_cannot_read(value: object, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        cbor.dumps(value)
