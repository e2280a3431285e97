"""The `nostrllm` command: a table of subcommands, each loaded when it is called.

`nostrllm --help` imports no SDK, so it answers at once.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

import click

from nostrllm.cli.report import failing


class Entry(NamedTuple):
    """Where a command is, and what the list says of it."""

    place: str
    summary: str


COMMANDS: Final = {
    "ask": Entry(
        "nostrllm.cli.ask:ask", "Ask a question; pay, stream the answer, take the change."
    ),
    "models": Entry("nostrllm.cli.models:models", "List what is for sale."),
    "providers": Entry("nostrllm.cli.providers:providers", "List who sells."),
    "price": Entry("nostrllm.cli.price:price", "What a model costs, at each provider."),
    "wallet": Entry("nostrllm.cli.wallet:wallet", "Fund, look at, send and receive ecash."),
    "account": Entry("nostrllm.cli.account:account", "Your account with a provider."),
    "plans": Entry("nostrllm.cli.plan:plans", "List the plans that are for sale."),
    "plan": Entry("nostrllm.cli.plan:plan", "Buy, renew or cancel a plan with a provider."),
    "dm": Entry("nostrllm.cli.dm:dm", "Write to anybody the way every Nostr client does."),
    "review": Entry("nostrllm.cli.review:review", "Rate a provider, with your receipt."),
    "reviews": Entry("nostrllm.cli.reviews:reviews", "Read what others say of a provider."),
    "follow": Entry("nostrllm.cli.follow:follow", "Keep your own list of providers."),
    "route": Entry("nostrllm.cli.route:route", "Tell which prompts need a strong model."),
    "validate": Entry("nostrllm.cli.validate:validate", "Tell which answers look wrong."),
    "provider": Entry("nostrllm.cli.provider:provider", "Sell: set up and run a provider."),
    "devnet": Entry("nostrllm.cli.devnet:devnet", "A market on this machine: relay, mint, models."),
    "demo": Entry("nostrllm.cli.demo:demo", "See the whole market work, in one command."),
}


class Commands(click.Group):
    """A group whose members are imported when used, and which turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's order: what is used most comes first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; from then on it hears Ctrl-C, which until then just ends us."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error that no command has told of becomes a line on stderr and an exit code."""
        with failing():
            return super().invoke(ctx)


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            number = version("nostrllm")
        except PackageNotFoundError:
            number = "unknown"
        click.echo(f"nostrllm {number} (Python {sys.version.split()[0]})")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Version."
)
def main() -> None:
    """Buy and sell LLM inference over Nostr, paid in Cashu ecash."""
