"""The OKs a connection waits for, by event id, and what they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from nostrllm.adapters.relay_wire import Ok


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an event at one relay; `reason` is empty when it was taken."""

    reason: str = ""

    @classmethod
    def of(cls, ok: Ok) -> Verdict:
        """A duplicate is a success whatever the flag says: the relay has the event."""
        if ok.accepted or ok.reason.startswith("duplicate:"):
            return cls()
        return cls(ok.reason or "refused without a reason")


class Answers:
    """Each waiter gets the first OK for its event, or None when the connection is lost."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[Ok | None]]] = {}

    def __bool__(self) -> bool:
        """Is anybody waiting?"""
        return bool(self._waiting)

    async def exchange(self, sending: Awaitable[bool], number: str) -> Ok | None:
        """Await the sending of event `number`, then its OK; None if it was not sent."""
        answer: asyncio.Future[Ok | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(number, [])
        waiting.append(answer)
        try:
            return await answer if await sending else None
        finally:
            waiting.remove(answer)
            if not waiting:
                self._waiting.pop(number, None)

    def give(self, ok: Ok) -> None:
        """An OK came; one that nobody waits for is nothing."""
        _resolve(self._waiting.get(ok.event_id, []), ok)

    def lose(self) -> None:
        """None will come any more."""
        for waiting in self._waiting.values():
            _resolve(waiting, None)


def _resolve(waiting: list[asyncio.Future[Ok | None]], ok: Ok | None) -> None:
    for answer in waiting:
        if not answer.done():
            answer.set_result(ok)
