"""The model dies amid an answer: the client holds his money whole again, however he paid.

Our client, our provider, a real relay and mint. Whole means every msat but the fees of swaps that
had happened and were shown before: those of our own wallet, and of a token swapped before the work.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from nostrllm.client.quote import Quote
from nostrllm.errors import RemoteError
from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.provider.payout import deposit
from nostrllm.service.client import Client
from nostrllm.wire.token import parse_token
from tests.adapters.scripted import scripted
from tests.roles.market import Stall, buying, config_text, selling
from tests.roles.test_client_ask import FUND, funded, held
from tests.roles.test_provider_locked import until_tried
from tests.roles.test_provider_orders import dies_mid_stream

Pay = Literal["locked", "token", "account"]

#: (how it is paid, what the operator swaps first, the mint's fee taken of it, our wallet's own)
MODES: list[tuple[Pay, int, int, int]] = [
    ("locked", 5_000, 0, 2),
    ("locked", 0, 1, 2),
    ("token", 5_000, 1, 2),
    ("account", 5_000, 0, 3),
]


async def tried(stall: Stall, relay: str, mint: str, tmp: Path) -> None:
    """Let the provider try his mint, with coins that he put in."""
    async with buying(relay, mint, tmp, amount=64) as owner:
        gift = parse_token(await owner.token(32))
        await deposit(stall.world.purse, gift, stall.world.now_s)
    await until_tried(stall, mint)


async def whole(client: Client, stall: Stall) -> int:
    """All that is ours in msat, in the wallet and at the provider."""
    async with asyncio.timeout(30):
        while (wallet := await held(client)) < FUND - 40:  # noqa: ASYNC110  coins are on their way back
            await asyncio.sleep(0.1)
    rows = await stall.world.store.read("accounts_all")
    return wallet * 1_000 + sum(int(row["balance_msat"]) for row in rows)


@pytest.mark.parametrize(("pay", "swap_first", "theirs", "own"), MODES)
async def test_whole_again(
    pay: Pay,
    swap_first: int,
    theirs: int,
    own: int,
    relay_url: str,
    mint_url: str,
    tmp_path: Path,
) -> None:
    table = f"[locked]\nswap_first_sat = {swap_first}\n"
    async with scripted(dies_mid_stream) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url, table)
        async with (
            selling(text) as stall,
            funded(tmp_path / "client", relay_url, mint_url) as client,
        ):
            await tried(stall, relay_url, mint_url, tmp_path)
            if pay == "account":
                await client.topup(stall.pubkey, 20)
            quotes: list[Quote] = []
            answer = client.ask(
                "Tell me",
                provider=stall.pubkey,
                pay=pay,
                model="smollm2-135m",
                max_tokens=20,
                on_quote=quotes.append,
            )
            with pytest.raises(RemoteError) as failed:
                await answer.done()
            assert failed.value.code == "generation-failed"
            fees = (theirs + own) * 1_000
            assert await whole(client, stall) >= FUND * 1_000 - fees
            if theirs:
                assert quotes[0].fee_msat >= theirs * 1_000
            checks = audit(await read_books(stall.world.store))
            assert [check for check in checks if not check.ok] == []
