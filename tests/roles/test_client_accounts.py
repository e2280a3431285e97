"""What a client can do with its account, against the real provider: Lightning, others, plans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nostrllm.client.account import Filling, Payout
from nostrllm.client.plans import PlanPrice
from nostrllm.errors import LocalError, NostrllmError, RemoteError
from nostrllm.service.client import Client
from nostrllm.wire.invoice import parse_invoice
from tests.adapters.scripted import Wire, scripted
from tests.faultymint import FaultyMint
from tests.invoices import invoice
from tests.roles.market import MODEL, Stall, config_text, selling
from tests.roles.test_provider_plans import PLANS

FUND = 300


async def model(asked: Wire) -> None:
    """Says hello, and counts honestly."""
    await asked.open()
    await asked.text("Hello.")
    await asked.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    await asked.event({"choices": [], "usage": usage})
    await asked.end()


@dataclass
class Market:
    """A provider with plans at a mint that does what a test wants, and clients of his."""

    stall: Stall
    mint: FaultyMint
    relay: str
    folder: Path

    @property
    def who(self) -> str:
        return self.stall.pubkey

    @asynccontextmanager
    async def client(self, name: str = "ann", fund: int = FUND) -> AsyncIterator[Client]:
        """A client; the same one for the same name."""
        folder = self.folder / name
        async with Client(state=folder, relays=[self.relay], mint=self.mint.url) as client:
            if fund and not await client.wallet.balance():
                quote = await client.wallet.fund(fund)
                assert await client.wallet.claim(quote.quote, wait_s=20)
            yield client


@pytest.fixture
async def market(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Market]:
    async with scripted(model) as engine, FaultyMint(mint_url) as mint:
        text = config_text(tmp_path / "stall", [relay_url], mint.url, engine.url) + PLANS
        async with selling(text) as stall:
            yield Market(stall, mint, relay_url, tmp_path)


def hide(mint: FaultyMint) -> None:
    """The provider's next invoice is unpaid until the mint is told otherwise."""

    def asked(body: Any) -> Any:
        path = f"/v1/mint/quote/bolt11/{body['quote']}"
        mint.changes[path] = lambda quote: quote | {"state": "UNPAID"}
        return body

    mint.changes["/v1/mint/quote/bolt11"] = asked


# Lightning


async def test_an_account_is_filled_by_lightning(market: Market) -> None:
    async with market.client(fund=0) as client:
        shown: list[Filling] = []
        found = await client.accounts.fill(market.who, 50, shown.append, 30)
        assert found is not None
        assert (found.balance_msat, found.breaches) == (50_000, ())
        [filling] = shown
        asked = parse_invoice(filling.invoice)
        assert (filling.amount_msat, asked.amount_msat) == (50_000, 50_000)
        assert filling.until == asked.expires_at
        assert await client.accounts.fillings() == []
        with pytest.raises(RemoteError) as caught:
            await client.accounts.fill(market.who, 6_000, shown.append)
        assert caught.value.code == "payment-amount-high"
        assert len(shown) == 1


async def test_an_invoice_paid_after_a_restart_is_credited(market: Market) -> None:
    hide(market.mint)
    async with market.client(fund=0) as client:
        shown: list[Filling] = []
        assert await client.accounts.fill(market.who, 40, shown.append, 0.1) is None
        assert await client.accounts.fillings() == shown
        await client.resume()
        assert await client.accounts.fillings() == shown
    market.mint.changes.clear()
    async with market.client(fund=0) as client:
        while await client.accounts.fillings():
            await client.resume()
        found = await client.accounts.balance(market.who)
        assert (found.balance_msat, found.breaches) == (40_000, ())
        [bought] = await client.purchases()
        assert (bought.what, bought.state, bought.breaches) == ("topup", "done", ())


async def test_an_invoice_is_paid_from_the_account(market: Market) -> None:
    async with market.client() as client:
        before = await client.accounts.topup(market.who, 200)
        told: list[Payout] = []
        text = invoice(50_000)
        paid = await client.accounts.pay_out(market.who, text, told.append)
        assert told == [Payout(market.who, 50_000, 12_500)]
        assert paid.paid_msat == 50_000 + paid.fee_msat
        assert paid.fee_msat <= told[0].fee_max_msat
        assert paid.balance.breaches == ()
        assert paid.balance.balance_msat == before.balance_msat - paid.paid_msat
        now = await client.accounts.balance(market.who)
        assert (now.balance_msat, now.breaches) == (paid.balance.balance_msat, ())
        for wrong, code in (
            (text, "payment-invoice-invalid"),
            (invoice(None), "payment-invoice-invalid"),
            (invoice(5_000, expiry_s=60), "payment-invoice-invalid"),
            (invoice(500_000), "account-insufficient"),
        ):
            with pytest.raises(RemoteError) as caught:
                await client.accounts.pay_out(market.who, wrong)
            assert caught.value.code == code

        def no(_payout: Payout) -> None:
            raise LocalError("too dear", code="payment-amount-high")

        with pytest.raises(LocalError, match="too dear"):
            await client.accounts.pay_out(market.who, invoice(5_000), no)
        assert (await client.accounts.balance(market.who)).balance_msat == now.balance_msat


