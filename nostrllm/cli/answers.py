"""Answers and what they cost, for a person and for a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import plain, plain_line
from nostrllm.wire.amount import sats

if TYPE_CHECKING:
    from nostrllm.client.settle import Outcome


def ending(outcome: Outcome) -> list[str]:
    """What the answer cost, in lines."""
    parts = [f"cost {sats(outcome.cost_msat)}", f"mint's fee {sats(outcome.fee_msat)}"]
    if outcome.change_msat:
        coming = " (on its way)" if outcome.pending_msat else ""
        parts.append(f"change {sats(outcome.change_msat)}{coming}")
    if outcome.credit_msat:
        parts.append(f"credit {sats(outcome.credit_msat)}")
    if outcome.paid_out_msat:
        parts.append(f"paid out by Lightning {sats(outcome.paid_out_msat)}")
    usage = outcome.usage
    parts.append(f"{usage.prompt} tokens in, {usage.completion} out")
    lines = [" · ".join(parts)]
    if outcome.not_paid_out is not None:
        problem = f"{outcome.not_paid_out.code}: {outcome.not_paid_out.message}"
        lines.append(f"the change stays in your account: {plain_line(problem)}")
    if outcome.receipt is not None:
        lines.append(f"receipt {outcome.receipt.id}")
    if outcome.breaches:
        lines.append("warning: the provider broke the bargain: " + ", ".join(outcome.breaches))
    return lines


def tell_late(outcome: Outcome, *, asked_for: bool = False) -> None:
    """An answer that came when nobody waited any more; on stdout if a command asked for it."""
    click.echo(f"late answer to order {outcome.order_id}:", err=True)
    if outcome.problem is not None:
        problem = f"{outcome.problem.code}: {outcome.problem.message}"
        click.echo(f"it failed: {plain_line(problem)}", err=True)
    else:
        click.echo(plain(outcome.text), err=not asked_for)
    for line in ending(outcome):
        click.echo(line, err=True)


def answer_json(outcome: Outcome) -> dict[str, Any]:
    """The answer and its price for a program."""
    return {
        "text": outcome.text,
        "model": outcome.model,
        "provider": outcome.provider,
        "order": outcome.order_id,
        "finish_reason": outcome.finish_reason,
        "reasoning": outcome.reasoning,
        "tool_calls": outcome.tool_calls,
        "usage": outcome.usage.model_dump(),
        "estimate_msat": outcome.estimate_msat,
        "ceiling_msat": outcome.ceiling_msat,
        "cost_msat": outcome.cost_msat,
        "fee_msat": outcome.fee_msat,
        "change_msat": outcome.change_msat,
        "pending_msat": outcome.pending_msat,
        "credit_msat": outcome.credit_msat,
        "paid_out_msat": outcome.paid_out_msat,
        "receipt": None if outcome.receipt is None else outcome.receipt.as_dict(),
        "accepted": None if outcome.accepted is None else outcome.accepted.as_dict(),
        "breaches": list(outcome.breaches),
        "problem": None if outcome.problem is None else outcome.problem.model_dump(),
    }
