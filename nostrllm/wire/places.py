"""Addresses as they travel: one spelling for every relay."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from nostrllm.errors import RemoteError

URL_CHARS_MAX: Final = 256

_PORTS: Final = {"ws": 80, "wss": 443}


@lru_cache(4_096)
def relay_url(text: str) -> str:
    """One spelling for every spelling of a relay's address.

    Raises RemoteError for what is no ws:// or wss:// address.
    """
    try:
        parts = urlsplit(text.strip() if len(text) <= URL_CHARS_MAX else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise RemoteError("the relay address cannot be read") from None
    if parts.scheme not in _PORTS or not host or parts.username or parts.password:
        raise RemoteError("a relay address begins with ws:// or wss:// and a host")
    host = f"[{host}]" if ":" in host else host
    netloc = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    path = "" if parts.path == "/" else parts.path
    return urlunsplit((parts.scheme, netloc, path, parts.query, ""))
