"""One spelling for every relay, whatever is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire.places import relay_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("wss://Relay.Example/", "wss://relay.example"),
        ("wss://relay.example:443", "wss://relay.example"),
        ("ws://relay.example:443/a/", "ws://relay.example:443/a/"),
        (" ws://x:80?k=v#f", "ws://x?k=v"),
        ("ws://[::1]:7000", "ws://[::1]:7000"),
    ],
)
def test_every_spelling_of_an_address_is_one(text: str, url: str) -> None:
    assert relay_url(text) == url
    assert relay_url(url) == url


@pytest.mark.parametrize(
    "text", ["https://x", "ws://", "ws://u:p@x", "ws://x:port", "ws://[", "ws://" + "x" * 300]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(RemoteError):
        relay_url(text)


@given(st.text() | st.builds(lambda rest: "ws://" + rest, st.text()))
def test_total(text: str) -> None:
    try:
        relay_url(text)
    except RemoteError:
        return
