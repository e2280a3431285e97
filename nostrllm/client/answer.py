"""One answer on its way to the user: text as it comes, and at the end what it cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from nostrllm.client.quote import Quote
from nostrllm.client.settle import Outcome
from nostrllm.errors import LocalError


class Answer:
    """Iterate for the text in pieces, or `await answer.done()`; `result` tells the rest.

    `quote` is there once an offer is chosen, `order_id` once the order is sent; `ahead` is how many
    were before it when the provider took it, for about `wait_s`.

    The order goes on whether or not anybody reads: abandoning the iteration loses no money.
    """

    def __init__(self) -> None:
        self.quote: Quote | None = None
        self.order_id: str | None = None
        self.ahead: int | None = None
        self.wait_s: int | None = None
        self._pieces: deque[str] = deque()  # as many as one answer has, which is bounded
        self._changed = asyncio.Event()
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._closed = asyncio.Event()

    @property
    def result(self) -> Outcome:
        """How it ended. Raises the error it ended with, or LocalError while it has not."""
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise LocalError("the answer is not finished: iterate to its end, or await done()")
        return self._outcome

    async def done(self) -> Outcome:
        """Wait for the end. Raises what went wrong: RemoteError, WorldError or LocalError."""
        while not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return self.result

    async def settled(self, wait_s: float) -> Outcome:
        """As `done`, but waits up to `wait_s` more for change that is still to come.

        What comes later is taken all the same; `result` has it then.
        """
        await self.done()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closed.wait()
        return self.result

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> str:
        """The next piece of text. Raises what went wrong, after the text that came before it."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._outcome is not None:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._pieces.popleft()

    # for the one who brings it

    @property
    def _ended(self) -> bool:
        return self._outcome is not None or self._error is not None

    def _show(self, text: str) -> None:
        """More text."""
        if text:
            self._pieces.append(text)
            self._changed.set()

    def _finish(self, outcome: Outcome) -> None:
        """The end; a later one says where the money is by then."""
        self._outcome = outcome
        self._changed.set()
        if not outcome.pending_msat:
            self._closed.set()

    def _close(self) -> None:
        """Nobody waits for its money any more."""
        self._closed.set()

    def _fail(self, error: BaseException) -> None:
        """The end, by an error; one that comes after the end changes nothing."""
        self._closed.set()
        if self._outcome is None:
            self._error = error
            self._changed.set()
