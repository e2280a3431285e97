"""Paying payment requests: of the real provider, of a server, after a crash, and not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.client import requests
from nostrllm.client.requests import RequestPrice
from nostrllm.errors import LocalError, NostrllmError, RemoteError, WorldError
from nostrllm.service.client import Client
from nostrllm.wire import creqb
from nostrllm.wire.payment_request import (
    LockWanted,
    PaymentRequest,
    Transport,
    encode_request,
    parse_payload,
    parse_request,
)
from tests.adapters.scripted import scripted
from tests.faultymint import FaultyMint
from tests.roles.market import buying, config_text, selling
from tests.roles.payee import Payee, payee
from tests.roles.test_client_accounts import model

FUND = 200


class LocalClient(Client):
    """A client of a market on this machine: servers there may be asked."""

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self._local = True


def client_at(folder: Path, relay: str, mint: str) -> LocalClient:
    return LocalClient(state=folder, relays=[relay], mint=mint)


async def fund(client: Client) -> None:
    quote = await client.wallet.fund(FUND)
    assert await client.wallet.claim(quote.quote, wait_s=20)


async def held(client: Client) -> int:
    return sum((await client.wallet.balance()).values())


def asked(to: Payee, mint: str, **fields: Any) -> PaymentRequest:
    """A request that is paid by HTTP."""
    plain = PaymentRequest(
        id="tea1", amount=20, unit="sat", mints=(mint,), description="tea",
        transports=(Transport("post", f"{to.url}/receive"),),
    )  # fmt: skip
    return replace(plain, **fields)


@pytest.mark.parametrize("short", [False, True])
async def test_a_provider_is_paid_by_its_request(
    short: bool, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(model) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path, 0) as person,
            client_at(tmp_path / "ann", relay_url, mint_url) as client,
        ):
            await fund(client)
            await person.say(stall.pubkey, "/topup 50")
            creq = (await person.heard_until(stall.pubkey, "creqA"))[-1]
            form = creqb.encode_request(parse_request(creq)) if short else creq
            told: list[RequestPrice] = []
            paid = await client.requests.pay(form, agree=told.append)
            assert told == [paid.price]
            assert (paid.price.amount, paid.price.locked) == (50, True)
            assert paid.price.payee == stall.pubkey
            assert "50 sat added" in await person.heard(stall.pubkey)
            assert await held(client) == FUND - 50 - paid.price.his_fee - paid.price.fee
            assert await client.wallet.locked() == []
            with pytest.raises(LocalError) as again:
                await client.requests.pay(form)
            assert again.value.code == "payment-request-paid"
            with pytest.raises(NostrllmError) as lost:
                await client.wallet.reclaim(paid.name)
            assert lost.value.code == "payment-token-locked-wrong"


async def test_what_a_provider_does_not_take_comes_back(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(model) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        async with (
            selling(text) as stall,
            buying(relay_url, mint_url, tmp_path, 0) as person,
            client_at(tmp_path / "ann", relay_url, mint_url) as client,
        ):
            await fund(client)
            await person.say(stall.pubkey, "/topup 50")
            creq = (await person.heard_until(stall.pubkey, "creqA"))[-1]
            other = encode_request(replace(parse_request(creq), id="of nobody"))
            paid = await client.requests.pay(other)
            assert "payment-request-unknown" in paid.reply
            assert paid.back is not None
            assert paid.back.amount + paid.back.fee == 50 + paid.price.his_fee
            assert await held(client) >= FUND - 4
            again = await client.requests.pay(creq)  # for one payment, and it was none
            assert again.reply == ""


async def test_a_server_is_paid(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with payee() as tea, client_at(tmp_path / "ann", relay_url, mint_url) as client:
        await fund(client)
        paid = await client.requests.pay(encode_request(asked(tea, mint_url)))
        [body] = tea.posted
        assert body["id"] == "tea1"
        token = parse_payload(json.dumps(body)).token
        assert (token.mint, token.unit) == (mint_url, "sat")
        assert token.amount == 20 + paid.price.his_fee
        assert paid.price.his_fee == -(-len(token.proofs) * 100 // 1_000)
        again = await client.requests.pay(encode_request(asked(tea, mint_url)))
        assert again.name != paid.name  # not said to be for one payment
        tea.status = 400
        before = await held(client)
        with pytest.raises(RemoteError):
            await client.requests.pay(encode_request(asked(tea, mint_url)))
        assert await held(client) >= before - 2  # the fees of making them and taking them back


async def test_a_server_that_fails_is_paid_later(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with payee() as tea:
        text = encode_request(asked(tea, mint_url, single_use=True))
        async with client_at(tmp_path / "ann", relay_url, mint_url) as client:
            await fund(client)
            tea.status = 503
            with pytest.raises(WorldError, match="wallet reclaim wallet:") as caught:
                await client.requests.pay(text)
            assert caught.value.code == "payee-unreachable"
            with pytest.raises(LocalError) as again:
                await client.requests.pay(text)
            assert again.value.code == "payment-request-paid"
        tea.status = 200
        async with client_at(tmp_path / "ann", relay_url, mint_url) as client:
            await client.resume()
            await client.resume()
        assert len(tea.posted) == 2
        assert tea.posted[0] == tea.posted[1]  # the same coins


async def test_one_that_was_taken_back_is_not_delivered(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with payee() as tea, client_at(tmp_path / "ann", relay_url, mint_url) as client:
        await fund(client)
        tea.status = 503
        text = encode_request(asked(tea, mint_url, single_use=True))
        with pytest.raises(WorldError) as caught:
            await client.requests.pay(text)
        name = caught.value.message.split("wallet reclaim ")[1].split("`")[0]
        await client.wallet.reclaim(name)
        tea.status = 200
        await client.resume()
        assert len(tea.posted) == 1
        await client.requests.pay(text)  # it may be paid now
        assert len(tea.posted) == 2


async def test_a_silent_mint_leaves_it_open(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with payee() as tea, FaultyMint(mint_url) as mint:
        text = encode_request(asked(tea, mint.url))
        async with client_at(tmp_path / "ann", relay_url, mint.url) as client:
            await fund(client)
            mint.faults = ["lost"] * 60
            with pytest.raises(WorldError):
                await client.requests.pay(text)
            mint.faults = []
            await client.resume()
            assert len(tea.posted) == 1
            assert await held(client) < FUND


async def test_what_cannot_be_paid_costs_nothing(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with payee() as tea, client_at(tmp_path / "ann", relay_url, mint_url) as client:
        await fund(client)
        key = "02" + "ab" * 32

        async def code(amount: int | None = None, **fields: Any) -> str:
            with pytest.raises(NostrllmError) as caught:
                await client.requests.pay(encode_request(asked(tea, mint_url, **fields)), amount)
            return caught.value.code

        assert await code(amount=FUND + 1) == "config-invalid"
        assert await code(amount=None, unit="usd") == "payment-mint-unaccepted"
        assert await code(mints=("https://other.example",)) == "wallet-empty"
        assert await code(transports=()) == "message-invalid"
        assert await code(transports=(Transport("pigeon", "x"),)) == "message-invalid"
        assert await code(lock=LockWanted("HTLC", key)) == "payment-token-locked-wrong"
        wrong = LockWanted("P2PK", key, (("locktime", "1"),))
        assert await code(lock=wrong) == "payment-token-locked-wrong"
        for text in ("creqA", "creqb1junk", encode_request(asked(tea, mint_url, amount=FUND))):
            with pytest.raises(NostrllmError):
                await client.requests.pay(text)
        free = encode_request(asked(tea, mint_url, amount=None))
        with pytest.raises(LocalError, match="say how much"):
            await client.requests.pay(free)

        def no(_price: RequestPrice) -> None:
            raise LocalError("too dear", code="payment-amount-high")

        with pytest.raises(LocalError, match="too dear"):
            await client.requests.pay(free, 5, no)
        assert (tea.posted, await held(client)) == ([], FUND)
        await client.requests.pay(free, 5)
        assert len(tea.posted) == 1
        assert requests.is_request(free)
