"""A part's SQL file: numbered migrations and named statements, for any store.

`-- migration: 1` starts the statements that make version 1 of the part's tables, `-- name: x` one
statement called x. Parameters are written `:name`. What is written there runs on SQLite and on
PostgreSQL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from nostrllm.errors import LocalError

_MARK = re.compile(r"^-- (migration|name): *(\w+) *$", re.MULTILINE)
_END = re.compile(r";[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"--.*$", re.MULTILINE)
_PARAMETER = re.compile(r":(\w+)")
_READS = re.compile(r"\A\s*(SELECT|WITH)\b", re.IGNORECASE)
_RETURNS = re.compile(r"\bRETURNING\b", re.IGNORECASE)

#: Where each part's version stands; every store has it.
VERSION_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS schema_version (part TEXT PRIMARY KEY, version BIGINT NOT NULL)"
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement; `is_read`: a SELECT; `gives_rows`: that, or a change with RETURNING."""

    name: str
    sql: str
    parameters: frozenset[str]
    gives_rows: bool
    is_read: bool


@dataclass(frozen=True, slots=True)
class Part:
    """The tables and statements of one file; migration n is `migrations[n - 1]`."""

    name: str
    migrations: tuple[tuple[str, ...], ...]
    statements: tuple[Statement, ...]


def read_part(name: str) -> Part:
    """The part in `adapters/sql/{name}.sql`. Raises LocalError if there is none."""
    path = files("nostrllm.adapters").joinpath("sql", f"{name}.sql")
    if not path.is_file():
        raise LocalError(f"there are no SQL statements called {name!r}")
    return parse_part(name, path.read_text(encoding="utf-8"))


def parse_part(name: str, text: str) -> Part:
    """The part written in `text`. Raises LocalError when its marks are not in order."""
    _, *pieces = _MARK.split(text)
    migrations: list[tuple[str, ...]] = []
    statements: list[Statement] = []
    for what, mark, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        lines = tuple(sql for piece in _END.split(_COMMENT.sub("", body)) if (sql := piece.strip()))
        if what == "migration":
            if mark != str(len(migrations) + 1):
                raise LocalError(f"{name}.sql: migration {mark} is out of order")
            migrations.append(lines)
        elif len(lines) != 1:
            raise LocalError(f"{name}.sql: {mark} is not one statement")
        else:
            statements.append(_statement(mark, lines[0]))
    return Part(name, tuple(migrations), tuple(statements))


def _statement(name: str, sql: str) -> Statement:
    parameters = frozenset(_PARAMETER.findall(sql))
    is_read = bool(_READS.search(sql))
    return Statement(name, sql, parameters, is_read or bool(_RETURNS.search(sql)), is_read)


def statements_of(parts: Sequence[Part]) -> dict[str, Statement]:
    """All statements by name. Raises LocalError for a name used twice."""
    found: dict[str, Statement] = {}
    for statement in (statement for part in parts for statement in part.statements):
        if statement.name in found:
            raise LocalError(f"two SQL statements are called {statement.name!r}")
        found[statement.name] = statement
    return found
