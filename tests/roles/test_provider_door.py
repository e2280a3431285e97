"""A flood of fresh keys: work is asked of strangers, and those who are known notice nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from nostrllm.errors import CODES
from nostrllm.ports import Filter
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_announcement
from tests.roles.market import (
    KEYRING,
    WAIT_S,
    Buyer,
    Replies,
    Stall,
    buying,
    config_text,
    selling,
)
from tests.roles.test_client_ask import funded

PER_MINUTE = 12


async def query(stall: Stall, buyer: Buyer, replies: Replies, relay: str, work: int = 0) -> object:
    """The answer to somebody's question for his balance."""
    reply = wire.ReplyTo(key=replies.key.pubkey, relays=[relay])
    letter = buyer.message(wire.Query(reply=reply, what="balance"))
    wrap = await buyer.me.wrap(letter, stall.pubkey, work=work)
    assert (await buyer.relays.publish(wrap)).ok
    return await replies.next()


async def announced_work(stall: Stall, buyer: Buyer) -> int:
    """What the announcement asks."""
    wanted = Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(stall.pubkey,))
    events = await buyer.relays.fetch([wanted])
    return parse_announcement(max(events, key=lambda event: event.created_at)).work


async def test_strangers_work_when_they_are_many(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    limit = f"strangers_per_minute_max = {PER_MINUTE}"
    text = config_text(tmp_path / "stall", [relay_url], mint_url, "http://127.0.0.1:9/v1", limit)
    async with (
        selling(text) as stall,
        buying(relay_url, mint_url, tmp_path) as known,
        known.listening() as replies,
    ):
        reply = wire.ReplyTo(key=replies.key.pubkey, relays=[relay_url])
        deposit = wire.TopUp(reply=reply, token=await known.token(100))
        await known.send(known.message(deposit), stall.pubkey)
        assert isinstance(await replies.next(), wire.Answer)

        def stranger() -> Buyer:
            return replace(known, me=KEYRING.signer())

        refused: object = None
        for _ in range(PER_MINUTE * 5):
            refused = await query(stall, stranger(), replies, relay_url)
            if isinstance(refused, wire.Refused):
                break
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "work-required"
        assert CODES["work-required"]
        # A deposit opens the door.
        assert isinstance(await query(stall, known, replies, relay_url), wire.Answer)
        async with asyncio.timeout(WAIT_S):
            while not (bits := await announced_work(stall, known)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        await asyncio.sleep(60 / PER_MINUTE)  # one may come in again
        done = await query(stall, stranger(), replies, relay_url, work=bits)
        assert isinstance(done, wire.Answer)
        # Our client reads what is asked, and does it.
        async with funded(tmp_path / "client", relay_url, mint_url) as client:
            await asyncio.sleep(60 / PER_MINUTE)
            balance = await client.balance(stall.pubkey)
            assert balance.balance_msat == 0
        assert stall.daemon.door.bits == bits
