"""Where a client lives: what was said on the command line or in code, and the defaults."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nostrllm.errors import ConfigError, RemoteError
from nostrllm.service.relaylist import default_relays
from nostrllm.wire.places import relay_url
from nostrllm.wire.token import normal_url

#: The environment's word for where a user's programs keep what is theirs.
XDG_DATA_HOME: Final = "XDG_DATA_HOME"


@dataclass(frozen=True, slots=True)
class Place:
    """A client's private folder, its relays, and the mint it prefers; URLs in normal form."""

    state: Path
    relays: tuple[str, ...]
    mint: str | None = None


def place(
    *,
    state: Path | str | None = None,
    relays: Sequence[str] = (),
    mint: str | None = None,
    devnet: Path | str | None = None,
) -> Place:
    """The client's place from what was said and from defaults; `devnet` names a devnet.json.

    Raises ConfigError for a file or URL that is none.
    """
    if devnet is not None:
        path = Path(devnet).absolute()
        path = path / "devnet.json" if path.is_dir() else path
        found = _devnet(path)
        state = state or path.parent / "client"
        relays, mint = relays or found[0], mint or found[1]
    urls = tuple(relays) or (*default_relays("inbox"), *default_relays("discovery"))
    folder = _data_home() / "nostrllm" / "client" if state is None else Path(state)
    try:
        return Place(
            folder.absolute(),
            tuple(dict.fromkeys(relay_url(url) for url in urls)),
            None if mint is None else normal_url(mint),
        )
    except RemoteError as error:
        raise ConfigError(error.message) from None


def _devnet(path: Path) -> tuple[tuple[str, ...], str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(content["relays"]), str(content["mint"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} does not describe a devnet that runs") from None


def _data_home() -> Path:
    stated = os.environ.get(XDG_DATA_HOME)
    return Path(stated) if stated else Path.home() / ".local" / "share"
