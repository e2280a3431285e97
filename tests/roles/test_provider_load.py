"""Many orders of one account that end at the same moment: each is settled, none is paid back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import Buyer, Stall, buying, config_text, selling

AT_ONCE = 16


async def answered(stall: Stall, buyer: Buyer) -> wire.Result:
    """The result of one order from the account."""
    async with buyer.listening() as replies:
        payment = wire.AccountPayment()
        order = await buyer.order(
            stall.pubkey, payment, reply=replies.key, chunk_ms=None, ceiling_msat=20_000
        )
        await buyer.send(buyer.message(order), stall.pubkey)
        return await replies.result()


async def test_orders_of_one_account_end_together(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    everybody = asyncio.Barrier(AT_ONCE)

    async def together(request: Wire) -> None:
        await request.open()
        await everybody.wait()
        await request.text("Paris", finish_reason="stop")
        await request.end()

    async with scripted(together) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        text = text.replace("slots = 2", f"slots = {AT_ONCE}")
        async with selling(text) as stall, buying(relay_url, mint_url, tmp_path, 600) as buyer:
            async with buyer.listening() as replies:
                relay = buyer.relays.status()[0].url
                reply = wire.ReplyTo(key=replies.key.pubkey, relays=[relay])
                top_up = wire.TopUp(reply=reply, token=await buyer.token(500))
                await buyer.send(buyer.message(top_up), stall.pubkey)
                await replies.next()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answered(stall, buyer)) for _ in range(AT_ONCE)]
            results = [task.result() for task in tasks]
            assert [result.problem for result in results] == [None] * AT_ONCE
            events = [
                wire.embedded_event(result.statement, kinds.STATEMENT, stall.pubkey)
                for result in results
            ]
            statements = {said.seq: said for said in map(wire.parse_statement, events)}
            assert len(statements) == AT_ONCE
            books = await stall.books()
            last = statements[max(statements)]
            assert books[f"account:{buyer.me.pubkey}"] == -last.balance_msat
