"""The one parser of JSON texts: an object or RemoteError, whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from nostrllm.errors import RemoteError
from nostrllm.wire.message import TEXT_BYTES_MAX, Wire, parse


class Greeting(Wire):
    v: int = 1
    word: str
    often: int | None = None


GREETING = TypeAdapter(Greeting)


def test_round_trip_leaves_out_what_is_none() -> None:
    text = Greeting(word="hello").as_json()
    assert text == '{"v":1,"word":"hello"}'
    assert parse(GREETING, text) == Greeting(word="hello")


def test_unknown_fields_are_ignored() -> None:
    assert parse(GREETING, '{"word":"x","colour":"red"}').word == "x"


def test_too_large_is_refused_unread() -> None:
    with pytest.raises(RemoteError) as caught:
        parse(GREETING, " " * (TEXT_BYTES_MAX + 1))
    assert caught.value.code == "message-too-large"


def test_another_version_is_named_as_such() -> None:
    with pytest.raises(RemoteError) as caught:
        parse(GREETING, '{"v":2,"term":"x"}')
    assert caught.value.code == "version-unsupported"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"v":1,"word":7}', "word"),
        ("[]", "the message"),
        ("{", "the message"),
        ('{"word":"x","often":1e999}', "often"),
    ],
)
def test_the_first_wrong_field_is_named(text: str, where: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse(GREETING, text)
    assert caught.value.code == "message-invalid"
    assert caught.value.message.startswith(where)


@given(st.text() | st.binary())
def test_total(text: str | bytes) -> None:
    try:
        parse(GREETING, text)
    except RemoteError:
        return
