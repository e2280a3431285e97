"""`nostrllm ask`: the price before, the answer as it comes, the cost after."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from nostrllm.cli.answers import answer_json, ending
from nostrllm.cli.terminal import plain, plain_line
from nostrllm.cli.where import Said, Where, placed
from nostrllm.wire.amount import coins, sats

if TYPE_CHECKING:
    from nostrllm.client.quote import Quote
    from nostrllm.service.client import Client

#: Small models talk nonsense to a question that comes out of nowhere.
SYSTEM: Final = "You are a helpful assistant."


#: Change that the mint still has to sign is waited for so long, so that the balance is right after.
SETTLE_S: Final = 3.0

#: As `client.quote.BUDGET_MSAT`, which takes long to import.
BUDGET_SAT: Final = 1_000.0
#: As `client.quote.BUDGET_CENTS`.
BUDGET_USD: Final = 2.0


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("--provider", metavar="NPUB|NAME", help="Ask this one; default: the cheapest.")
@click.option("--model", metavar="ID", help="Ask this model; default: the cheapest.")
@click.option(
    "--system",
    metavar="TEXT",
    default=SYSTEM,
    show_default=True,
    help='What the model is told before the question; "" is nothing.',
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer.")
@click.option(
    "--max-sat",
    type=click.FloatRange(0),
    default=BUDGET_SAT,
    show_default=True,
    metavar="SAT",
    help="The provider's price and the mint's fee for it are no more; what the mint takes for "
    "making the token and for taking the change in your own wallet comes on top.",
)
@click.option(
    "--max-usd",
    type=click.FloatRange(0),
    default=BUDGET_USD,
    show_default=True,
    metavar="USD",
    help="No more cents are sent for an answer, whatever the provider says that one counts for.",
)
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="T")
@click.option("--seed", type=int, metavar="N", help="For the model's dice.")
@click.option(
    "--pay",
    type=click.Choice(("locked", "token", "account")),
    default="locked",
    show_default=True,
    help="By coins locked to the provider, which he takes after the answer; by a token, which he "
    "takes before; from your account with him.",
)
@click.option("--account", is_flag=True, help="As --pay account.")
@click.option(
    "--of",
    metavar="NPUB",
    help="With --account: from the account of this key, which lets you; see `account allowances`.",
)
@click.option(
    "--change",
    type=click.Choice(("ecash", "account", "lightning")),
    default="ecash",
    show_default=True,
    help="What is not used: back into the wallet, into your account, or to --invoice.",
)
@click.option("--invoice", metavar="INVOICE", help="With --change lightning: what the change pays.")
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


async def _ask(client: Client, where: Where, text: str, options: dict[str, Any]) -> Said:
    answer = client.ask(messages(text, options["system"]), **_wishes(where, options))
    async for piece in answer:
        if not where.json:
            click.echo(plain(piece), nl=False)
            sys.stdout.flush()
    if not where.json:
        click.echo()
    outcome = await answer.settled(SETTLE_S)
    if not where.json:
        for line in ending(outcome):
            click.echo(line, err=True)
    return answer_json(outcome)


def messages(text: str, system: str = SYSTEM) -> list[dict[str, Any]]:
    """A question as OpenAI messages."""
    question = {"role": "user", "content": text}
    return [{"role": "system", "content": system}, question] if system else [question]


def _wishes(where: Where, options: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        name: options[name] for name in ("temperature", "seed") if options[name] is not None
    }

    return {
        "provider": options["provider"],
        "model": options["model"],
        "max_tokens": options["max_tokens"],
        "max_msat": int(options["max_sat"] * 1_000),
        "max_cents": round(options["max_usd"] * 100),
        "pay": "account" if options["account"] else options["pay"],
        "of": options["of"],
        "change": options["change"],
        "invoice": options["invoice"],
        "stream": not options["no_stream"],
        "deadline_s": options["deadline"],
        "parameters": parameters,
        "on_quote": None if where.json else say_quote,
        "on_waiting": None if where.json else say_waiting,
    }


def say_quote(quote: Quote) -> None:
    """The price, before anything is paid; a name is anybody's, so a piece of the key is beside."""
    from nostrllm.adapters.keys_sdk import to_npub

    click.echo(
        f"{plain_line(quote.offer.name)} ({to_npub(quote.offer.provider)[:12]}…) · "
        f"{plain_line(quote.offer.model.id)} · about {sats(quote.estimate_msat)}, "
        f"at most {sats(quote.ceiling_msat)}",
        err=True,
    )
    said = paid_with(quote, time.time())
    if said:
        click.echo(said, err=True)


def say_waiting(ahead: int, wait_s: int) -> None:
    """The place in the provider's line."""
    click.echo(f"number {ahead + 1} in line · about {wait_s} s", err=True)


def paid_with(quote: Quote, now: float) -> str:
    """What is told of coins that are not plain sats at the listed price; "" of those."""
    parts = []
    if quote.unit_msat is not None and quote.rate_at is not None:
        age_s = max(0, int(now) - quote.rate_at)
        one = f"{coins(1, quote.unit)} counts {sats(quote.unit_msat)}, a rate of {age_s} s ago"
        parts += [f"pays {coins(quote.amount, quote.unit)} and takes the rest back", one]
    if quote.percent != 100:
        parts.append(f"{quote.percent} percent of the listed price at {plain_line(quote.mint)}")
    if parts:
        parts.append(f"mint's fee {sats(quote.fee_msat)}")
    return " · ".join(parts)
