"""The wallet's few verbs, each to its good end and to its bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrllm.errors import ConfigError, LocalError, NostrllmError, RemoteError
from nostrllm.service.client import Client
from tests.roles.test_client_ask import FUND, funded, held


async def test_a_token_goes_out_and_comes_in_once(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with (
        funded(tmp_path / "a", relay_url, mint_url) as ann,
        Client(state=tmp_path / "b", relays=[relay_url]) as bob,
    ):
        with pytest.raises(ConfigError, match="--mint"):
            await bob.wallet.fund(5)
        sent = await ann.wallet.send(21)
        assert (sent.mint, sent.unit, sent.amount) == (mint_url, "sat", 21)
        coins = await bob.wallet.receive(sent.token)
        assert (coins.mint, coins.amount + coins.fee) == (mint_url, 21)
        assert await bob.wallet.preferred_mint() == mint_url
        for taker in (bob, ann):
            with pytest.raises(NostrllmError) as caught:
                await taker.wallet.receive(sent.token)
            assert caught.value.code == "payment-token-spent"
        with pytest.raises(RemoteError) as gone:
            await ann.wallet.reclaim(sent.name)
        assert gone.value.code == "payment-token-spent"
        assert [row["kind"] for row in await ann.wallet.history(3)] == ["receive", "send", "mint"]


async def test_what_nobody_takes_comes_back(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with funded(tmp_path, relay_url, mint_url) as client:
        sent = await client.wallet.send(8)
        coins = await client.wallet.reclaim(sent.name)
        assert coins.amount + coins.fee == 8
        for nothing in ("wallet:nothing", sent.name):
            with pytest.raises(LocalError) as caught:
                await client.wallet.reclaim(nothing)
            assert caught.value.code == "not-found"
        with pytest.raises(LocalError) as unknown:
            await client.wallet.claim("no such quote")
        assert unknown.value.code == "not-found"
        with pytest.raises(LocalError) as empty:
            await client.wallet.send(FUND + 1)
        assert empty.value.code == "wallet-empty"


async def test_the_seed_alone_finds_the_coins(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with funded(tmp_path / "before", relay_url, mint_url) as client:
        await client.wallet.send(8)
        left = await held(client)
    (tmp_path / "after").mkdir(mode=0o700)
    seed = tmp_path / "after" / "seed"
    seed.touch(mode=0o600)
    seed.write_text((tmp_path / "before" / "seed").read_text())
    async with Client(state=tmp_path / "after", relays=[relay_url], mint=mint_url) as client:
        assert await client.wallet.balance() == {}
        assert await client.wallet.scan() >= left
        assert await held(client) >= left
