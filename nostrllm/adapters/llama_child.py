"""llama.cpp's own server as a child: `python -m nostrllm.adapters.llama_child PARENT FDS… JSON`.

It listens on a Unix socket in a folder of its parent's: no port is opened, and no other user gets
at it. It holds no state, and dies with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from nostrllm.lifeline import arm, report


def serve(report_fd: int, options: dict[str, Any]) -> None:
    """Load one GGUF file and answer for it until SIGTERM."""
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before the server's threads inherit the mask

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["gguf"]
    params.model_alias = {options["alias"]}
    params.hostnames = [options["socket"]]
    params.n_parallel = options["slots"]
    params.n_ctx = options["slots"] * options["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    if options["embeddings"]:
        params.embedding = True
        if options["pooling"]:
            pooling = f"LLAMA_POOLING_TYPE_{options['pooling'].upper()}"
            params.pooling_type = getattr(xllamacpp.llama_pooling_type, pooling)
        params.n_ubatch = params.n_batch = max(params.n_batch, options["context"])
    params.endpoint_slots = True
    params.ui = False
    params.verbosity, params.cache_ram_mib = 1, 512  # errors alone: more would show prompts
    server = xllamacpp.Server(params)
    report(report_fd, url=server.listening_address)
    signal.sigwait(stops)
    os._exit(0)  # its orderly end waits for every open stream


def main() -> None:
    """PARENT_PID LIFELINE_FD REPORT_FD OPTIONS"""
    parent_pid, lifeline_fd, report_fd, options = sys.argv[1:]
    arm(int(parent_pid), int(lifeline_fd))
    os.umask(0o077)
    serve(int(report_fd), json.loads(options))


if __name__ == "__main__":
    main()
