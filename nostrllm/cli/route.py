"""`nostrllm route [TEXT]`."""

from __future__ import annotations

import sys

import click

from nostrllm.cli.lines import read_lines, write_line
from nostrllm.cli.report import failing
from nostrllm.cli.terminal import print_json


@click.command()
@click.argument("text", required=False)
@click.option(
    "--jsonl", is_flag=True, help='{"id","prompt"} lines in, {"id","score","us"} lines out.'
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def route(text: str | None, jsonl: bool, as_json: bool) -> None:
    """How much a strong model would gain over a weak one on TEXT, 0 to 1.

    Decided on this machine, in less than a millisecond; nobody is asked. Without TEXT, what comes
    on stdin. `us` is the CPU time of the decision in microseconds.
    """
    with failing(as_json):
        if jsonl:
            _lines()
        else:
            _one(_stdin() if text is None else text, as_json)


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _lines() -> None:
    from time import thread_time_ns

    from nostrllm.adapters.route_weights import shipped
    from nostrllm.core.prompt import read
    from nostrllm.core.router import expected_gain, score

    weights = shipped()
    for line in read_lines("prompt"):
        began = thread_time_ns()
        found = score(expected_gain(read(line["prompt"]), weights))
        spent_us = (thread_time_ns() - began) / 1_000
        write_line({"id": line["id"], "score": found, "us": round(spent_us, 1)})


def _one(text: str, as_json: bool) -> None:
    from nostrllm.adapters.route_weights import shipped
    from nostrllm.core.prompt import read
    from nostrllm.core.router import expected_gain, score

    prompt = read(text)
    found = score(expected_gain(prompt, shipped()))
    if as_json:
        print_json({"kind": prompt.kind, "score": found})
    else:
        click.echo(f"{found:.3f}\t{prompt.kind}")
