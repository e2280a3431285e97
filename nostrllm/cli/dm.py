"""`nostrllm dm`: what any Nostr client can do, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from nostrllm.cli.terminal import plain
from nostrllm.cli.where import Said, Where, placed

if TYPE_CHECKING:
    from nostrllm.client.dm import Conversation
    from nostrllm.service.client import Client


@click.command()
@click.argument("npub")
@click.argument("text", nargs=-1)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=15.0,
    show_default=True,
    metavar="S",
    help="After TEXT, wait for replies until none has come for so long.",
)
@placed
def dm(where: Where, npub: str, text: tuple[str, ...], wait: float) -> None:
    """Write to NPUB from your identity, end-to-end encrypted (NIP-17).

    With TEXT, or text on standard input: send it and print the replies. On a terminal without
    TEXT: a conversation, a line a message, until Ctrl-D.
    """
    words = " ".join(text)
    if not words and not sys.stdin.isatty():
        words = sys.stdin.read().strip()
    if where.json and not words:
        raise click.UsageError("--json needs a text")
    where.run(lambda client: _dm(client, where, npub, (words, wait)))


async def _dm(client: Client, where: Where, npub: str, said: tuple[str, float]) -> Said:
    text, wait = said
    async with client.converse(npub) as talk:
        if text:
            return await _once(talk, where, text, wait)
        await _converse(talk)
        return {}


async def _once(talk: Conversation, where: Where, text: str, wait: float) -> Said:
    sent = await talk.send(text)
    replies = []
    async for message in talk.replies(wait):
        replies.append({"text": message.text, "created_at": message.created_at, "id": message.id})
        if not where.json:
            click.echo(plain(message.text))
    return {"id": sent.id, "replies": replies}


async def _converse(talk: Conversation) -> None:
    import asyncio

    async def show() -> None:
        async for message in talk:
            click.echo(plain(message.text))

    async with asyncio.TaskGroup() as group:
        showing = group.create_task(show())
        async for line in _lines():
            if line.strip():
                await talk.send(line.strip())
        showing.cancel()


async def _lines() -> AsyncIterator[str]:
    """Lines of standard input, without holding up what comes in meanwhile."""
    import asyncio

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        while line := await reader.readline():
            yield line.decode(errors="replace")
    finally:
        transport.close()
