"""Events and rumors: JSON in, objects out, and nothing else but RemoteError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nostr_sdk import EventBuilder, Keys, Kind, Tag, Timestamp

from nostrllm.errors import RemoteError
from nostrllm.wire import event, kinds
from nostrllm.wire.event import Draft, Event, parse_event, parse_rumor

FIELDS: dict[str, Any] = {
    "id": "0" * 64,
    "pubkey": "a" * 64,
    "created_at": 1_700_000_000,
    "kind": 1,
    "tags": [["p", "b" * 64], ["p", "c" * 64, "wss://x"], ["lone"], ["d", "name"]],
    "content": "hello",
    "sig": "f" * 128,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def test_event_round_trip() -> None:
    found = parse_event(FIELDS)
    assert found.as_dict() == FIELDS
    assert parse_event({**FIELDS, "surplus": 1}) == found


def test_values_of_tags() -> None:
    found = parse_event(FIELDS)
    assert list(found.values("p")) == ["b" * 64, "c" * 64]
    assert found.value("p") == "b" * 64
    assert found.value("lone") is None
    assert found.value("none") is None
    assert found.address == f"1:{'a' * 64}:name"
    assert parse_event({**FIELDS, "tags": []}).address == f"1:{'a' * 64}:"


@pytest.mark.parametrize("name", sorted(FIELDS))
@pytest.mark.parametrize(
    "value", [None, 1.5, True, -1, 1 << 80, "x", "0" * 63, "F" * 64, [1], [[]], [["a", 1]], {}]
)
def test_wrong_field_is_refused(name: str, value: object) -> None:
    if name == "content" and isinstance(value, str):
        return
    with pytest.raises(RemoteError):
        parse_event({**FIELDS, name: value})


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_missing_field_is_refused(name: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(RemoteError) as caught:
        parse_event(fields)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content", "x" * (event.RUMOR_CONTENT_BYTES_MAX + 1)),
        ("content", "é" * (event.RUMOR_CONTENT_BYTES_MAX // 2 + 1)),
        ("tags", [["x"]] * (event.TAGS_MAX + 1)),
        ("tags", [["x"] * (event.TAG_VALUES_MAX + 1)]),
        ("tags", [["x" * (event.TAG_BYTES_MAX + 1)]]),
        ("tags", [["é" * (event.TAG_BYTES_MAX // 2 + 1)]]),
        ("kind", 65_536),
        ("created_at", event.CREATED_AT_MAX + 1),
        ("id", "0" * 64 + "\n"),
    ],
)
def test_limits(name: str, value: object) -> None:
    with pytest.raises(RemoteError):
        parse_event({**FIELDS, name: value})
    with pytest.raises(RemoteError):
        parse_rumor({**FIELDS, name: value})


def test_a_rumor_may_be_longer_than_an_event() -> None:
    made = event.rumor(Draft(kinds.DM, "é" * (event.CONTENT_BYTES_MAX // 2 + 1), 5), "a" * 64)
    assert parse_rumor(made.as_dict()) == made
    with pytest.raises(RemoteError):
        parse_event({**made.as_dict(), "sig": "f" * 128})


def test_rumor_round_trip() -> None:
    made = event.rumor(Draft(kinds.DM, "hello", 5, (("p", "b" * 64),)), "a" * 64)
    assert parse_rumor(made.as_dict()) == made
    assert parse_rumor({**made.as_dict(), "sig": "f" * 128}) == made
    without = {key: value for key, value in made.as_dict().items() if key != "id"}
    assert parse_rumor(without) == made


@pytest.mark.parametrize("number", ["0" * 64, "", None, 5])
def test_rumor_with_a_wrong_id_is_refused(number: object) -> None:
    made = event.rumor(Draft(kinds.DM, "hello", 5), "a" * 64)
    with pytest.raises(RemoteError):
        parse_rumor({**made.as_dict(), "id": number})


@pytest.mark.parametrize("raw", [None, 1, "x", [], [("id", 1)], b"{}"])
def test_what_is_no_object_is_refused(raw: object) -> None:
    with pytest.raises(RemoteError):
        parse_event(raw)
    with pytest.raises(RemoteError):
        parse_rumor(raw)


def test_lone_surrogates_have_no_id() -> None:
    for draft in (Draft(1, "\ud800", 5), Draft(1, "", 5, (("t", "\udfff"),))):
        with pytest.raises(RemoteError):
            event.rumor(draft, "a" * 64)


@given(JSON)
def test_parsing_is_total(raw: object) -> None:
    for parse in (parse_event, parse_rumor):
        with pytest.raises(RemoteError):
            parse(raw)


@given(st.sampled_from(sorted(FIELDS)), JSON)
def test_parsing_a_spoilt_field_is_total(name: str, value: object) -> None:
    for parse in (parse_event, parse_rumor):
        try:
            parse({**FIELDS, name: value})
        except RemoteError:
            continue


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4), st.integers(0, 65_535))
def test_id_is_that_of_nostr_sdk(content: str, tag: list[str], kind: int) -> None:
    author = Keys.generate()
    builder = EventBuilder(Kind(kind), content).tags([Tag.parse(tag)])
    theirs = builder.custom_created_at(Timestamp.from_secs(1_700_000_000)).finalize(author)
    found = parse_event(json.loads(theirs.as_json()))
    number = event.event_id(found.pubkey, found.created_at, kind, found.tags, content)
    assert number == found.id == theirs.id().to_hex()


def test_kinds() -> None:
    assert kinds.is_ephemeral(kinds.CHUNK)
    assert not kinds.is_ephemeral(kinds.GIFT_WRAP)


def test_events_are_values() -> None:
    assert len({parse_event(FIELDS), parse_event(FIELDS)}) == 1
    assert isinstance(parse_event(FIELDS), Event)
