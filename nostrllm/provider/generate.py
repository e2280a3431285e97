"""Ask the model, pass its words on as they come, and know at every moment what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from nostrllm.core.money import cost_msat
from nostrllm.core.order import Failed, Generated
from nostrllm.errors import EngineError, NostrllmError
from nostrllm.ports import Delta, Task
from nostrllm.provider.ticket import Job, Written
from nostrllm.wire.order import Usage


class Writer(Protocol):
    """The part of an engine that writes."""

    def stream(self, body: Mapping[str, Any], task: Task = "chat") -> AsyncGenerator[Delta, None]:
        """See ports.Engine."""


Emit = Callable[[str], Awaitable[None]]
Ending = Literal["deadline", "cancelled"]

#: The longest answer that is kept, in bytes as it will travel: escaped twice, in parts.
ANSWER_BYTES_MAX: Final = 400_000
TOOL_CALLS_MAX: Final = 64
NAME_CHARS_MAX: Final = 64
JSON_FORMS: Final = {"json_object", "json_schema"}
#: What JSON escapes, or UTF-8 writes in several bytes.
_ESCAPED = re.compile(r"[^ !#-\[\]-~]")


class Brake:
    """Stops a generation from outside: a cancel, the deadline for the first token, the end."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._timeout: asyncio.Timeout | None = None
        self.ending: Ending | None = None

    def cancel(self) -> None:
        """Stop now; what was generated is charged."""
        self.ending = "cancelled"
        self._move(self._now_s())

    def until(self, when_s: float | None, ending: Ending) -> None:
        """Stop at this unix time, unless a cancel came first."""
        if self.ending != "cancelled":
            self.ending = ending
            self._move(when_s)

    def _move(self, when_s: float | None) -> None:
        if self._timeout is not None and not self._timeout.expired():
            loop = asyncio.get_running_loop()
            when = None if when_s is None else loop.time() + max(0.0, when_s - self._now_s())
            self._timeout.reschedule(when)

    @contextlib.asynccontextmanager
    async def applied(self, first_token_by_s: float) -> Any:
        """The block ends with TimeoutError when the brake is pulled."""
        loop = asyncio.get_running_loop()
        wait_s = 0.0 if self.ending == "cancelled" else first_token_by_s - self._now_s()
        self.ending = self.ending or "deadline"
        self._timeout = asyncio.timeout_at(loop.time() + max(0.0, wait_s))
        async with self._timeout:
            try:
                yield
            finally:
                self._timeout = None  # a cancel may come later, while the order is settled


