"""A daemon that does nothing but say it is up, in the place of a provider."""

from __future__ import annotations

import json
import os
import signal
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Read the configuration as a provider would, write status.json, wait for SIGTERM."""
    config = tomllib.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    provider = config["provider"]
    key_file = Path(provider["key_file"])
    assert key_file.stat().st_mode & 0o077 == 0
    assert len(bytes.fromhex(key_file.read_text())) == 32
    status = {
        "pid": os.getpid(),
        "pubkey": "ab" * 32,
        "npub": "npub1x",
        "ready": True,
        "models": [model["id"] for model in config["model"]],
        "config": config,
    }
    part = Path(provider["state"]) / "status.part"
    part.write_text(json.dumps(status))
    part.replace(Path(provider["state"]) / "status.json")
    signal.pause()


if __name__ == "__main__":
    main()
