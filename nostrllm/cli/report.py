"""How a command tells that it failed: one line on stderr with a stable code, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from nostrllm.cli.terminal import plain_line, print_json
from nostrllm.errors import NostrllmError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def failing(as_json: bool = False) -> Iterator[None]:
    """Turn the errors of a command into its output; what is no error of ours passes through."""
    try:
        yield
    except NostrllmError as error:
        _tell(error, as_json)
        sys.exit(EXIT_FAILED)
    except BaseExceptionGroup as group:
        inner = _first(group)
        if inner is None:
            raise
        _tell(inner, as_json)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _first(group: BaseExceptionGroup[BaseException]) -> NostrllmError | None:
    """The error of ours inside a task group's, if that is all there is."""
    ours, others = group.split(NostrllmError)
    if ours is None or others is not None:
        return None
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, NostrllmError)
    return error


def _tell(error: NostrllmError, as_json: bool) -> None:
    if as_json:
        print_json({"error": {"code": error.code, "message": error.message}}, err=True)
    else:
        click.echo(f"error: {error.code}: {plain_line(error.message)}", err=True)
