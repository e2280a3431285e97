"""What systemd hears, on a datagram socket of our own in its place."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nostrllm.service.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET and the socket behind it."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        if sys.platform != "linux":
            pytest.skip("only Linux has abstract sockets")
        name = "@nostrllm-" + secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(5)
        yield name, listening


def test_every_message(systemd: tuple[str, socket.socket]) -> None:
    """Each call is one datagram in the form of sd_notify(3)."""
    name, listening = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.is_listened_to
    assert notifier.ready("2 models")
    assert notifier.status("two\nREADY=1 lines")
    assert notifier.watchdog()
    assert notifier.extend_timeout(1.5)
    assert notifier.stopping("draining 3 orders")
    assert [listening.recv(4096).decode() for _ in range(5)] == [
        f"READY=1\nSTATUS=2 models\nMAINPID={os.getpid()}",
        "STATUS=two READY=1 lines",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STOPPING=1\nSTATUS=draining 3 orders",
    ]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "x"}])
def test_nobody_asks(environment: dict[str, str]) -> None:
    """Without systemd nothing is sent and nothing fails."""
    notifier = Notifier(environment)
    assert not notifier.is_listened_to
    assert not notifier.ready("up")


def test_nobody_listens(tmp_path: Path) -> None:
    """A service manager that went away harms nobody."""
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).watchdog()


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_watchdog_interval(environment: dict[str, str], interval_s: float | None) -> None:
    """Half of the allowed time, and only if it is meant for this process."""
    assert Notifier(environment).watchdog_interval_s() == interval_s


def test_own_environment_is_the_default() -> None:
    """Without an argument the process's own environment counts."""
    assert Notifier().is_listened_to == os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@"))
