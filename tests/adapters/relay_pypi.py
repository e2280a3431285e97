"""PyPI's nostr-relay in a child process: a second opinion on what relays do.

It sends no OK for ephemeral events and answers a duplicate with OK false.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SERVE = "from nostr_relay.cli import main; main()"


@contextmanager
def nostr_relay(folder: Path) -> Iterator[str]:
    """The address of a fresh one, which answers connections as soon as it is up."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        port = listening.getsockname()[1]
        config = folder / "relay.yaml"
        config.write_text(json.dumps(_config(folder, listening.fileno())))
        with (folder / "relay.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, "-c", str(config), "serve"],
                cwd=folder,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                process_group=0,
                env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
            )
    try:
        yield f"ws://127.0.0.1:{port}"
    finally:
        # gunicorn's worker outlives its master, so the whole group goes at once
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _config(folder: Path, fd: int) -> dict[str, Any]:
    return {
        "DEBUG": False,
        "relay_name": "test",
        "storage": {
            "sqlalchemy.url": f"sqlite+aiosqlite:///{folder}/relay.sqlite3",
            "num_concurrent_reqs": 10,
            "num_concurrent_adds": 2,
            "validators": ["nostr_relay.validators.is_signed"],
        },
        "verification": {"nip05_verification": "disabled"},
        "gunicorn": {"bind": f"fd://{fd}", "workers": 1, "loglevel": "warning"},
        "authentication": {"enabled": False},
        "message_timeout": 1800,
        "subscription_limit": 32,
    }
