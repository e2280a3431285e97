"""A stream of text: cut into chunks by the provider, put in order again by the client.

Chunks are events that relays may lose, double and reorder. The result at the end repeats the whole
text, so a stream decides nothing; it only lets a reader see the answer earlier.
"""

from __future__ import annotations

import hashlib
from typing import Final

#: What the client keeps of chunks that came before an earlier one.
PENDING_MAX: Final = 64
PENDING_BYTES_MAX: Final = 256_000

#: How the provider cuts.
CHUNK_BYTES_MAX: Final = 8_000
INTERVAL_S: Final = 0.25
INTERVAL_S_MIN: Final = 0.05
INTERVAL_S_MAX: Final = 1.0

#: Plaintexts of chunks have one of the lengths 256, 512, 1024…, so that theirs tells little.
PADDED_BYTES_MIN: Final = 256
PADDED_BYTES_MAX: Final = 65_535


class Stream:
    """The client's side: text that can be shown, in order, and at the end the rest of it.

    What was shown is remembered as a hash and a length, so a stream of any length costs the same.
    """

    def __init__(self) -> None:
        self.diverged = False  # what was shown is not how the result begins
        self._next = 0
        self._pending: dict[int, str] = {}
        self._pending_bytes = 0
        self._open = True
        self._shown_chars = 0
        self._shown = hashlib.sha256()

    @property
    def open(self) -> bool:
        """Can chunks still be shown? Not after the end, nor once a gap was given up."""
        return self._open

    @property
    def shown_chars(self) -> int:
        """How many characters were given out."""
        return self._shown_chars

    def push(self, seq: int, text: str) -> str:
        """What can be shown now that chunk `seq` (from 0) came; "" when it is known or early.

        When more than 64 chunks or 256 kB wait for a lost one, the stream is given up and the
        result decides.
        """
        if not self._open or seq < self._next or seq in self._pending:
            return ""
        self._pending[seq] = text
        self._pending_bytes += _size_bytes(text)
        ready: list[str] = []
        while self._next in self._pending:
            piece = self._pending.pop(self._next)
            self._pending_bytes -= _size_bytes(piece)
            self._next += 1
            ready.append(piece)
        if len(self._pending) > PENDING_MAX or self._pending_bytes > PENDING_BYTES_MAX:
            self._close()
        return self._show("".join(ready))

    def finish(self, full_text: str) -> str:
        """What is left to show, the whole text being known.

        When what was shown is not its beginning, `diverged` is set and the whole text returned.
        """
        self._close()
        begins = hashlib.sha256(_utf8(full_text[: self._shown_chars]))
        if len(full_text) < self._shown_chars or begins.digest() != self._shown.digest():
            self.diverged = True
            self._shown, self._shown_chars = hashlib.sha256(), 0
        return self._show(full_text[self._shown_chars :])

    def _show(self, text: str) -> str:
        self._shown_chars += len(text)
        self._shown.update(_utf8(text))
        return text

    def _close(self) -> None:
        self._open = False
        self._pending.clear()
        self._pending_bytes = 0


class Chunker:
    """The provider's side: the first token at once, then all there is once per interval.

    An event per token would cost a signature and 680 bytes for each.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        """`interval_s` as the order asks, held between 0.05 and 1 s."""
        self._interval_s = min(max(interval_s, INTERVAL_S_MIN), INTERVAL_S_MAX)
        self._pending: list[str] = []
        self._pending_bytes = 0
        self._sent_at: float | None = None

    @property
    def due_at(self) -> float | None:
        """When `poll` will have something to give, in the caller's seconds; None: nothing waits."""
        if not self._pending or self._sent_at is None:
            return None
        return self._sent_at + self._interval_s

    def push(self, text: str, now_s: float) -> list[str]:
        """The chunks to send now that the model said `text`; each at most 8 kB of UTF-8."""
        if text:
            self._pending.append(text)
            self._pending_bytes += _size_bytes(text)
        return self.poll(now_s)

    def poll(self, now_s: float) -> list[str]:
        """The chunks to send now, if the model says nothing more for a while."""
        early = self._sent_at is not None and now_s < self._sent_at + self._interval_s
        if not self._pending or (early and self._pending_bytes < CHUNK_BYTES_MAX):
            return []
        self._sent_at = now_s
        return self.flush()

    def flush(self) -> list[str]:
        """The chunks that are left, at the end."""
        text = "".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return cut(text, CHUNK_BYTES_MAX)


def cut(text: str, bytes_max: int) -> list[str]:
    """`text` in pieces of at most `bytes_max` (4 or more) bytes of UTF-8, no character cut in two;
    [] for no text."""
    pieces: list[str] = []
    raw = _utf8(text)
    start = 0
    while start < len(raw):
        end = min(start + bytes_max, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(raw[start:end].decode(errors="surrogatepass"))
        start = end
    return pieces


def pad(json_text: str) -> str:
    """`json_text` with blanks after it, up to 256, 512, 1024… bytes of UTF-8 (65,535 at most).

    JSON readers skip them, so that padding changes no meaning; longer texts stay as they are.
    """
    size = _size_bytes(json_text)
    power = 1 << max(size - 1, PADDED_BYTES_MIN - 1).bit_length()
    return json_text + " " * (min(power, PADDED_BYTES_MAX) - size)


def unpad(json_text: str) -> str:
    """`json_text` without the blanks after it."""
    return json_text.rstrip(" ")


def _utf8(text: str) -> bytes:
    """A lone surrogate from a broken model server must not end a stream here."""
    return text.encode(errors="surrogatepass")


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(_utf8(text))
