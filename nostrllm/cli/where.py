"""The options that every client command has, and how a command runs with them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.report import failing
from nostrllm.cli.terminal import plain

if TYPE_CHECKING:
    from nostrllm.client.settle import Outcome
    from nostrllm.service.client import Client, Market

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Where:
    """State folder, relays, mint and output form, as the command line says."""

    state: Path | None
    relays: tuple[str, ...]
    mint: str | None
    devnet: Path | None
    json: bool

    def run(self, work: Callable[[Client], Awaitable[None]]) -> None:
        """Run `work` with a client: identity, wallet, everything."""
        with failing(self.json):
            import asyncio

            from nostrllm.service.client import Client

            _quiet()

            async def main() -> None:
                async with Client(**self._place()) as client:
                    await work(client)
                    if not self.json:
                        tell_late(client.late)

            asyncio.run(main())

    def look(self, work: Callable[[Market], Awaitable[None]]) -> None:
        """Run `work` with what anybody can see: needs no key and disturbs no other command."""
        with failing(self.json):
            import asyncio

            from nostrllm.service.client import market, place

            _quiet()

            async def main() -> None:
                async with market(place(**self._place())) as open_market:
                    await work(open_market)

            asyncio.run(main())

    def _place(self) -> dict[str, Any]:
        names = ("state", "relays", "mint", "devnet")
        return {name: getattr(self, name) for name in names}


def tell_late(late: Sequence[Outcome]) -> None:
    """Answers to earlier questions that came while this command ran."""
    for outcome in late:
        click.echo(f"\nlate answer to order {outcome.order_id}:", err=True)
        click.echo(plain(outcome.text), err=True)


def _quiet() -> None:
    """stdout belongs to the result; of the log only errors are told, on stderr."""
    from nostrllm.service.logs import setup

    setup("error", console=True, stream=sys.stderr)


def placed(command: Command) -> Command:
    """Give a command the client's options; it receives them as one argument, `where`."""

    @functools.wraps(command)
    def with_where(**values: Any) -> Any:
        where = Where(
            values.pop("state"),
            values.pop("relay"),
            values.pop("mint"),
            values.pop("devnet"),
            values.pop("as_json"),
        )
        return command(where=where, **values)

    folder = click.Path(path_type=Path, file_okay=False)
    options = [
        click.option("--state", type=folder, help="Folder of keys and wallet."),
        click.option("--relay", multiple=True, metavar="URL", help="A relay; repeatable."),
        click.option("--mint", metavar="URL", help="The mint to prefer."),
        click.option(
            "--devnet",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A devnet.json: its relay and mint.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    ]
    decorated: Command = with_where
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
