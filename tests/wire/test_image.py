"""Images are known by their heads; whatever lies about itself is refused."""

from __future__ import annotations

import struct
from base64 import b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire.image import TOKENS_MAX, TOKENS_MIN, Image, read_image


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00"


def jpeg(width: int, height: int, *, frame: int = 0xC0) -> bytes:
    """An APP0, a Huffman table, fill bytes, then the frame."""
    head = b"\xff\xd8" + b"\xff\xe0\x00\x04JF" + b"\xff\xc4\x00\x04xx" + b"\xff"
    return head + struct.pack(">BBHBHH", 0xFF, frame, 17, 8, height, width) + b"\x03"


def webp(form: bytes, data: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + form + b"\0\0\0\0" + data.ljust(16, b"\0")


def url(raw: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(raw).decode()}"


def three(number: int) -> bytes:
    return number.to_bytes(3, "little")


GOOD = [
    ("png", png(640, 480)),
    ("gif", gif(640, 480)),
    ("jpeg", jpeg(640, 480)),
    ("jpeg", jpeg(640, 480, frame=0xC2)),
    ("webp", webp(b"VP8X", b"\0" * 4 + three(639) + three(479))),
    ("webp", webp(b"VP8L", b"\x2f" + (639 | 479 << 14).to_bytes(4, "little"))),
    ("webp", webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480))),
]


@pytest.mark.parametrize(("kind", "raw"), GOOD)
def test_every_kind_tells_its_size(kind: str, raw: bytes) -> None:
    assert read_image(url(raw, kind)) == Image(kind, 640, 480)


@pytest.mark.parametrize(
    "bad",
    [
        "https://example.com/x.png",
        "file:///etc/passwd",
        "data:image/svg+xml;base64,AAAA",
        "data:image/png,AAAA",
        "data:image/png;base64,*",
        "data:image/png;base64,é",
        url(b"", "png"),
        url(b"\x89PNG\r\n\x1a\n", "png"),
        url(gif(5, 5)[:8], "gif"),
        url(gif(5, 5), "png"),
        url(png(0, 5), "png"),
        url(png(20_000, 1), "png"),
        url(png(10_000, 10_000), "png"),
        url(b"\xff\xd8\xff\xda\x00\x02" + b"x" * 20, "jpeg"),
        url(b"\xff\xd8", "jpeg"),
        url(webp(b"VP9 ", b""), "webp"),
        url(webp(b"VP8L", b""), "webp"),
        url(webp(b"VP8 ", b""), "webp"),
    ],
)
def test_what_is_no_image_is_refused(bad: str) -> None:
    with pytest.raises(RemoteError):
        read_image(bad)


def test_tokens_grow_with_the_pixels_within_bounds() -> None:
    assert Image("png", 1, 1).tokens == TOKENS_MIN
    assert Image("png", 750, 750).tokens == 750
    assert Image("png", 6_000, 6_000).tokens == TOKENS_MAX


@given(raw=st.binary(max_size=60), kind=st.sampled_from(["png", "gif", "jpeg", "webp"]))
@example(raw=b"\xff\xd8" + b"\xff" * 40, kind="jpeg")
@example(raw=b"\xff\xd8" + b"\xff\xe0\x00\x00" * 9, kind="jpeg")
def test_reading_is_total(raw: bytes, kind: str) -> None:
    """Any bytes are an image or a refusal."""
    try:
        found = read_image(url(raw, kind))
    except RemoteError:
        return
    assert found.width >= 1
    assert found.height >= 1
