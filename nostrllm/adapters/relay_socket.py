"""The WebSocket under a relay connection, by the one door that websockets 12 and 17 share."""

from __future__ import annotations

import asyncio
import socket as tcp
from contextlib import suppress
from typing import Protocol, cast

import websockets

from nostrllm.adapters.relay_limits import RelayLimits


class Socket(Protocol):
    """What is used of a WebSocket; websockets 12 and 17 both have it."""

    transport: asyncio.Transport

    async def recv(self) -> str | bytes:
        """The next message."""

    async def send(self, message: str) -> None:
        """Write a text message."""

    async def close(self) -> None:
        """Say goodbye and close."""

    async def wait_closed(self) -> None:
        """Until the socket is gone."""


async def connect(url: str, limits: RelayLimits) -> Socket:
    """A WebSocket to `url`; it pings by itself and closes when no pong comes.

    Raises what websockets, TLS, DNS and the network raise: treat any Exception as "not now".
    """
    async with asyncio.timeout(limits.connect_timeout_s):
        socket = await websockets.connect(
            url,
            compression=None,  # ciphertext does not shrink
            max_size=limits.message_bytes_max,
            open_timeout=limits.connect_timeout_s,
            ping_interval=limits.ping_interval_s,
            ping_timeout=limits.ping_timeout_s,
            close_timeout=limits.close_timeout_s,
        )
    return cast(Socket, socket)


async def hang_up(socket: Socket, timeout_s: float) -> None:
    """Close politely, or else at once; either way nothing of the socket is left."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await socket.close()
    finally:
        socket.transport.abort()
        await socket.wait_closed()


def acknowledge(socket: Socket) -> None:
    """Have the kernel acknowledge what came without delay, once (Linux).

    A relay that leaves Nagle's algorithm on sends its next small packet only after that; the usual
    delay of 40 ms would be on every hop of a stream.
    """
    below = socket.transport.get_extra_info("socket")
    if below is not None and hasattr(tcp, "TCP_QUICKACK"):
        with suppress(OSError):  # the relay has hung up meanwhile: the next read says so
            below.setsockopt(tcp.IPPROTO_TCP, tcp.TCP_QUICKACK, 1)
