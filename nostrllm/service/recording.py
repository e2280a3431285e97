"""What the pricing policies were told, kept so that others can be tried on it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Final

import structlog

from nostrllm.core.pricing_state import ServerState

#: One file of so many bytes is kept beside the one that is written: some days of ticks.
BYTES_MAX: Final = 16_000_000

log = structlog.get_logger()


class Recorder:
    """Writes a line for each state: a JSON object, `pool` beside the fields of ServerState."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, pool: str, state: ServerState) -> None:
        """Add a line. A disk that is full loses it and nothing else."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(state).items()
        }
        try:
            with open(self._path, "a", encoding="utf-8", opener=_private) as file:
                file.write(json.dumps({"pool": pool, **finite}) + "\n")
                full = file.tell() > BYTES_MAX
            if full:
                self._path.replace(self._path.with_suffix(".old.jsonl"))
        except OSError as error:
            log.warning("pricing_not_recorded", reason=error.strerror)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
