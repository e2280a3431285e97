"""Where keys and seeds live: files of mode 0600, or what systemd hands over; never argv or env."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from nostrllm.adapters.keys_sdk import parse_secret, to_nsec
from nostrllm.errors import ConfigError

SEED_BYTES: Final = 64


def private_folder(path: Path) -> Path:
    """The folder, made if missing, open to nobody else. Raises ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


def read_key(path: Path | None) -> bytes:
    """A Nostr secret key from its file, or from systemd's credential `nsec`. Raises ConfigError."""
    if path is None:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise ConfigError(
                "no key: set provider.key_file, or run under systemd with LoadCredential"
            )
        path = Path(folder) / "nsec"
    return parse_secret(read_private(path))


def key_made_once(path: Path) -> bytes:
    """The key in this file; a fresh one is written there first if there is none."""
    if not path.exists():
        write_private(path, to_nsec(_fresh_key()) + "\n")
    return parse_secret(read_private(path))


def seed_made_once(path: Path) -> bytes:
    """The 64-byte seed in this file; a fresh one is written there first if there is none.

    Ecash and derived keys hang on it: it belongs into every backup.
    """
    if not path.exists():
        write_private(path, secrets.token_hex(SEED_BYTES) + "\n")
    try:
        seed = bytes.fromhex(read_private(path))
    except ValueError:
        raise ConfigError(f"{path} is not a seed") from None
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path} is not a seed of {SEED_BYTES} bytes")
    return seed


def write_private(path: Path, text: str) -> None:
    """Write a new file of mode 0600, durably; an existing one is never overwritten."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _fresh_key() -> bytes:
    return secrets.token_bytes(32)


def read_private(path: Path) -> str:
    """The text of a file that nobody else may read. Raises ConfigError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and "CREDENTIALS_DIRECTORY" not in os.environ:
        raise ConfigError(f"{path} can be read by others; mend it with: chmod 600 {path}")
    return text