@pytest.mark.parametrize("pay", ["token", "locked"])
async def test_change_goes_out_by_lightning(market: Market, pay: Any) -> None:
    async with market.client() as client:
        await client.accounts.topup(market.who, 64)  # the provider has coins at the mint
        before = await client.accounts.balance(market.who)
        wishes: dict[str, Any] = {"provider": market.who, "model": MODEL, "pay": pay}
        answer = client.ask("Hello? " * 200, **wishes, change="lightning", invoice=invoice(3_000))
        done = await answer.settled(20)
        assert done.breaches == ()
        assert done.not_paid_out is None
        assert 3_000 <= done.paid_out_msat <= done.credit_msat
        now = await client.accounts.balance(market.who)
        left = before.balance_msat + done.credit_msat - done.paid_out_msat
        assert (now.balance_msat, now.breaches) == (left, ())


async def test_change_that_does_not_pay_the_invoice_stays(market: Market) -> None:
    async with market.client() as client:
        wishes: dict[str, Any] = {"provider": market.who, "model": MODEL, "change": "lightning"}
        done = await client.ask("Hello?", **wishes, invoice=invoice(900_000)).settled(20)
        assert (done.breaches, done.paid_out_msat) == ((), 0)
        assert done.not_paid_out is not None
        assert done.not_paid_out.code == "account-insufficient"
        now = await client.accounts.balance(market.who)
        assert (now.balance_msat, now.breaches) == (done.credit_msat, ())
        wrongs: list[dict[str, Any]] = [
            {"change": "lightning"},
            {"invoice": invoice(1_000)},
            {"change": "lightning", "invoice": invoice(1_000), "pay": "account"},
            {"of": market.who},
        ]
        for wrong in wrongs:
            with pytest.raises(LocalError) as caught:
                await client.ask("Hello?", provider=market.who, **wrong).done()
            assert caught.value.code == "message-invalid"


# others


async def test_a_child_spends_from_the_account(market: Market) -> None:
    async with market.client() as ann, market.client("bob", fund=0) as bob:
        await ann.accounts.topup(market.who, 200)
        key = await bob.accounts.key(market.who)
        owner = await ann.accounts.key(market.who)
        [given] = await ann.accounts.allow(market.who, key, 60_000, period_s=86_400)
        assert (given.owner, given.key, given.limit_msat) == (owner, key, 60_000)
        assert [one.owner for one in await bob.accounts.allowances(market.who)] == [owner]
        wishes: dict[str, Any] = {
            "provider": market.who,
            "model": MODEL,
            "pay": "account",
            "of": owner,
        }
        done = await bob.ask("Hello?", **wishes, max_msat=50_000).done()
        assert (done.breaches, done.change_msat) == ((), 0)
        assert done.cost_msat > 0
        [used] = await ann.accounts.allowances(market.who)
        assert used.used_msat == done.cost_msat
        now = await ann.accounts.balance(market.who)
        assert now.breaches == ()  # it fell, as the allowance lets it
        assert (await bob.accounts.balance(market.who)).balance_msat == 0
        assert await ann.accounts.disallow(market.who, key) == []
        with pytest.raises(RemoteError) as caught:
            await bob.ask("Hello?", **wishes, max_msat=50_000).done()
        assert caught.value.code == "account-insufficient"
        with pytest.raises(NostrllmError):
            await ann.accounts.disallow(market.who, key)


# plans


async def test_a_plan_is_bought_used_and_cancelled(market: Market) -> None:
    async with market.client() as client:
        await client.accounts.topup(market.who, 200)
        [shelf] = await client.accounts.plans(market.who)
        assert [one.id for one in shelf.offered] == ["pack", "half", "first"]
        assert (shelf.plan, shelf.balance_msat) == (None, 199_000)
        told: list[PlanPrice] = []
        bought = await client.accounts.subscribe(market.who, "pack", agree=told.append)
        assert told == [PlanPrice("pack", 40_000, 86_400, 0, 199_000)]
        assert (bought.balance.balance_msat, bought.balance.breaches) == (159_000, ())
        assert bought.plan is not None
        assert (bought.plan.quota_left_msat, bought.plan.renew) == (60_000, False)
        done = await client.ask("Hello?", provider=market.who, model=MODEL, pay="account").done()
        assert (done.breaches, done.cost_msat) == ((), 0)  # the plan pays
        renewed = await client.accounts.subscribe(market.who, "pack", renew=True)
        assert renewed.plan is not None
        assert renewed.plan.renew
        assert renewed.balance.balance_msat == 159_000
        with pytest.raises(RemoteError) as caught:
            await client.accounts.subscribe(market.who, "half")
        assert caught.value.code == "plan-active"
        over = await client.accounts.unsubscribe(market.who, told.append)
        back = over.balance.balance_msat - 159_000
        assert (over.plan, over.balance.breaches) == (None, ())
        assert 0 < back <= told[-1].back_msat < 40_000
        for wrong in (
            client.accounts.unsubscribe(market.who),
            client.accounts.subscribe(market.who, "gold"),
        ):
            with pytest.raises(LocalError) as unknown:
                await wrong
            assert unknown.value.code == "plan-unknown"
        assert all(not one.breaches for one in await client.purchases())
