"""The operator's own pricing program in place of ours: Python code, or a script in any language.

Both are asked once a tick and get the state that our policies get. What they answer is kept within
the operator's bounds and above cost; what they fail to answer costs a tick, not the provider: the
caller keeps the last prices.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Final

from nostrllm.core.pricing import Bounds, Decision, of_operator
from nostrllm.core.pricing_state import ServerState
from nostrllm.errors import ConfigError, WorldError

#: How long a program may think; a bid script has as long elsewhere (Akash).
LIMIT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 4_096
#: What a script sees of our environment, in which there may be secrets.
ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


class PythonHook:
    """A zero-argument factory, `module:attribute`, of a callable: state → price or pair of prices.

    Called in a thread. One that does not come back in time cannot be stopped: until it does, no
    other call is made.
    """

    def __init__(
        self, spec: str, bounds: Bounds | None = None, *, limit_s: float = LIMIT_S
    ) -> None:
        """Raises ConfigError if the code cannot be loaded."""
        self._policy = _load(spec)
        self._bounds = bounds
        self._limit_s = limit_s
        self._running: asyncio.Future[object] | None = None

    async def decide(self, state: ServerState) -> Decision:
        """Raises WorldError if it fails, takes too long, or answers no price."""
        if self._running is not None and not self._running.done():
            raise WorldError("the pricing code is still at the last tick")
        self._running = asyncio.ensure_future(asyncio.to_thread(self._policy, state))
        done, _ = await asyncio.wait({self._running}, timeout=self._limit_s)
        if not done:
            self._running.add_done_callback(_forget)
            raise WorldError("the pricing code took too long")
        failure = self._running.exception()
        if failure is not None:
            raise WorldError(f"the pricing code failed: {type(failure).__name__}")
        return _decision(self._running.result(), state, self._bounds)


def _forget(late: asyncio.Future[object]) -> None:
    """Look at what came too late, or asyncio complains that nobody did."""
    if not late.cancelled():
        late.exception()


def _load(spec: str) -> Callable[[ServerState], object]:
    module, _, attribute = spec.partition(":")
    try:
        policy = getattr(import_module(module), attribute)()
    except Exception as error:
        raise ConfigError(f"pricing code {spec!r}: {type(error).__name__}: {error}") from error
    if not callable(policy):
        raise ConfigError(f"pricing code {spec!r} makes nothing that can be called")
    return policy  # type: ignore[no-any-return]


class ScriptHook:
    """A program run each tick: the state as a JSON object on its input, prices on its output.

    The output is a number, or [interactive, batch]. It is started without a shell, and killed with
    everything that it started when its time is up.
    """

    def __init__(
        self, command: Sequence[str], bounds: Bounds | None = None, *, limit_s: float = LIMIT_S
    ) -> None:
        if not command:
            raise ConfigError("a pricing script needs a command")
        self._command = tuple(command)
        self._bounds = bounds
        self._limit_s = limit_s

    async def decide(self, state: ServerState) -> Decision:
        """Raises WorldError if it fails, takes too long, or answers no price."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise WorldError(f"the pricing script does not start: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._limit_s):
                output = await _talk(process, _as_json(state))
                code = await process.wait()
        except TimeoutError:
            raise WorldError("the pricing script took too long") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            # What it left unread, or left to others, keeps its pipes open; only this closes them.
            process._transport.close()  # type: ignore[attr-defined]
        if code != 0:
            raise WorldError(f"the pricing script ended with {code}")
        try:
            answer: object = json.loads(output)
        except ValueError:
            raise WorldError("the pricing script answered no JSON") from None
        return _decision(answer, state, self._bounds)


async def _talk(process: asyncio.subprocess.Process, question: bytes) -> bytes:
    """Ask and read to the end, or to one byte more than an answer may have."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("started with pipes")
    # It may not care what the state is, and be over already: uvloop says that by a RuntimeError.
    with contextlib.suppress(ConnectionError, RuntimeError):
        process.stdin.write(question)
        await process.stdin.drain()
    process.stdin.close()
    output = b""
    while len(output) <= ANSWER_BYTES_MAX:
        piece = await process.stdout.read(ANSWER_BYTES_MAX)
        if not piece:
            return output
        output += piece
    raise WorldError("the pricing script answered too much")


def _as_json(state: ServerState) -> bytes:
    """JSON has no infinity: a bound that is none is null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(state).items()
    }
    return json.dumps(finite).encode() + b"\n"


def _decision(answer: object, state: ServerState, bounds: Bounds | None) -> Decision:
    pair = answer if isinstance(answer, (list, tuple)) else (answer, answer)
    numbers = [float(one) for one in pair if isinstance(one, (int, float))]
    try:
        interactive, batch = numbers
        if len(pair) != len(numbers):
            raise ValueError
        return of_operator((interactive, batch), state, bounds)
    except ValueError:
        raise WorldError("the pricing program answered no price") from None
