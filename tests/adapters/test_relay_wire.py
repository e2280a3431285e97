from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.adapters.relay_wire import (
    Challenge,
    Closed,
    Eose,
    EventFrame,
    Frame,
    Matcher,
    Notice,
    Ok,
    auth_frame,
    close_frame,
    event_frame,
    filter_dict,
    needs_auth,
    parse_frame,
    place,
    req_frame,
)
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter
from nostrllm.wire.event import Event

EVENT = Event("0" * 64, "1" * 64, 100, 1, (("p", "a", "b"), ("e", "c")), "hi", "2" * 128)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('["EVENT","s",{"a":1}]', EventFrame("s", {"a": 1})),
        ('["EOSE","s"]', Eose("s")),
        ('["CLOSED","s","error: x"]', Closed("s", "error: x")),
        ('["CLOSED","s"]', Closed("s", "")),
        ('["OK","i",true,"duplicate: y"]', Ok("i", True, "duplicate: y")),
        ('["OK","i",false]', Ok("i", False, "")),
        ('["OK","i",false,7]', Ok("i", False, "")),
        ('["NOTICE","anything"]', Notice()),
        ('["AUTH","c"]', Challenge("c")),
    ],
)
def test_each_frame_is_read(text: str, frame: Frame) -> None:
    assert parse_frame(text) == frame


@pytest.mark.parametrize(
    "message",
    [
        b'["EOSE","s"]',
        "",
        "[",
        "{}",
        "[]",
        "[1]",
        '["COUNT","s",{}]',
        '["EVENT","s"]',
        '["EVENT",1,{}]',
        '["EVENT","s",[]]',
        '["EOSE"]',
        '["EOSE",[]]',
        '["CLOSED"]',
        '["CLOSED",{}]',
        '["OK","i"]',
        '["OK",1,true]',
        '["OK","i","true"]',
        '["AUTH"]',
        '["AUTH",1]',
        json.dumps(["AUTH", "x" * 2_000]),
        "[" * 5_000,
        '["EOSE","\\ud800"]',
    ],
)
def test_anything_else_is_a_remote_error(message: str | bytes) -> None:
    with pytest.raises(RemoteError):
        parse_frame(message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
verbs = st.sampled_from(["EVENT", "EOSE", "CLOSED", "OK", "NOTICE", "AUTH"])


@given(
    st.text()
    | st.binary()
    | st.builds(
        lambda verb, rest: json.dumps([verb, *rest]), verbs, st.lists(json_values, max_size=4)
    )
)
def test_the_parser_is_total(message: str | bytes) -> None:
    try:
        frame = parse_frame(message)
    except RemoteError:
        return
    assert isinstance(frame, Frame)


def test_a_reason_is_short_and_printable() -> None:
    frame = parse_frame(json.dumps(["CLOSED", "s", "a\n\x1b[31m" + "b" * 5_000]))
    assert isinstance(frame, Closed)
    assert len(frame.reason) == 200
    assert frame.reason.isprintable()
    assert [needs_auth(r) for r in ("auth-required: x", "restricted: x", "error: x", "")] == [
        True,
        True,
        False,
        False,
    ]


def test_what_we_say_is_nip_01() -> None:
    assert json.loads(req_frame("s", [{"kinds": [1]}, {}])) == ["REQ", "s", {"kinds": [1]}, {}]
    assert json.loads(close_frame("s")) == ["CLOSE", "s"]
    assert json.loads(event_frame(EVENT)) == ["EVENT", EVENT.as_dict() | {"tags": TAGS}]
    assert json.loads(auth_frame(EVENT))[0] == "AUTH"


TAGS = [["p", "a", "b"], ["e", "c"]]


def test_a_filter_is_written_without_what_it_leaves_open() -> None:
    asked = Filter((1, 2), ("a",), ("i",), {"p": ("x", "y"), "e": ()}, 5, 9, 3)
    assert filter_dict(asked) == {
        "kinds": [1, 2],
        "authors": ["a"],
        "ids": ["i"],
        "#p": ["x", "y"],
        "since": 5,
        "until": 9,
        "limit": 3,
    }
    assert filter_dict(Filter()) == {}
    assert filter_dict(Filter(since=5), stored_since=9) == {"since": 9}
    assert filter_dict(Filter(since=5), stored_since=2) == {"since": 5}


@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        (Filter(), True),
        (Filter(kinds=(1,), authors=(EVENT.pubkey,), ids=(EVENT.id,)), True),
        (Filter(kinds=(2,)), False),
        (Filter(authors=("x",)), False),
        (Filter(ids=("x",)), False),
        (Filter(tags={"p": ("a", "z"), "e": ("c",)}), True),
        (Filter(tags={"p": ("b",)}), False),
        (Filter(tags={"q": ("a",)}), False),
        (Filter(tags={"q": ()}), True),
        (Filter(since=100, until=100), True),
        (Filter(since=101), False),
        (Filter(until=99), False),
        (Filter(limit=0), True),
    ],
)
def test_a_filter_matches_as_a_relay_would(asked: Filter, matches: bool) -> None:
    assert Matcher([asked]).matches(EVENT) is matches
    assert Matcher([Filter(kinds=(9,)), asked]).matches(EVENT) is matches


def test_the_kinds_of_several_filters() -> None:
    assert Matcher([Filter(kinds=(1,)), Filter(kinds=(2,))]).kinds == frozenset({1, 2})
    assert Matcher([Filter(kinds=(1,)), Filter()]).kinds is None
    assert Matcher([Filter(), Filter(kinds=(1,))]).kinds is None
    assert Matcher([]).kinds == frozenset()


def test_a_log_does_not_see_the_query() -> None:
    assert place("wss://x/a?key=secret") == "wss://x/a"
