"""Strangers name public hosts, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.places import is_public


@pytest.mark.parametrize(
    "url",
    [
        "wss://relay.example.com",
        "ws://93.184.215.14:7777",
        "wss://[2606:4700::1111]/x",
        "wss://xyz.onion",
    ],
)
def test_public(url: str) -> None:
    assert is_public(url)


@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:80",
        "ws://localhost",
        "ws://db.localhost:1",
        "ws://10.0.0.1",
        "ws://192.168.1.1",
        "ws://169.254.169.254",
        "ws://[::1]",
        "ws://[fe80::1%25eth0]",
        "ws://[::ffff:127.0.0.1]",
        "ws://0.0.0.0",
        "ws://224.0.0.1",
        "ws://[64:ff9b::7f00:1]",
        "ws://[2002:7f00:1::]",
        "ws://127.1",
        "ws://0x7f000001",
        "ws://2130706433",
        "ws://intranet",
        "ws://printer.local",
        "ws://[",
        "ws://",
        "",
    ],
)
def test_not_public(url: str) -> None:
    assert not is_public(url)


@given(st.text())
def test_total(url: str) -> None:
    is_public("ws://" + url)
