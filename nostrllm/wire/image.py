"""Images inside a request: data: URLs, told by their first bytes, never decoded here.

Anything but a data: URL would be an address that a model server fetches for a stranger. Heads: PNG
(ISO 15948, 11.2.2), GIF89a (17, 18), JPEG (ITU-T T.81, B.2.2), WebP (RFC 9649).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Final

from nostrllm.errors import RemoteError

#: A few kilobytes can claim to be a picture that fills the memory of whoever decodes it.
SIDE_MAX: Final = 16_384
PIXELS_MAX: Final = 40_000_000
IMAGES_MAX: Final = 16

#: What a picture costs, on the high side, is a token per so many pixels, with a floor and a cap.
PIXELS_PER_TOKEN: Final = 750
TOKENS_MIN: Final = 85
TOKENS_MAX: Final = 16_384

_URL: Final = re.compile(r"data:image/(png|jpeg|gif|webp);base64,")
_NO_SIZE: Final = {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Image:
    """What its head says: kind, and size in pixels."""

    kind: str
    width: int
    height: int

    @property
    def tokens(self) -> int:
        """About how many tokens it is to a model."""
        return min(max(TOKENS_MIN, self.width * self.height // PIXELS_PER_TOKEN), TOKENS_MAX)


def read_image(url: str) -> Image:
    """The image in a data: URL. Raises RemoteError."""
    head = _URL.match(url)
    if head is None:
        raise RemoteError("an image is a data: URL of image/png, jpeg, gif or webp, in base64")
    try:
        raw = b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RemoteError("an image is not in base64") from None
    found = _png(raw) or _gif(raw) or _jpeg(raw) or _webp(raw)
    if found is None or found.kind != head[1]:
        raise RemoteError(f"an image is not the {head[1]} that it is said to be")
    sides = (found.width, found.height)
    if not 1 <= min(sides) <= max(sides) <= SIDE_MAX or found.width * found.height > PIXELS_MAX:
        raise RemoteError("an image has too many pixels, or none")
    return found


def _png(raw: bytes) -> Image | None:
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or raw[12:16] != b"IHDR" or len(raw) < 24:
        return None
    return Image("png", int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big"))


def _gif(raw: bytes) -> Image | None:
    if raw[:6] not in (b"GIF87a", b"GIF89a") or len(raw) < 10:
        return None
    return Image("gif", int.from_bytes(raw[6:8], "little"), int.from_bytes(raw[8:10], "little"))


def _jpeg(raw: bytes) -> Image | None:
    """The frame header's size: segments are walked until it comes."""
    if raw[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(raw) and raw[place] == 0xFF:
        marker = raw[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height = int.from_bytes(raw[place + 5 : place + 7], "big")
            return Image("jpeg", int.from_bytes(raw[place + 7 : place + 9], "big"), height)
        place += 1 if marker == 0xFF else 2 + int.from_bytes(raw[place + 2 : place + 4], "big")
    return None


def _webp(raw: bytes) -> Image | None:
    if raw[:4] != b"RIFF" or raw[8:12] != b"WEBP" or len(raw) < 30:
        return None
    match raw[12:16]:
        case b"VP8X":
            width = int.from_bytes(raw[24:27], "little") + 1
            return Image("webp", width, int.from_bytes(raw[27:30], "little") + 1)
        case b"VP8L" if raw[20] == 0x2F:
            bits = int.from_bytes(raw[21:25], "little")
            return Image("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8 " if raw[23:26] == b"\x9d\x01\x2a":
            width = int.from_bytes(raw[26:28], "little") & 0x3FFF
            return Image("webp", width, int.from_bytes(raw[28:30], "little") & 0x3FFF)
    return None
