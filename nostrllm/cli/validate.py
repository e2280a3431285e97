"""`nostrllm validate`."""

from __future__ import annotations

import click

from nostrllm.cli.lines import read_lines, write_line
from nostrllm.cli.report import failing


@click.command()
@click.option("--jsonl", is_flag=True, required=True, help="The only form there is.")
@click.option("--why", is_flag=True, help="Write the findings too, each with its log-odds.")
def validate(jsonl: bool, why: bool) -> None:
    """How likely answers are wrong, 0 to 1: high ones are worth asking a stronger model for.

    Reads {"id","prompt","answer"} lines, optionally with "schema" (JSON Schema), and writes
    {"id","score"} lines. Checked on this machine: calculations, the result, the option, JSON,
    whether code parses, refusals, answers cut off or repeating themselves. Nothing of an answer is
    run.
    """
    with failing():
        _lines(why)


def _lines(why: bool) -> None:
    from nostrllm.adapters.route_weights import shipped
    from nostrllm.core.prompt import read
    from nostrllm.core.router import expected_gain
    from nostrllm.core.validate import judge

    weights = shipped()
    for line in read_lines("prompt", "answer"):
        prompt, schema = read(line["prompt"]), line.get("schema")
        judged = judge(
            prompt,
            line["prompt"],
            line["answer"],
            gain=expected_gain(prompt, weights),
            schema=schema if isinstance(schema, dict) else None,
        )
        said = {"id": line["id"], "score": judged.score}
        if why:
            said["findings"] = {one.code: round(one.weight, 3) for one in judged.findings}
        write_line(said)
