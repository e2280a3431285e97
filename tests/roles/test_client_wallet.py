"""The wallet's few verbs, each to its good end and to its bad one."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

import pytest

from nostrllm.client.wallet import Price
from nostrllm.errors import ConfigError, LocalError, NostrllmError, RemoteError, WorldError
from nostrllm.service.client import Client
from tests.faultymint import FaultyMint
from tests.invoices import invoice
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


async def test_an_invoice_is_paid_after_its_price_was_told(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with funded(tmp_path, relay_url, mint_url) as client:
        before, prices = await held(client), list[Price]()

        def agree(price: Price) -> None:
            prices.append(price)
            if len(prices) == 1:
                raise LocalError("too dear")

        text = invoice(20_000)
        with pytest.raises(LocalError, match="too dear"):
            await client.wallet.pay(text, agree=agree)
        assert await held(client) == before
        paid = await client.wallet.pay(text, name="wallet:one", agree=agree)
        assert prices[1] == Price(mint_url, "sat", 20, prices[1].fee_max)
        assert paid.fee <= prices[1].fee_max
        assert (paid.amount, paid.preimage) == (20, "")  # the node of this mint makes one up
        assert await held(client) == before - 20 - paid.fee
        again = await client.wallet.pay(text, name="wallet:one")
        assert (again.amount, again.fee, again.preimage) == (20, paid.fee, "")
        assert await held(client) == before - 20 - paid.fee
        with pytest.raises(RemoteError) as caught:
            await client.wallet.pay("lnbc")
        assert caught.value.code == "payment-invoice-invalid"


@pytest.mark.parametrize("told", ["true", "22" * 32, "zz"])
async def test_a_proof_of_payment_is_checked(
    tmp_path: Path, relay_url: str, mint_url: str, told: str
) -> None:
    secret = secrets.token_bytes(32)
    payment_hash = hashlib.sha256(secret).hexdigest()
    told = secret.hex() if told == "true" else told
    async with (
        FaultyMint(mint_url) as mint,
        Client(state=tmp_path, relays=[relay_url], mint=mint.url) as client,
    ):
        quote = await client.wallet.fund(64)
        await client.wallet.claim(quote.quote, wait_s=10)

        def asked(body: Any) -> Any:
            mint.changes[f"/v1/melt/quote/bolt11/{body['quote']}"] = lambda state: {
                **state,
                "payment_preimage": told,
            }
            return body

        mint.changes["/v1/melt/quote/bolt11"] = asked
        paid = await client.wallet.pay(invoice(5_000, payment_hash=payment_hash))
        assert paid.preimage == (secret.hex() if told == secret.hex() else "")


async def test_a_payment_that_nobody_saw_end_is_finished_by_resume(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with (
        FaultyMint(mint_url) as mint,
        Client(state=tmp_path, relays=[relay_url], mint=mint.url) as client,
    ):
        quote = await client.wallet.fund(64)
        await client.wallet.claim(quote.quote, wait_s=10)
        mint.faults = ["", *["lost"] * 60]  # "": the quote
        with pytest.raises(WorldError) as caught:
            await client.wallet.pay(invoice(20_000))
        assert caught.value.code == "payment-pending"
        mint.faults = []
        await client.wallet.resume()
        [row] = [row for row in await client.wallet.history() if row["kind"] == "melt"]
        assert (row["state"], row["amount"], row["fee"]) == ("DONE", 20, 2)
        mint.says["/v1/melt/bolt11"] = (400, '{"detail": "no", "code": 20004}')
        with pytest.raises(WorldError) as failed:
            await client.wallet.pay(invoice(20_000))
        assert failed.value.code == "payment-lightning-failed"
        assert await client.wallet.balance() == {(mint.url, "sat"): 42}
