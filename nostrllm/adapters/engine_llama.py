"""llama.cpp inside the provider: a child process that is there while somebody asks.

The model is loaded by the first request and unloaded when none came for a while; a child that died
is started anew by the next request. The child listens on a Unix socket that only we can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nostrllm.adapters.engine_http import Limits, Place, Server
from nostrllm.adapters.engine_openai import OpenAIEngine
from nostrllm.adapters.llama_process import LlamaProcess
from nostrllm.errors import EngineError
from nostrllm.ports import Delta, Load, Task

#: The host is of no meaning on a Unix socket.
HOST = "http://llama"


def spare_threads() -> int:
    """All cores but one: with as many threads as cores llama.cpp's spin barriers collapse on a
    machine that does anything else, by a factor of ten and more."""
    return max(1, (os.cpu_count() or 1) - 1)


@dataclass(frozen=True, slots=True)
class Weights:
    """A GGUF file and how it is run: `slots` answers at once of `context` tokens each.

    `embeddings`: it makes vectors, and nothing else; `pooling` says how where its file does not.
    """

    gguf: Path
    alias: str
    context: int = 2_048
    slots: int = 4
    threads: int = 1
    embeddings: bool = False
    pooling: Literal["mean", "cls", "last"] | None = None


class LlamaEngine:
    """`ports.Engine` that owns its server; to be used as `async with`, from the main thread.

    `keep_alive_s` without a request unload the model; None keeps it until the block ends. `log` is
    the file for what the child says: errors alone, never a prompt.
    """

    def __init__(
        self,
        weights: Weights,
        log: Path,
        *,
        keep_alive_s: float | None = 300.0,
        load_s: float = 120.0,
        limits: Limits | None = None,
    ) -> None:
        self._weights = weights
        self._log = log
        self._keep_alive_s = keep_alive_s
        self._load_s = load_s
        self._limits = limits or Limits()
        self._folder: str | None = None
        self._child: LlamaProcess | None = None
        self._starting = asyncio.Lock()
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> LlamaEngine:
        """Make the folder of the socket; nothing is loaded yet."""
        self._folder = tempfile.mkdtemp(prefix="nostrllm-")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Unload the model."""
        self._stay()
        async with self._starting:
            await self._unload()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __repr__(self) -> str:
        return f"LlamaEngine({self._weights.alias})"

    @property
    def pid(self) -> int | None:
        """The child's process id while the model is loaded."""
        return self._child.pid if self._child is not None and self._child.runs else None

    async def models(self) -> list[str]:
        """See ports.Engine."""
        return [self._weights.alias]

    async def health(self) -> None:
        """See ports.Engine: the child answers, or could be started."""
        if self.pid is not None:
            await self._api().health()
        elif importlib.util.find_spec("xllamacpp") is None:
            raise EngineError("xllamacpp is not installed", code="model-unavailable")
        elif not await asyncio.to_thread(os.access, self._weights.gguf, os.R_OK):
            raise EngineError("the model's file cannot be read", code="model-unavailable")

    async def load(self) -> Load:
        """See ports.Engine."""
        slots = self._weights.slots
        if self.pid is None:
            return Load(slots=slots, busy=0)
        place = Place(HOST, socket=self._socket)
        said = await Server(place, self._limits).ask("GET", "/slots", within_s=self._limits.list_s)
        listed = said if isinstance(said, list) else []
        busy = sum(isinstance(each, dict) and each.get("is_processing") is True for each in listed)
        return Load(slots=slots, busy=busy)

    async def stream(
        self, body: Mapping[str, Any], task: Task = "chat"
    ) -> AsyncGenerator[Delta, None]:
        """See ports.Engine; the first request waits while the model is loaded."""
        if (task == "embedding") != self._weights.embeddings:
            raise EngineError("this model does not do that", code="message-invalid")
        async with (
            self._used(),
            contextlib.aclosing(self._api().stream(body, task)) as deltas,
        ):
            async for delta in deltas:
                yield delta

    @contextlib.asynccontextmanager
    async def _used(self) -> AsyncIterator[None]:
        """A loaded model for the block."""
        self._users += 1
        self._stay()
        try:
            child = await self._loaded()
            try:
                yield
            except EngineError:
                await child.ended()  # if that was why, the next request must know
                raise
        finally:
            self._users -= 1
            if not self._users and self._keep_alive_s is not None:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(self._keep_alive_s, self._let_go)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _let_go(self) -> None:
        """Nobody has asked for long: SIGTERM, at which the child is gone at once."""
        if self._child is not None and not self._users:
            self._child.terminate()

    async def _loaded(self) -> LlamaProcess:
        async with self._starting:
            if self._child is not None and self._child.serves:
                return self._child
            await self._unload()
            if self._folder is None:
                raise EngineError("the engine is closed", code="model-unavailable")
            asked = replace(self._weights, gguf=self._weights.gguf.absolute())
            options = {name: getattr(asked, name) for name in asked.__slots__}
            options |= {"gguf": str(asked.gguf), "socket": self._socket}
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket)
            self._child = await LlamaProcess.start(options, self._log, self._load_s)
            return self._child

    async def _unload(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()

    @property
    def _socket(self) -> str:
        return f"{self._folder}/llama.sock"

    def _api(self) -> OpenAIEngine:
        return OpenAIEngine(f"{HOST}/v1", limits=self._limits, socket=self._socket)
