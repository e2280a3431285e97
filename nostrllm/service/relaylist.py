"""The default relays, by role: the top level's relays.json, which the wheel carries inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

Role = Literal["discovery", "inbox", "content"]

_PACKAGE = Path(__file__).resolve().parent.parent


def default_relays(role: Role) -> list[str]:
    """The URLs of one role."""
    inside, beside = _PACKAGE / "relays.json", _PACKAGE.parent / "relays.json"
    path = inside if inside.exists() else beside
    content = json.loads(path.read_text(encoding="utf-8"))
    return [relay["url"] for relay in content["relays"] if role in relay["roles"]]
