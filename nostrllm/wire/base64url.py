"""Base64 of the URL alphabet, as Cashu writes it: no padding out, either alphabet in."""

from __future__ import annotations

import base64


def encode(data: bytes) -> str:
    """The bytes as text without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """The bytes of a text, padded or not. Raises ValueError."""
    bare = text.rstrip("=").replace("+", "-").replace("/", "_")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
