"""One llama.cpp child process: started, waited for, ended; see llama_child."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from nostrllm.errors import EngineError

STOP_S: Final = 3.0
#: Between the end of a process's connections and our hearing of its own.
END_HEARD_S: Final = 0.5


class LlamaProcess:
    """A child that is ready. Must be started from the main thread: it dies with the forking one."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline: int) -> None:
        self._process = process
        self._lifeline: int | None = lifeline
        self._ending = False

    @property
    def pid(self) -> int:
        """Process id, also its process group's."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Is the process there?"""
        return self._process.returncode is None

    @property
    def serves(self) -> bool:
        """May it be asked? Not when it died, nor when it was told to end."""
        return self.runs and not self._ending

    async def ended(self) -> None:
        """Return when it is known that it ended, or very probably did not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_HEARD_S):
                await self._process.wait()

    def terminate(self) -> None:
        """Tell it to end, without waiting."""
        self._ending = True
        self._signal(signal.SIGTERM)

    @classmethod
    async def start(cls, options: Mapping[str, Any], log: Path, within_s: float) -> LlamaProcess:
        """A child that has loaded its model. Raises EngineError `model-unavailable`."""
        lifeline_child, lifeline = os.pipe()
        report, report_child = os.pipe()
        try:
            with _log(log) as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "nostrllm.adapters.llama_child"),
                    *(str(os.getpid()), str(lifeline_child), str(report_child)),
                    json.dumps(dict(options)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lifeline_child, report_child),
                    start_new_session=True,
                )
        except OSError:
            os.close(lifeline)
            os.close(report)
            raise EngineError(
                "the model server cannot be started", code="model-unavailable"
            ) from None
        finally:
            os.close(lifeline_child)
            os.close(report_child)
        child = cls(process, lifeline)
        try:
            await _reported(report, within_s)
        except BaseException:
            await child.kill()
            raise
        return child

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL if that takes too long."""
        self.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        await self._process.wait()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _signal(self, number: signal.Signals) -> None:
        if self.runs:  # its number may be another's afterwards
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


async def _reported(fd: int, within_s: float) -> None:
    """Return when the child says that it is ready. Raises EngineError."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe = os.fdopen(fd, "rb")
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        async with asyncio.timeout(within_s):
            said = await reader.readline()
    except TimeoutError:
        raise EngineError("the model took too long to load", code="model-unavailable") from None
    finally:
        transport.close()
    if not said:  # the pipe closed: it died
        raise EngineError("the model cannot be loaded", code="model-unavailable")


def _log(path: Path) -> BinaryIO:
    return open(path, "wb", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
