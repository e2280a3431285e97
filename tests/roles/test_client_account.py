"""Accounts: top up, spend, look, refund; and a provider who cheats with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrllm.errors import LocalError, RemoteError
from tests.roles.test_client_ask import FUND, both, held


async def test_an_account_is_filled_spent_and_emptied(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await client.follow(bird.pubkey)
        topped = await client.topup(bird.name, 20)
        assert topped.balance_msat == 19_000  # the mint's fee
        assert await held(client) in (FUND - 20, FUND - 21)
        result = await client.ask("?", provider=bird.pubkey, pay="account").done()
        assert (result.change_msat, result.fee_msat, result.breaches) == (0, 0, ())
        now = await client.balance(bird.pubkey)
        assert now.balance_msat == 19_000 - result.cost_msat
        assert await client.last_balance(bird.pubkey) == now
        before = await held(client)
        left = await client.refund(bird.pubkey)
        assert left.balance_msat == now.balance_msat - (now.balance_msat // 1_000 - 2) * 1_000
        assert await held(client) > before
        assert not any(one.open for one in await client.purchases())


async def test_change_as_credit(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url, no_change=True) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey).done()
        assert "change-short" in result.breaches
        assert (await client.balance(bird.pubkey)).balance_msat == result.credit_msat


@pytest.mark.parametrize("like", [False, True])
async def test_a_refused_top_up_comes_back(
    like: bool, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    manners = {"refuse": "payment-amount-high", "refuse_like_an_order": like}
    async with both(tmp_path, relay_url, mint_url, **manners) as (client, bird):
        with pytest.raises(RemoteError) as caught:
            await client.topup(bird.pubkey, 20)
        assert caught.value.code == "payment-amount-high"
        assert await held(client) >= FUND - 2
        assert (await client.purchases())[0].state == "failed"


async def test_more_than_the_wallet_holds(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        with pytest.raises(LocalError) as caught:
            await client.topup(bird.pubkey, FUND + 1)
        assert caught.value.code == "wallet-empty"
        await client.topup(bird.pubkey, FUND - 1)
        with pytest.raises(LocalError) as empty:  # making that token took the last one
            await client.topup(bird.pubkey, 1)
        assert empty.value.code == "wallet-empty"


async def test_a_statement_must_be_signed(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url, unsigned_statement=True) as (client, bird):
        with pytest.raises(RemoteError, match="not signed"):
            await client.balance(bird.pubkey)
        assert await client.last_balance(bird.pubkey) is None
