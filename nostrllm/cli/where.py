"""The options that every client command has, and how a command runs with them."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.answers import answer_json, tell_late
from nostrllm.cli.report import failing
from nostrllm.cli.terminal import print_json

if TYPE_CHECKING:
    from nostrllm.service.client import Client
    from nostrllm.service.market import Market

Command = Callable[..., Any]

#: What a command says to a program; to a person it has spoken already.
Said = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Where:
    """State folder, relays, mint and output form, as the command line says."""

    state: Path | None
    relays: tuple[str, ...]
    mint: str | None
    devnet: Path | None
    json: bool

    def run(self, work: Callable[[Client], Awaitable[Said]]) -> None:
        """Run `work` with a client: identity, wallet, everything.

        Answers to earlier questions that came meanwhile are told too, in `late`; they are forgotten
        once they are out.
        """

        async def main() -> None:
            async with self._client() as client:
                said = await work(client)
                late = await client.late()
                if self.json:
                    print_json({**said, "late": [answer_json(outcome) for outcome in late]})
                else:
                    for outcome in late:
                        tell_late(outcome)
                await client.seen(late)

        self._main(main)

    def look(self, work: Callable[[Market], Awaitable[Said | None]]) -> None:
        """Run `work` with what anybody can see: needs no key and disturbs no other command.

        None: it has said everything itself.
        """

        async def main() -> None:
            from nostrllm.service.market import market
            from nostrllm.service.place import place

            async with market(place(**self._place())) as open_market:
                said = await work(open_market)
            if self.json and said is not None:
                print_json(said)

        self._main(main)

    def _main(self, main: Callable[[], Awaitable[None]]) -> None:
        with failing(self.json):
            import asyncio

            asyncio.run(_logged(main))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        from contextlib import AsyncExitStack

        from nostrllm.errors import LocalError
        from nostrllm.service.client import Client

        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(Client(**self._place()))
            except LocalError as error:
                if error.code != "busy":
                    raise
                message = f"{error.message}: wait for it, or give another --state"
                raise LocalError(message, code=error.code) from None
            yield client

    def _place(self) -> dict[str, Any]:
        names = ("state", "relays", "mint", "devnet")
        return {name: getattr(self, name) for name in names}


async def _logged(main: Callable[[], Awaitable[None]]) -> None:
    """Load what is heavy where Ctrl-C is a cancellation: raised inside an import, it can be lost.

    stdout belongs to the result; of the log only errors are told.
    """
    from nostrllm.service.logs import setup

    setup("error", console=True, stream=sys.stderr)
    await main()


def placed(command: Command) -> Command:
    """Give a command the client's options; it receives them as one argument, `where`."""
    return _with_options(command, public=False)


def public(command: Command) -> Command:
    """As `placed`, for a command that reads what anybody sees.

    It takes --state and --mint as every command does, so that one set of options fits them all, but
    does not offer them: it has neither wallet nor keys.
    """
    return _with_options(command, public=True)


def _with_options(command: Command, *, public: bool) -> Command:
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
        click.option("--state", type=folder, hidden=public, help="Folder of keys and wallet."),
        click.option("--relay", multiple=True, metavar="URL", help="A relay; repeatable."),
        click.option("--mint", metavar="URL", hidden=public, help="The mint to prefer."),
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
