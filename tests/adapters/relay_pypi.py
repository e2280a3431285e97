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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nostrllm.devnet.probes import relay_answers

_SERVE = "from nostr_relay.cli import main; main()"


@contextmanager
def nostr_relay(folder: Path) -> Iterator[str]:
    """The address of a fresh one that has answered once."""
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
    url = f"ws://127.0.0.1:{port}"
    try:
        _await_answer(url, process)
        yield url
    finally:
        # gunicorn's worker outlives its master, so the whole group goes at once
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_answer(url: str, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
    """Until a REQ is answered; early connections wait in the backlog, so nothing is busy here."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            relay_answers(url)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        else:
            return


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
