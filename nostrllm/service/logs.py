"""Structured logs, one JSON line per event on stdout, in which no key, token or prompt can stand.

The rule is not that callers take care but that every line passes `redact`: what looks like a secret
is cut out of any text, what is named like one is dropped whatever it looks like, and of an
exception only its type, its place and, if it is one of ours, its message is told.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from functools import lru_cache
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, TextIO

import orjson
import structlog

from nostrllm.errors import ConfigError, NostrllmError

REMOVED: Final = "[removed]"
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
TEXT_CHARS_MAX: Final = 8_192
ITEMS_MAX: Final = 100
DEPTH_MAX: Final = 6
FRAMES_MAX: Final = 30
INT_MAX: Final = 1 << 63  # a private key is larger

_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
#: Hex, and words without a digit or a secret's beginning: most of what is told.
_HARMLESS = re.compile(r"[0-9a-f]{1,64}|(?!.*(?:cashu|creq))[a-z_]{1,31}")
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
# fmt: off
_SECRET_WORDS: Final = frozenset({
    "apikey", "auth", "authorization", "bearer", "body", "content", "contents", "cookie",
    "credential", "credentials", "key", "message", "messages", "mnemonic", "ncryptsec", "nsec",
    "passphrase", "password", "plaintext", "preimage", "privkey", "proof", "proofs", "prompt",
    "prompts", "rumor", "secret", "secrets", "seckey", "seed", "text", "token",
})
# fmt: on
_PUBLIC_NAMES: Final = frozenset({"public_key"})
_SECRETS: Final = (
    (re.compile(r"n(?:crypt)?sec1[a-z0-9]*", re.IGNORECASE), REMOVED),
    (re.compile(r"(?:cashu|creq)[AB][\w+/=-]*", re.IGNORECASE), REMOVED),
    (re.compile(r"\bbearer\s+\S+", re.IGNORECASE), REMOVED),
    (re.compile(r"\bsk-[\w-]+"), REMOVED),
    (re.compile(r"(://)[^\s\"'<>]*@"), rf"\1{REMOVED}@"),
    (re.compile(r"(://[^\s\"'<>?#]*)[?#][^\s\"'<>]*"), rf"\1?{REMOVED}"),
)

EventDict = MutableMapping[str, Any]


def setup(level: str = "info", *, console: bool = False, stream: TextIO | None = None) -> None:
    """Send everything that is logged to stdout as JSON lines; `console` for a person instead.

    May be called again to change the level. Raises ConfigError for an unknown level.
    """
    if level not in LEVELS:
        raise ConfigError(f"log level must be one of {', '.join(LEVELS)}")
    target = stream or sys.stdout
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            _console(target) if console else structlog.processors.JSONRenderer(_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_LibraryLines()]
    root.setLevel(logging.WARNING)
    sys.excepthook = _crashed


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """The event without secrets: a structlog processor, the last before the renderer."""
    name = event.pop("event", "")
    error = _exception(event.pop("exc_info", None))
    stack = event.pop("stack_info", None)
    said = {**event} if stack is None else {**event, "stack": str(stack)}
    clean: EventDict = {
        "event": name if isinstance(name, str) and _EVENT.fullmatch(name) else "misnamed_event"
    }
    clean.update(_fields(said, 0))
    if error is not None:
        clean["error"] = _error(error, 0)
    return clean


def redact_text(text: str) -> str:
    """`text` without keys, tokens, and the private parts of URLs."""
    if _HARMLESS.fullmatch(text):
        return text
    if len(text) > TEXT_CHARS_MAX:
        text = text[:TEXT_CHARS_MAX]
        # the cut may have split a URL before the @ that gives its password away
        text = text[: max(text.rfind(" "), 0)] + f" {REMOVED}"
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text.encode(errors="replace").decode()  # a lone surrogate is no UTF-8


@lru_cache(1_024)
def is_secret_name(name: str) -> bool:
    """Is a field called `name` never to be told? `pubkey` and `prompt_tokens` are no secrets."""
    words = [word.lower() for word in _WORD.findall(name)]
    return "_".join(words) not in _PUBLIC_NAMES and not _SECRET_WORDS.isdisjoint(words)


def _fields(fields: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in list(fields.items())[:ITEMS_MAX]:
        key = _name(name) if isinstance(name, str) else REMOVED
        yield key, _named(key, value, depth)


@lru_cache(1_024)
def _name(name: str) -> str:
    return redact_text(name)


def _named(name: str, value: Any, depth: int) -> Any:
    if is_secret_name(name) and not _is_plain(value):
        return REMOVED
    return redact_text(value) if isinstance(value, str) else _value(value, depth)


def _is_plain(value: Any) -> bool:
    if isinstance(value, bool | float) or value is None:
        return True
    return isinstance(value, int) and abs(value) < INT_MAX


def _value(value: Any, depth: int) -> Any:
    if _is_plain(value):
        return value
    if depth >= DEPTH_MAX:
        return REMOVED
    match value:
        case str() | PurePath():
            return redact_text(str(value))
        case Mapping():
            return dict(_fields(value, depth + 1))
        case list() | tuple() | set() | frozenset():
            return [_value(each, depth + 1) for each in list(value)[:ITEMS_MAX]]
        case BaseException():
            return _error(value, depth + 1)
        case _:
            return f"<{type(value).__name__}>"  # its repr may hold anything


def _exception(said: Any) -> BaseException | None:
    if isinstance(said, tuple):
        said = said[1]
    return said if isinstance(said, BaseException) else sys.exception() if said else None


def _error(error: BaseException, depth: int) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(error).__name__, "at": _frames(error)}
    if isinstance(error, NostrllmError):
        told |= {"code": error.code, "said": redact_text(error.message)}
    elif isinstance(error, OSError) and error.errno is not None:
        told["errno"] = error.errno
    if depth >= DEPTH_MAX:
        return told
    if isinstance(error, BaseExceptionGroup):
        told["errors"] = [_error(each, depth + 1) for each in error.exceptions[:ITEMS_MAX]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        told["cause"] = _error(cause, depth + 1)
    return told


def _frames(error: BaseException) -> list[str]:
    """Where it came through, innermost last, without source lines: they may hold a literal."""
    frames = list(traceback.walk_tb(error.__traceback__))[-FRAMES_MAX:]
    return [
        f"{PurePath(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}"
        for frame, line in frames
    ]


def _json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS).decode()


def _console(stream: TextIO) -> Any:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty())


class _LibraryLines(logging.Handler):
    """What a library logs: who, where and how bad, but not its words, which may quote anything."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line in our own form."""
        log = structlog.get_logger()
        with contextlib.suppress(BrokenPipeError):
            log.log(
                max(record.levelno, logging.DEBUG),
                "library_line",
                logger=record.name,
                at=f"{PurePath(record.pathname).name}:{record.lineno} {record.funcName}",
                exc_info=record.exc_info[1] if record.exc_info else None,
            )


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().error("crashed", exc_info=error.with_traceback(trace))
