"""Entry of every devnet process: `python -m nostrllm.devnet.child ROLE PARENT_PID FDS…`.

It ties its life to its parent's before anything heavy is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from nostrllm.lifeline import arm, report


def relay(report_fd: int, port: str) -> None:
    """A Nostr relay in memory on 127.0.0.1:`port`."""
    import asyncio

    from nostr_sdk import LocalRelayBuilder, RateLimit, uniffi_set_event_loop

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        uniffi_set_event_loop(loop)
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        limit = RateLimit(max_reqs=10_000, notes_per_minute=1_000_000)
        builder = LocalRelayBuilder().addr("127.0.0.1").port(int(port))
        server = builder.rate_limit(limit).max_subid_length(300).build()
        async with asyncio.timeout(10):
            await server.run()
        report(report_fd)
        await stop.wait()
        server.shutdown()

    asyncio.run(serve())


def mint(report_fd: int, socket_fd: str) -> None:
    """A Cashu mint, configured by the environment, on an inherited listening socket."""
    import socket

    import uvicorn
    from cashu.mint.app import app

    listening = socket.socket(fileno=int(socket_fd))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    report(report_fd)
    uvicorn.Server(config).run(sockets=[listening])


def model(report_fd: int, gguf: str, alias: str, port: str) -> None:
    """A llama.cpp server for one GGUF file: four slots of 2,048 tokens.

    One thread: with as many threads as cores llama.cpp's spin barriers collapse, on a busy machine
    by a factor of ten and more.
    """
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before the server's threads inherit the mask

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.model_alias = {alias}
    params.port = int(port)
    params.n_ctx, params.n_parallel = 8192, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = True
    params.ui = False
    params.verbosity, params.cache_ram_mib = 2, 512
    server = xllamacpp.Server(params)
    report(report_fd, url=server.listening_address)
    signal.sigwait(stops)
    os._exit(0)  # it holds no state; its orderly end waits for every open stream


def module(report_fd: int, name: str, *arguments: str) -> None:
    """Another Python module as if by `python -m name arguments…`; it says itself when it is up."""
    import runpy

    report(report_fd)
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


ROLES: dict[str, Callable[..., None]] = {
    "relay": relay,
    "mint": mint,
    "model": model,
    "module": module,
}


def main() -> None:
    """ROLE PARENT_PID LIFELINE_FD REPORT_FD [argument…]"""
    role, parent_pid, lifeline_fd, report_fd, *arguments = sys.argv[1:]
    arm(int(parent_pid), int(lifeline_fd))
    os.umask(0o077)
    ROLES[role](int(report_fd), *arguments)


if __name__ == "__main__":
    main()
