"""`nostrllm ask`: the price before, the answer as it comes, the cost after."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import plain, print_json, sats
from nostrllm.cli.where import Where, placed

if TYPE_CHECKING:
    from nostrllm.client.quote import Quote
    from nostrllm.client.settle import Outcome
    from nostrllm.service.client import Client, Wishes


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("--provider", metavar="NPUB|NAME", help="Ask this one; default: the cheapest.")
@click.option("--model", metavar="ID", help="Ask this model; default: the cheapest.")
@click.option("--system", metavar="TEXT", help="What the model is told before the question.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer.")
@click.option("--max-sat", type=click.FloatRange(0), metavar="SAT", help="Pay no more, fees in.")
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="T")
@click.option("--seed", type=int, metavar="N", help="For the model's dice.")
@click.option("--account", is_flag=True, help="Pay from your account with the provider.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
@click.option("--deadline", type=click.FloatRange(1), default=60.0, show_default=True, metavar="S")
@placed
def ask(where: Where, prompt: tuple[str, ...], **options: Any) -> None:
    """Ask a question and pay for the answer.

    PROMPT `-`, or none, reads it from standard input. The answer goes to stdout, the money to
    stderr.
    """
    text = " ".join(prompt)
    if text in ("", "-"):
        text = sys.stdin.read()
    where.run(lambda client: _ask(client, where, text, options))


async def _ask(client: Client, where: Where, text: str, options: dict[str, Any]) -> None:
    answer = client.ask(_messages(text, options["system"]), **_wishes(where, options))
    async for piece in answer:
        if not where.json:
            click.echo(plain(piece), nl=False)
            sys.stdout.flush()
    outcome = answer.result
    if where.json:
        print_json(answer_json(outcome))
        return
    click.echo()
    for line in ending(outcome):
        click.echo(line, err=True)


def _messages(text: str, system: str | None) -> list[dict[str, Any]]:
    question = {"role": "user", "content": text}
    return [question] if system is None else [{"role": "system", "content": system}, question]


def _wishes(where: Where, options: dict[str, Any]) -> Wishes:
    parameters = {
        name: options[name] for name in ("temperature", "seed") if options[name] is not None
    }
    most = options["max_sat"]
    return {
        "provider": options["provider"],
        "model": options["model"],
        "max_tokens": options["max_tokens"],
        "max_msat": None if most is None else int(most * 1_000),
        "pay": "account" if options["account"] else "token",
        "stream": not options["no_stream"],
        "deadline_s": options["deadline"],
        "parameters": parameters,
        "on_quote": None if where.json else say_quote,
    }


def say_quote(quote: Quote) -> None:
    """The price, before anything is paid."""
    click.echo(
        f"{plain(quote.offer.name)} · {quote.offer.model.id} · about {sats(quote.estimate_msat)}, "
        f"at most {sats(quote.ceiling_msat)}",
        err=True,
    )


def ending(outcome: Outcome) -> list[str]:
    """What the answer cost, in lines."""
    parts = [f"cost {sats(outcome.cost_msat)}", f"mint's fee {sats(outcome.fee_msat)}"]
    if outcome.change_msat:
        parts.append(f"change {sats(outcome.change_msat)}")
    if outcome.credit_msat:
        parts.append(f"credit {sats(outcome.credit_msat)}")
    usage = outcome.usage
    parts.append(f"{usage.prompt} tokens in, {usage.completion} out")
    lines = [" · ".join(parts)]
    if outcome.receipt is not None:
        lines.append(f"receipt {outcome.receipt.id}")
    if outcome.breaches:
        lines.append("warning: the provider broke the bargain: " + ", ".join(outcome.breaches))
    return lines


def answer_json(outcome: Outcome) -> dict[str, Any]:
    """The answer and its price for a program."""
    return {
        "text": outcome.text,
        "model": outcome.model,
        "provider": outcome.provider,
        "order": outcome.order_id,
        "finish_reason": outcome.finish_reason,
        "usage": outcome.usage.model_dump(),
        "estimate_msat": outcome.estimate_msat,
        "ceiling_msat": outcome.ceiling_msat,
        "cost_msat": outcome.cost_msat,
        "fee_msat": outcome.fee_msat,
        "change_msat": outcome.change_msat,
        "credit_msat": outcome.credit_msat,
        "receipt": None if outcome.receipt is None else outcome.receipt.as_dict(),
        "accepted": None if outcome.accepted is None else outcome.accepted.as_dict(),
        "breaches": list(outcome.breaches),
    }
