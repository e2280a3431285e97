"""Server-sent events, bytes in and event data out, without I/O (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from typing import Final

from nostrllm.errors import EngineError

LINE_BYTES_MAX: Final = 1 << 20
EVENT_BYTES_MAX: Final = 1 << 22

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class EventStream:
    """Takes the body as it arrives and gives the `data` of every event that is complete.

    Names, ids and retry times are dropped: no model server says anything with them. An event that
    the end of the stream cuts off is never given, as the standard asks.
    """

    def __init__(
        self, *, line_bytes_max: int = LINE_BYTES_MAX, event_bytes_max: int = EVENT_BYTES_MAX
    ) -> None:
        self._line_bytes_max = line_bytes_max
        self._event_bytes_max = event_bytes_max
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._at_start = True
        self._ended_with_cr = False

    def feed(self, block: bytes) -> list[str]:
        """The data of the events that `block` completes. Raises EngineError for one too large."""
        if (whole := self._whole(block)) is not None:
            return whole
        joined = self._ended_with_cr and block.startswith(b"\n")
        if block:
            self._ended_with_cr = block.endswith(b"\r")
        block = block[1:] if joined else block
        first, *others = _LINE_END.split(block)
        self._grow(first)
        if not others:
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest.clear()
        self._grow(others[-1])
        return [event for line in lines if (event := self._take(line)) is not None]

    def _whole(self, block: bytes) -> list[str] | None:
        """The data of a block of whole events of one line each, which is what comes mostly; else
        None."""
        begun = self._rest or self._data or self._ended_with_cr
        longest = min(self._line_bytes_max, self._event_bytes_max - 1)
        if begun or len(block) > longest or not block.startswith(b"data:") or b"\r" in block:
            return None
        events = block[5:-2].split(b"\n\ndata:")
        if not block.endswith(b"\n\n") or block.count(b"\n") != 2 * len(events):
            return None
        self._at_start = False
        return [event.removeprefix(b" ").decode(errors="replace") for event in events]

    def _grow(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > self._line_bytes_max:
            raise EngineError("the model server sent a line that is too long")

    def _take(self, line: bytes) -> str | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data_bytes += len(value) + 1
            if len(line) > self._line_bytes_max or self._data_bytes > self._event_bytes_max:
                raise EngineError("the model server sent an event that is too large")
            self._data.append(value)
        return None

    def _end_event(self) -> str | None:
        if not self._data:
            return None
        event = b"\n".join(self._data).decode(errors="replace")
        self._data.clear()
        self._data_bytes = 0
        return event