@dataclass(slots=True)
class _Draft:
    """The answer as it grows. Tokens are counted by pieces until the engine says how many.

    `counts`: its pieces are tokens that the model wrote; vectors are not.
    """

    prompt_tokens: int
    counts: bool = True
    pieces: int = 0
    size_bytes: int = 0
    chars: int = 0
    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None
    told: Usage | None = None

    def add(self, delta: Delta) -> None:
        if delta.text or delta.reasoning or delta.tool_calls:
            self.pieces += delta.pieces
        self.chars += len(delta.text) + len(delta.reasoning)
        self.size_bytes += travelling_bytes(delta.text + delta.reasoning)
        self.texts.append(delta.text)
        self.reasonings.append(delta.reasoning)
        for call in delta.tool_calls:
            self.size_bytes += merge_call(self.tool_calls, call)
        self.finish_reason = (delta.finish_reason or "")[:NAME_CHARS_MAX] or self.finish_reason
        self.told = delta.usage or self.told

    def cut(self) -> None:
        """Leave out what came last: it made the answer too long to send."""
        self.texts.pop()
        self.reasonings.pop()
        self.finish_reason = "length"

    @property
    def usage(self) -> Usage:
        counted = max(self.pieces, self.chars // 4) if self.counts else 0
        return self.told or Usage(prompt=self.prompt_tokens, completion=counted)

    @property
    def is_empty(self) -> bool:
        return self.pieces == 0

    def written(self) -> Written:
        return Written(
            text="".join(self.texts),
            reasoning="".join(self.reasonings),
            tool_calls=tuple(self.tool_calls[n] for n in sorted(self.tool_calls)),
            finish_reason=self.finish_reason,
            usage=self.usage,
        )


def travelling_bytes(text: str) -> int:
    """How long a text will be inside a rumor inside a part: escaped as JSON twice."""
    if not _ESCAPED.search(text):
        return len(text)
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    return len(json.dumps(once, ensure_ascii=False)[1:-1].encode(errors="replace"))


def merge_call(calls: dict[int, dict[str, Any]], piece: Mapping[str, Any]) -> int:
    """Add a streamed piece of a tool call to the calls so far (OpenAI's `index` names the call).

    Returns the bytes it adds. What is not of the documented form is left out.
    """
    index = piece.get("index")
    index = index if isinstance(index, int) else 0
    if index not in calls and len(calls) >= TOOL_CALLS_MAX:
        return 0
    call = calls.setdefault(index, {"function": {"arguments": ""}})
    said = piece.get("function")
    function = said if isinstance(said, Mapping) else {}
    call.update({k: _word(piece.get(k)) for k in ("id", "type") if _word(piece.get(k))})
    if _word(function.get("name")):
        call["function"]["name"] = _word(function.get("name"))
    arguments = function.get("arguments")
    arguments = arguments if isinstance(arguments, str) else ""
    call["function"]["arguments"] += arguments
    return travelling_bytes(arguments) + NAME_CHARS_MAX


def _word(value: object) -> str:
    return value[:NAME_CHARS_MAX] if isinstance(value, str) else ""


async def generate(
    engine: Writer, job: Job, brake: Brake, emit: Emit
) -> tuple[Written, Generated | Failed]:
    """The whole answer, and what it means for the order. Raises nothing but cancellation."""
    draft = _Draft(job.prompt_tokens, counts=job.request.task != "embedding")
    try:
        async with brake.applied(job.ticket.deadline):
            await _consume(engine, job, brake, emit, draft)
    except TimeoutError:
        if brake.ending == "deadline" or (brake.ending is None and draft.is_empty):
            return Written(), Failed("deadline")
        draft.finish_reason = "cancelled"
        return draft.written(), _charged(job, draft, useful=not draft.is_empty, code="cancelled")
    except NostrllmError as error:
        return Written(), Failed(error.code)
    if draft.is_empty and not _wanted_short(job, draft.finish_reason):
        return Written(), Failed("generation-failed")
    if not draft.is_empty and not _keeps_form(job, draft):
        return Written(), Failed("generation-failed")
    return draft.written(), _charged(job, draft, useful=True)


async def _consume(engine: Writer, job: Job, brake: Brake, emit: Emit, draft: _Draft) -> None:
    async with contextlib.aclosing(engine.stream(job.body, job.request.task)) as deltas:
        async for delta in deltas:
            if draft.is_empty:
                brake.until(job.end_by, "cancelled")
            draft.add(delta)
            if draft.size_bytes > ANSWER_BYTES_MAX:
                if not draft.counts:
                    raise EngineError("the vectors are too many to send")
                draft.cut()
                return
            if delta.text:
                await emit(delta.text)


def _charged(job: Job, draft: _Draft, *, useful: bool, code: str | None = None) -> Generated:
    return Generated(cost_msat(job.offer.price, draft.usage), useful=useful, code=code)


def _keeps_form(job: Job, draft: _Draft) -> bool:
    """Is it JSON, where that was asked for, promised, and not cut off or a call of a tool?"""
    form = job.request.response_format
    if form is None or form.get("type") not in JSON_FORMS or draft.finish_reason != "stop":
        return True
    try:
        json.loads("".join(draft.texts))
    except (ValueError, RecursionError):
        return bool(draft.tool_calls)
    return True


def _wanted_short(job: Job, finish_reason: str | None) -> bool:
    """Did the client's own stop word, schema or limit make the answer empty?"""
    asked = job.request
    if finish_reason == "stop":
        return asked.stop is not None or asked.response_format is not None
    return finish_reason == "length" and asked.max_tokens is not None
