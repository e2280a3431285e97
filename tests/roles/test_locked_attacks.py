"""Attacks on locked tokens that once worked: each took money, or stopped all others'."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nostrllm.client.locked import Locks
from nostrllm.client.purchases import Purchase
from nostrllm.client.world import World
from nostrllm.devnet.children import mint_part, start
from nostrllm.ports import Filter
from nostrllm.provider.locked import PROOFS_MAX
from nostrllm.provider.payout import deposit
from nostrllm.provider.tokens import Offered
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_announcement
from nostrllm.wire.token import parse_token
from tests.adapters.scripted import Wire, scripted
from tests.purse.test_melt import PENDING, paying
from tests.roles.market import CLOCK, buying, config_text, selling
from tests.roles.test_provider_locked import Market, Open, market, opened, until_tried
from tests.roles.test_provider_orders import writes

__all__ = ["opened"]


async def state(it: Market, order_id: str) -> str:
    [row] = await it.stall.world.store.read("locked_get", id=order_id)
    return str(row["state"])


async def balance_msat(it: Market) -> int:
    rows = await it.stall.world.store.read("account_get", pubkey=it.buyer.me.pubkey)
    return int(rows[0]["balance_msat"]) if rows else 0


async def ordered(it: Market, **fields: Any) -> tuple[str, wire.Result]:
    """An order of ours and its result."""
    paid = await it.pay()
    async with it.buyer.listening() as replies:
        letter = await it.order(paid, replies, **fields)
        return letter.id, await replies.result()


async def test_outputs_that_hang_at_the_mint_hold_up_nobody(relay_url: str, tmp_path: Path) -> None:
    """They are the blank outputs of a melt to the attacker's own invoice, which he leaves."""
    with (
        start(paying(mint_part(tmp_path / "mint"), **PENDING)) as mint,
        start(mint_part(tmp_path / "other")) as other,
    ):
        async with (
            market(writes, relay_url, mint.url, tmp_path) as it,
            buying(relay_url, other.url, tmp_path, amount=0) as payee,
        ):
            bad = await it.pay()
            client = it.stall.world.mints.at(mint.url)
            invoice = (await payee.purse.fund(other.url, 5)).request
            coins = await it.buyer.purse.send("hold", mint.url, "sat", 16)
            melt = await client.quote_melt(invoice, "sat")
            assert (await client.melt(melt.quote, coins.proofs, bad.outputs)).state == "PENDING"
            async with it.buyer.listening() as replies:
                first = await it.order(bad, replies)
                await replies.result()
            others = [(await ordered(it))[0] for _ in range(3)]
            async with asyncio.timeout(60):
                while {await state(it, one) for one in others} != {"settled"}:
                    await it.stall.daemon.redeemer.sweep()
                    await asyncio.sleep(0.2)
            assert await state(it, first.id) in ("due", "settling", "settled")


async def test_change_is_not_signed_and_credited(opened: Open) -> None:
    """New outputs come while the change is being credited; they were not asked for either."""
    async with opened() as it:
        daemon, other = it.stall.daemon, await it.pay()
        order_id, result = await ordered(it)
        [row] = await it.stall.world.store.read("locked_get", id=order_id)
        if row["state"] == "due":
            await daemon._handout.credit(row, spoiled=True)
        await daemon._locks.replace_outputs(row, other.outputs)
        await daemon._locks.replace_outputs({**row, "asked_at": 1}, other.outputs)
        await it.settled()
        assert (await it.buyer.purse.run(f"ladder-{other.n}")).state == "PREPARED"
        assert result.signed is not None
        assert await balance_msat(it) <= result.signed.amount * 1_000 + result.credit_msat
        await it.audited()


async def test_a_coin_is_taken_once_whatever_its_mint_is_called(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def waits(asked: Wire) -> None:
        await go_on.wait()
        await writes(asked)

    alias = mint_url.replace("127.0.0.1", "localhost")
    pair = f'{mint_url}", "{alias}'
    async with (
        scripted(waits) as engine,
        selling(config_text(tmp_path / "stall", [relay_url], pair, engine.url)) as stall,
        buying(relay_url, mint_url, tmp_path, amount=1_000) as buyer,
    ):
        gift = parse_token(await buyer.token(200))
        await deposit(stall.world.purse, gift, stall.world.now_s)
        await until_tried(stall, mint_url)
        wanted = Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(stall.pubkey,))
        [event] = await buyer.relays.fetch([wanted])
        it = Market(stall, buyer, parse_announcement(event).payment_key)
        paid = await it.pay()
        async with buyer.listening() as replies:
            await it.order(paid, replies)
            assert isinstance(await replies.next(), wire.Accepted)
            other = replace(paid, token=replace(paid.token, mint=alias))
            refused = await it.buys(other, model="unheard-of")
            assert isinstance(refused, wire.Refused)
            assert refused.release is None
            again = await it.buys(other)
            assert isinstance(again, wire.Refused)
            assert again.release is None
            go_on.set()
            assert (await replies.result()).cost_msat > 0
        await it.settled()
        await it.audited()


async def test_a_refusal_costs_us_little(opened: Open) -> None:
    """Coins that were seen are not looked at again, too many at once never."""
    async with opened() as it:
        locks, paid = it.stall.daemon._locks, await it.pay()
        many = replace(paid.token, proofs=paid.token.proofs * (PROOFS_MAX + 1))
        author = it.buyer.me.pubkey
        assert await locks.give_back(Offered("aa" * 32, author, many, (), None)) is None
        assert await locks.give_back(Offered("ab" * 32, author, paid.token, (), None)) is not None
        [row] = await it.stall.world.store.read("locked_get", id="ab" * 32)
        assert (row["proofs"], row["outputs"]) == ("[]", "[]")
        assert await locks.give_back(Offered("ac" * 32, author, paid.token, (), None)) is None
        await it.audited()


async def test_junk_among_signatures_hides_nothing(opened: Open) -> None:
    """A provider hands over less than the mint signed, with outputs beside that are not ours."""
    async with opened() as it:
        paid = await it.pay()
        async with it.buyer.listening() as replies:
            await it.order(paid, replies)
            result = await replies.result()
            settled = await replies.next()
        assert isinstance(settled, wire.Settled)
        assert settled.signed is not None
        assert result.signed is not None
        whole, name = settled.signed, f"ladder-{paid.n}"
        small = min(whole.signatures, key=lambda one: one.amount)
        junk = small.model_copy(update={"B_": "02" + "ab" * 32, "amount": 64})
        handed = whole.model_copy(update={"signatures": [small, junk]})
        named = SimpleNamespace(ladder_op=lambda number=0: f"{name}:{number}" if number else name)
        world = cast(World, SimpleNamespace(purse=it.buyer.purse))
        found = await Locks(world).take(cast(Purchase, named), handed, result.signed.amount)
        assert (found.units, found.wrong) == (result.signed.amount, ())


@pytest.mark.parametrize("change", ["account", "ecash"])
async def test_no_credit_is_cash_before_the_token_is_ours(change: str, opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        outputs = paid.outputs if change == "account" else ()
        deadline = int(CLOCK.now()) + 30
        result = await it.buys(replace(paid, outputs=outputs), change=change, deadline=deadline)
        assert isinstance(result, wire.Result)
        assert result.fee_msat == 1_000  # it was swapped before the work
        back = await it.buyer.purse.watch_sent()
        assert f"pay-{paid.n}" in back  # the mint says that our coins are spent
