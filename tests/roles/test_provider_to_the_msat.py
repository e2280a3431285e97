"""Nobody pays more than the work and the fees he was told of, to the msat, at a real mint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from nostrllm.wire import order as wire
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.scripted import scripted
from tests.faultymint import FaultyMint
from tests.roles.market import Stall, config_text, selling
from tests.roles.test_provider_audit import Customer, customer, model

WORK_MSAT = 19


@asynccontextmanager
async def market(
    relay: str, mint: str, tmp: Path, real: str = ""
) -> AsyncIterator[tuple[Stall, Customer]]:
    """A provider whose every answer costs 19 msat."""
    async with scripted(model) as engine:
        text = config_text(tmp / "stall", [relay], mint, engine.url)
        for price in ("request_msat = 1_000", "= 20_000_000", "= 60_000_000"):
            assert price in text
        text = text.replace("request_msat = 1_000", f"request_msat = {WORK_MSAT}")
        text = text.replace("= 20_000_000", "= 0").replace("= 60_000_000", "= 0")
        async with (
            selling(text) as stall,
            customer(relay, real or mint, tmp, stall.pubkey) as who,
        ):
            yield stall, who


def again(who: Customer) -> wire.Refund:
    """Another message than the first within this second."""
    return wire.Refund(reply=wire.ReplyTo(key=who.reply.key, relays=who.reply.relays * 2))


async def test_19_msat_of_work_cost_an_account_19_msat(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """And the token that filled it lost no more than the mint's fee, which the answer names."""
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        topped = await who.top_up(10)
        assert (topped.balance_msat, topped.fee_msat) == (9_000, 1_000)
        for n in (1, 2, 3):
            result = await who.answered("Hello?", c=f"{n:064}")
            assert (result.cost_msat, result.fee_msat) == (WORK_MSAT, 0)
        refund = await who.refund()
        assert refund.change is not None
        paid_back = refund.change.amount * 1_000 + (refund.balance_msat or 0)
        assert paid_back + (refund.fee_msat or 0) == 9_000 - 3 * WORK_MSAT
        books = await stall.books()
        assert books["income"] == -3 * WORK_MSAT
        assert "fees" not in books


async def test_what_is_less_than_a_coin_of_a_tokens_rest_is_credited(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        result = await who.answered("Hello?", token="")
        assert (result.cost_msat, result.fee_msat) == (WORK_MSAT, 1_000)
        assert result.change is not None
        assert (result.change.amount, result.credit_msat) == (62, 1_000 - WORK_MSAT)
        rest = result.change.amount * 1_000 + result.credit_msat
        assert result.cost_msat + result.fee_msat + rest == 64_000
        books = await stall.books()
        assert books["income"] == -WORK_MSAT
        assert books[f"account:{who.buyer.me.pubkey}"] == -(1_000 - WORK_MSAT)


async def test_coins_that_are_there_as_they_are_cost_nothing(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(relay_url, mint_url, tmp_path) as (_, who):
        assert (await who.top_up(101)).balance_msat == 100_000
        refund = await who.refund()
        assert (refund.balance_msat, refund.fee_msat, refund.state) == (0, None, "done")
        assert refund.change is not None
        assert refund.change.amount == 100
        await who.send(
            wire.Refund(reply=wire.ReplyTo(key=who.reply.key, relays=who.reply.relays * 2))
        )
        empty = await who.replies.next()
        assert isinstance(empty, wire.Refused)
        assert empty.problem.code == "account-insufficient"


async def test_a_refund_that_the_mint_refuses_gives_all_of_it_back(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        FaultyMint(mint_url) as mint,
        market(relay_url, mint.url, tmp_path, mint_url) as (stall, who),
    ):
        token = parse_token(await who.buyer.token(65))
        await who.send(
            wire.TopUp(reply=who.reply, token=encode_token(replace(token, mint=mint.url)))
        )
        assert (await who.answer()).balance_msat == 64_000
        await who.answered("Hello?")
        mint.says["/v1/swap"] = (400, '{"detail": "no", "code": 11005}')
        refund = await who.refund()
        assert (refund.state, refund.change) == ("refused", None)
        assert refund.problem is not None
        assert refund.balance_msat == 64_000 - WORK_MSAT
        del mint.says["/v1/swap"]
        mint.faults += ["lost"]
        await who.send(
            wire.Refund(reply=wire.ReplyTo(key=who.reply.key, relays=who.reply.relays * 2))
        )
        refund = await who.answer()
        assert refund.change is not None
        assert refund.fee_msat == 1_000
        assert refund.change.amount * 1_000 + refund.fee_msat == 63_000
        assert "fees" not in await stall.books()
