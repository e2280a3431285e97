"""The router's weights that ship with the package."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from nostrllm.core.router import Weights


@cache
def shipped() -> Weights:
    """Read once; a few milliseconds."""
    return Weights.parse(json.loads((files(__package__) / "route_weights.json").read_bytes()))
