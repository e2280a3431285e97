"""JSON lines in, JSON lines out, one at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from nostrllm.errors import LocalError


def read_lines(*texts: str) -> Iterator[dict[str, Any]]:
    """The objects on stdin, each with an `id` and these texts; LocalError on the first that is not.

    An empty line is passed over.
    """
    for place, line in enumerate(sys.stdin.buffer, 1):
        if line.strip():
            yield _object(line, place, texts)


def _object(line: bytes, place: int, texts: tuple[str, ...]) -> dict[str, Any]:
    wanted = ", ".join(("id", *texts))
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if (
        not isinstance(found, dict)
        or "id" not in found
        or not all(isinstance(found.get(name), str) for name in texts)
    ):
        message = f"line {place} is no JSON object with {wanted}"
        raise LocalError(message, code="message-invalid")
    return found


def write_line(value: dict[str, Any]) -> None:
    """One object, at once: whoever waits for it at the other end of a pipe gets it."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
