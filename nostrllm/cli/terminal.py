"""How results look: plain text for pipes, a table for a person, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click


def plain(text: str) -> str:
    """Text from a stranger, without the control characters that would steer a terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())


def plain_line(text: str) -> str:
    """As `plain`, in one line: whatever is a blank becomes one."""
    return " ".join(plain(text).split())


def print_json(value: Any, *, err: bool = False) -> None:
    """The one JSON object of a command's output, in ASCII: it may hold a stranger's text."""
    click.echo(json.dumps(value), err=err)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under heads: drawn by rich for a terminal, tab-separated without heads otherwise."""
    cells = [[plain_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)
