"""A child process that outlives nobody: it dies with the process that started it.

Not even a SIGKILL of the parent leaves it behind. Two ropes are tied, because neither holds alone:
the kernel's parent-death signal (Linux), which is sent when the *thread* that forked ends, and a
pipe whose other end only the parent holds.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

PR_SET_PDEATHSIG = 1


def arm(parent_pid: int, lifeline_fd: int) -> None:
    """Die with the parent, whatever happens to it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)
    threading.Thread(target=_hold, args=(lifeline_fd,), name="lifeline", daemon=True).start()


def _hold(lifeline_fd: int) -> None:
    os.read(lifeline_fd, 1)  # returns when the parent is gone
    os.killpg(0, signal.SIGKILL)


def report(fd: int, **said: Any) -> None:
    """Tell the parent, once, that this child is ready."""
    os.write(fd, json.dumps(said).encode() + b"\n")
    os.close(fd)
