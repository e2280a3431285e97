"""Tell systemd how the daemon stands (sd_notify(3)); without systemd every call does nothing.

The protocol is one datagram to the socket that NOTIFY_SOCKET names, so no library is needed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

SEND_S: Final = 1.0
STATUS_CHARS_MAX: Final = 200


class Notifier:
    """The service's side of sd_notify, for the environment it was started with."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._address = _address(self._environment.get("NOTIFY_SOCKET", ""))

    @property
    def is_listened_to(self) -> bool:
        """Does a service manager want to know?"""
        return self._address is not None

    def ready(self, status: str) -> bool:
        """The daemon serves now; also after a reload. `status` is what `systemctl status` shows."""
        return self._send("READY=1", _status(status), f"MAINPID={os.getpid()}")

    def status(self, status: str) -> bool:
        """What it is doing, in a few words."""
        return self._send(_status(status))

    def watchdog(self) -> bool:
        """It is alive and well; to be said at least every `watchdog_interval_s`."""
        return self._send("WATCHDOG=1")

    def stopping(self, status: str) -> bool:
        """It has begun to end."""
        return self._send("STOPPING=1", _status(status))

    def extend_timeout(self, seconds: float) -> bool:
        """Starting or stopping needs up to `seconds` more, counted from now."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def watchdog_interval_s(self) -> float | None:
        """How often to call `watchdog`: half of what the unit allows; None if it asks for none."""
        allowed_us = self._environment.get("WATCHDOG_USEC", "")
        meant_for = self._environment.get("WATCHDOG_PID", "")
        if not allowed_us.isdecimal() or int(allowed_us) == 0:
            return None
        if meant_for and meant_for != str(os.getpid()):
            return None
        return int(allowed_us) / 2_000_000

    def _send(self, *lines: str) -> bool:
        """Did the service manager take it? It being away must never harm the daemon."""
        if self._address is None:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(SEND_S)
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return False
        return True


def _address(name: str) -> str | None:
    if name.startswith("@"):
        return "\0" + name[1:]  # Linux's abstract namespace
    return name if name.startswith("/") else None


def _status(status: str) -> str:
    """One line: a newline would begin another assignment."""
    return "STATUS=" + " ".join(status.split())[:STATUS_CHARS_MAX]
