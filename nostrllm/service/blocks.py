"""The block list that `nostrllm provider block` keeps: one public key a line in the state folder.

A file and not a table, because the store belongs to one process: the command writes it whether the
provider runs or not, and a running one reads it every few seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nostrllm.crypto.keys import is_public_key
from nostrllm.errors import ConfigError

NAME: Final = "blocked"


def read_blocks(state: Path) -> frozenset[str]:
    """The keys in the list; a line that is no key is passed over. Raises ConfigError."""
    path = state / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None
    return frozenset(filter(is_public_key, text.split()))


def change_blocks(state: Path, pubkey: str, *, blocked: bool) -> bool:
    """Put a key into the list, or take it out; False if it was so. Raises ConfigError."""
    if not state.is_dir():
        raise ConfigError(f"no provider has run on {state} yet")
    before = read_blocks(state)
    after = before | {pubkey} if blocked else before - {pubkey}
    if after == before:
        return False
    path = state / NAME
    part = path.with_suffix(".part")
    try:
        part.write_text("".join(f"{key}\n" for key in sorted(after)), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    return True
