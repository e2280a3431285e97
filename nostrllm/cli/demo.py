"""`nostrllm demo`: the whole market on this machine, once through, from funding to the review."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from nostrllm.cli.ask import SETTLE_S, messages
from nostrllm.cli.report import failing
from nostrllm.cli.terminal import plain
from nostrllm.wire.amount import per_1000, sats

if TYPE_CHECKING:
    from nostrllm.client.settle import Outcome
    from nostrllm.service.client import Client

FUND_SAT: Final = 1_000
QUESTION: Final = "In one sentence: why do people like small towns?"
MENDED_EVERY_S: Final = 1.0


@click.command()
@click.option("--keep", is_flag=True, help="Leave the market running afterwards, until Ctrl-C.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep keys, wallet and logs here; default: a folder that is gone afterwards.",
)
@click.option("--ask", "question", default=QUESTION, show_default=True, help="What to ask.")
@click.option("--engine-url", help="An OpenAI-compatible server instead of the embedded model.")
def demo(keep: bool, state: Path | None, question: str, engine_url: str | None) -> None:
    """See the whole market work: relay, mint, model, two providers, one paid answer.

    Everything runs on 127.0.0.1 with play money, and nothing is left behind.
    """
    with failing(), _terminable(), _folder(state) as folder:
        _run(Plan(folder, question, engine_url, keep))


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo does, and where."""

    folder: Path
    question: str
    engine_url: str | None
    keep: bool


def _run(plan: Plan) -> None:
    import asyncio

    from nostrllm.devnet.supervisor import Devnet, DevnetOptions

    options = DevnetOptions(plan.folder, plan.engine_url)
    with contextlib.ExitStack() as stack:
        with _working("starting relay, mint, model and two providers") as tell:
            devnet = stack.enter_context(Devnet(options, tell))
        asyncio.run(_show(devnet.file, plan.question))
        if plan.keep:
            with contextlib.suppress(KeyboardInterrupt):
                _say("still up", f"until Ctrl-C; try: nostrllm models --devnet {devnet.file}")
                while True:
                    devnet.mend()
                    time.sleep(MENDED_EVERY_S)


async def _show(devnet: Path, question: str) -> None:
    from nostrllm.service.client import Client
    from nostrllm.service.logs import setup

    setup("error", console=True, stream=sys.stderr)
    async with Client(devnet=devnet) as client:
        _say("relay", " ".join(client.place.relays))
        _say("mint", client.place.mint or "")
        await _fund(client)
        await _discover(client)
        outcome = await _ask(client, question)
        await _account(client, outcome)
        await _review(client, outcome)


async def _fund(client: Client) -> None:
    from nostrllm.errors import WorldError

    quote = await client.wallet.fund(FUND_SAT)
    coins = await client.wallet.claim(quote.quote, wait_s=30)
    if coins is None:
        raise WorldError("the mint's invoice was not paid", code="devnet-failed")
    _say("wallet", f"{coins.amount} sat, by an invoice that pays itself")


async def _discover(client: Client) -> None:
    for one in await client.market.listings():
        for offer in one.offers:
            price = offer.model.price
            _say(
                "offer",
                f"{plain(offer.name)}: {offer.model.id}, {per_1000(price.input)} per 1,000 "
                f"tokens in, {per_1000(price.output)} out, {sats(price.request)} per request",
            )


async def _ask(client: Client, question: str) -> Outcome:
    def before(quote: Any) -> None:
        _say(
            "price",
            f"{plain(quote.offer.name)} is cheapest: about {sats(quote.estimate_msat)}, at most "
            f"{sats(quote.ceiling_msat)}; {quote.amount} {quote.unit} of ecash go with the order",
        )

    _say("question", question)
    answer = client.ask(messages(question), on_quote=before)
    first = True
    async for piece in answer:
        click.echo((_label("answer") if first else "") + plain(piece), nl=False)
        sys.stdout.flush()
        first = False
    click.echo()
    return await answer.settled(SETTLE_S)


async def _account(client: Client, outcome: Outcome) -> None:
    usage = outcome.usage
    _say(
        "cost",
        f"{sats(outcome.cost_msat)} for {usage.prompt} tokens in and {usage.completion} out, and "
        f"{sats(outcome.fee_msat)} for the mint",
    )
    left = sum((await client.wallet.balance()).values())
    _say(
        "change",
        f"{sats(outcome.change_msat)} back as ecash, {sats(outcome.credit_msat)} as credit; "
        f"the wallet holds {left} sat",
    )
    if outcome.breaches:
        _say("warning", "the provider broke the bargain: " + ", ".join(outcome.breaches))


async def _review(client: Client, outcome: Outcome) -> None:
    from nostrllm.errors import WorldError

    if outcome.receipt is None:
        raise WorldError("the provider gave no receipt", code="receipt-invalid")
    _say("receipt", f"{outcome.receipt.id}, signed by the provider")
    said = await client.review(outcome.provider, 5, "It answered, and the change was right.")
    found = [one for one in await client.reviews(outcome.provider) if one.id == said.id]
    if not found or not found[0].verified:
        raise WorldError("the review did not come back verified", code="receipt-invalid")
    stars = "★" * found[0].review.rating
    _say("review", f"{stars} {plain(found[0].review.text)} (read back; its receipt is true)")


# on the terminal


def _label(name: str) -> str:
    text = f"{name:>9}  "
    return click.style(text, bold=True) if sys.stdout.isatty() else text


def _say(name: str, text: str) -> None:
    click.echo(_label(name) + text)


@contextlib.contextmanager
def _working(what: str) -> Iterator[Callable[[str], None]]:
    """Tell what is being done: a spinner on a terminal, lines elsewhere."""
    if not sys.stdout.isatty():
        _say("start", what)
        yield lambda said: _say("start", said)
        return
    from rich.console import Console

    with Console().status(what) as status:
        yield lambda said: status.update(f"{what}: {said}")


@contextlib.contextmanager
def _folder(state: Path | None) -> Iterator[Path]:
    if state is not None:
        yield state
        return
    with tempfile.TemporaryDirectory(prefix="nostrllm-demo-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: children stopped, folder removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
