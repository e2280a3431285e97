"""Money against a provider, a mint or a relay that wants more than its due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.keys_sdk import to_npub
from nostrllm.cli.ask import BUDGET_SAT
from nostrllm.client.account import Accounts
from nostrllm.client.answer import Answer
from nostrllm.client.ask import Buyer
from nostrllm.client.quote import BUDGET_MSAT, Question, Quote
from nostrllm.client.resume import resume
from nostrllm.client.world import World
from nostrllm.devnet.children import Child, start_mint
from nostrllm.errors import LocalError, OutcomeUnknown, RelayError, RemoteError, WorldError
from nostrllm.ports import Published, Relays
from nostrllm.service.client import Client
from nostrllm.wire import kinds
from nostrllm.wire.announcement import Price
from nostrllm.wire.event import Event
from nostrllm.wire.order import Answer as QueryAnswer
from tests.faultymint import FaultyMint
from tests.roles.counterpart import Counterpart, counterpart
from tests.roles.market import MODEL, config_text, selling
from tests.roles.paying import TokenClient

TEXT = "Polly wants a cracker."
FUND = 100


async def fund(client: Client, amount: int, mint: str) -> None:
    """Sats into the wallet."""
    quote = await client.wallet.fund(amount, mint=mint)
    assert await client.wallet.claim(quote.quote, wait_s=10) is not None


@asynccontextmanager
async def both(
    tmp_path: Path, relay_url: str, mint_url: str, **manners: Any
) -> AsyncIterator[tuple[Client, Counterpart]]:
    """A client with 100 sat and a provider with these manners."""
    async with (
        counterpart(tmp_path / "bird", relay_url, mint_url, **manners) as bird,
        TokenClient(state=tmp_path / "client", relays=[relay_url], mint=mint_url) as client,
    ):
        await fund(client, FUND, mint_url)
        yield client, bird


async def held(client: Client) -> int:
    """Sats in the wallet."""
    return sum((await client.wallet.balance()).values())


async def open_rows(client: Client) -> list[str]:
    """The states of what is not at its end."""
    return [row["state"] for row in await client._world.store.read("purchase_open")]


# which offer, paid from where


async def test_a_mint_that_is_down_leaves_the_other_pot(
    tmp_path: Path, relay_url: str, mint_url: str, mint_process: Child
) -> None:
    down = mint_process.url
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        bird.mints = (down, mint_url)
        await bird.announce()
        await fund(client, 300, down)
        mint_process.kill()
        world = replace(client._world, mint=down)
        world.mints._mints.clear()  # type: ignore[attr-defined]  # as after a restart
        buyer = Buyer(world, client.market.catalogue)
        outcome = await buyer.ask(Question("?", provider=bird.pubkey, pay="token"), Answer())
        assert outcome.text == TEXT


async def test_a_cheaper_offer_that_cannot_be_paid_is_passed_over(
    tmp_path: Path, relay_url: str, mint_url: str, mint_process: Child
) -> None:
    down = mint_process.url
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await fund(client, 30, down)
        mint_process.kill()
        client._world.mints._mints.clear()  # type: ignore[attr-defined]  # as after a restart
        async with counterpart(tmp_path / "other", relay_url, mint_url) as other:
            model = bird.model.model_copy(update={"id": "owl"})
            bird.model = model
            await bird.announce()
            other.model = model.model_copy(update={"price": Price(input=1, output=1)})
            other.mints = (down,)
            await other.announce()
            assert (await client.ask("?", model="owl").done()).provider == bird.pubkey


async def test_what_is_free_is_paid_with_a_coin_that_comes_back(
    tmp_path: Path, relay_url: str
) -> None:
    with start_mint(tmp_path / "mint", fee_ppk=0) as mint:
        async with both(tmp_path, relay_url, mint.url) as (client, bird):
            bird.model = bird.model.model_copy(update={"price": Price(input=0, output=0)})
            await bird.announce()
            result = await client.ask("?", provider=bird.pubkey).done()
            assert (result.text, result.cost_msat, result.breaches) == (TEXT, 0, ())
            assert await held(client) * 1_000 + result.credit_msat == FUND * 1_000


# a relay that stores and does not say so


class Mumbling:
    """Relays whose OK for a stored gift wrap never arrives."""

    def __init__(self, inner: Relays) -> None:
        self._inner = inner

    async def publish(self, event: Event, **how: Any) -> Published:
        done = await self._inner.publish(event, **how)
        if event.kind != kinds.GIFT_WRAP:
            return done
        return Published((), dict.fromkeys(done.ok, "no answer"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def mumbled(client: Client) -> World:
    """The client's world behind such relays."""
    square = client._world.square
    return replace(client._world, square=replace(square, relays=Mumbling(square.relays)))


async def test_a_refund_whose_ok_was_lost_is_taken_later(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await client.topup(bird.pubkey, 30)
        before, world = await held(client), mumbled(client)
        accounts = Accounts(world, Buyer(world, client.market.catalogue))
        with pytest.raises(RelayError, match="stays open"):
            await accounts.refund(await client.market.offer(bird.pubkey))
        assert await open_rows(client) == ["sent"]
        await client.resume()
        assert await open_rows(client) == []
        assert await held(client) > before + 20


async def test_an_account_order_whose_ok_was_lost_is_answered_later(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await client.topup(bird.pubkey, 30)
        buyer = Buyer(mumbled(client), client.market.catalogue)
        with pytest.raises(RelayError, match="stays open"):
            await buyer.ask(Question("?", provider=bird.pubkey, pay="account"), Answer())
        (late,) = await client.resume()
        assert (late.text, late.breaches) == (TEXT, ())


async def test_a_token_order_whose_ok_was_lost_is_paid_or_back(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        buyer = Buyer(mumbled(client), client.market.catalogue)
        with pytest.raises(RelayError):
            await buyer.ask(Question("?", provider=bird.pubkey, pay="token"), Answer())
        late = await client.resume()
        assert await open_rows(client) == []
        assert await held(client) >= FUND - 5
        assert [outcome.text for outcome in late] in ([], [TEXT])


# fee, credit and statements


async def test_the_fee_is_what_the_mint_takes(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, fee_extra_msat=1_000) as (client, bird):
        quotes: list[Quote] = []
        result = await client.ask("?", provider=bird.pubkey, on_quote=quotes.append).done()
        assert result.breaches == ("fee-altered",)


@pytest.mark.parametrize(
    ("manners", "breach"),
    [
        ({"credit_all": True}, "change-withheld"),
        ({"unstated": True}, "statement-invalid"),
        ({"unbooked": True}, "balance-short"),
    ],
)
async def test_credit_counts_when_a_statement_has_it(
    manners: dict[str, Any], breach: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, **manners) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey).done()
        assert result.credit_msat
        assert result.breaches == (breach,)


async def test_credit_adds_up_over_orders(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        wishes: dict[str, Any] = {"provider": bird.pubkey, "max_tokens": 20}
        answers = [client.ask("?", **wishes) for _ in range(3)]
        results = [await answer.done() for answer in answers]
        results.append(await client.ask("?", **wishes).done())
        assert [result.breaches for result in results] == [()] * 4
        credit = sum(result.credit_msat for result in results)
        before = (await client.topup(bird.pubkey, 20)).balance_msat
        assert before == credit + 19_000
        answers = [client.ask("?", pay=pay, **wishes) for pay in ("account", "token", "account")]
        results = [await answer.done() for answer in answers]
        assert [result.breaches for result in results] == [()] * 3
        balance = await client.balance(bird.pubkey)
        assert balance.balance_msat == before + sum(
            result.credit_msat or -result.cost_msat for result in results
        )
        assert balance.breaches == ()


async def test_what_an_account_order_takes_is_its_cost(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        assert (await client.topup(bird.pubkey, 30)).breaches == ()
        bird.manners.swallow_msat = 5_000
        result = await client.ask("?", provider=bird.pubkey, pay="account").done()
        assert result.breaches == ("balance-short",)
        assert (await client.topup(bird.pubkey, 10)).breaches == ("balance-short",)
        bird.manners.swallow_msat = 0
        assert (await client.topup(bird.pubkey, 10)).breaches == ()
        disputes = await client._world.store.read("dispute_list")
        assert [row["provider"] for row in disputes] == [bird.pubkey] * 2


async def test_a_top_up_or_refund_that_does_not_add_up_is_told(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        bird.manners.swallow_msat = 1_000
        assert (await client.topup(bird.pubkey, 10)).breaches == ("balance-short",)
        bird.manners.swallow_msat = 0
        assert (await client.topup(bird.pubkey, 30)).breaches == ()
        bird.manners.short_change = 3
        assert (await client.refund(bird.pubkey)).breaches == ("balance-short",)
        assert (await client.purchases(1))[0].breaches == ("balance-short",)


async def test_a_balance_does_not_go_down_by_itself(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await client.topup(bird.pubkey, 20)
        account = next(iter(bird.balances))
        bird.credit(account, -4_000)
        assert (await client.balance(bird.pubkey)).breaches == ("balance-short",)
        known = await client.last_balance(bird.pubkey)
        for seq, change in ((bird.seq, -1_000), (bird.seq - 1, 9_000)):
            bird.seq, bird.balances[account] = seq, bird.balances[account] + change
            with pytest.raises(RemoteError, match="contradicts"):
                await client.balance(bird.pubkey)
            assert await client.last_balance(bird.pubkey) == known
        assert len(await client._world.store.read("dispute_list")) == 3


async def test_an_acceptance_names_our_coins(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await client.topup(bird.pubkey, 20)
        for pay in ("token", "account"):
            bird.manners.other_coins = False
            taken = await client.ask("?", provider=bird.pubkey, pay=pay).done()
            assert taken.accepted is not None
            bird.manners.other_coins = True
            other = await client.ask("?", provider=bird.pubkey, pay=pay).done()
            assert other.accepted is None


# the wallet


async def test_an_invoice_is_letters_and_digits(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with (
        FaultyMint(mint_url) as mint,
        TokenClient(state=tmp_path / "client", relays=[relay_url], mint=mint.url) as client,
    ):
        mint.changes["/v1/mint/quote/bolt11"] = lambda said: {**said, "request": "lnbc1\x1b[2J"}
        with pytest.raises(RemoteError, match="invoice"):
            await client.wallet.fund(5)


async def test_a_token_has_its_name_before_it_is_made(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with FaultyMint(mint_url) as mint, both(tmp_path, relay_url, mint.url) as (client, _):
        name = client.wallet.new_name()
        mint.faults.extend(["lost", *["503"] * 40])
        with pytest.raises(OutcomeUnknown):
            await client.wallet.send(5, name=name)
        assert name in [row["id"] for row in await client.wallet.history()]
        mint.faults.clear()
        await client.wallet.resume()
        assert (await client.wallet.reclaim(name)).amount == 4


# change that is not ours yet


async def test_change_that_the_mint_refused_once_is_kept_and_taken_later(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with FaultyMint(mint_url) as mint, both(tmp_path, relay_url, mint.url) as (client, bird):
        bird.manners.before_result = lambda: mint.faults.extend(["400 11005"])
        result = await client.ask("?", provider=bird.pubkey).done()
        assert result.breaches == ("change-refused",)
        before = await held(client)
        row = (await client._world.store.read("purchase_get", n=1))[0]
        assert "cashuB" in row["reply"]
        assert await client.resume() == []
        assert await held(client) >= before + result.change_msat // 1_000 - 1
        row = (await client._world.store.read("purchase_get", n=1))[0]
        assert ("cashuB" in row["reply"], row["breaches"], row["state"]) == (False, "", "done")
        after = await held(client)
        await client.resume()
        assert await held(client) == after


async def test_change_that_is_none_stays_refused(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, broken_change=True) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey).done()
        before = await held(client)
        await client.resume()
        assert (await client.purchases(1))[0].breaches == result.breaches == ("change-refused",)
        assert await held(client) == before
        assert await client._world.purse.pending() == []


async def test_a_refund_is_taken_at_mints_the_user_chose(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    with start_mint(tmp_path / "mint") as other:
        async with both(tmp_path, relay_url, mint_url) as (client, bird):
            quote = await bird.purse.fund(other.url, 500)
            await bird.purse.claim_quote(quote.quote, wait_s=10)
            bird.mints = (mint_url, other.url)
            await bird.announce()
            await client.topup(bird.pubkey, 30)
            bird.manners.refund_at = other.url
            assert (await client.refund(bird.pubkey)).breaches == ("mint-unknown",)
            assert {mint for mint, _ in await client.wallet.balance()} == {mint_url}
            await client.resume()
            assert {mint for mint, _ in await client.wallet.balance()} == {mint_url}
        async with TokenClient(
            state=tmp_path / "client", relays=[relay_url], mint=other.url
        ) as client:
            await client.resume()
            assert (await client.wallet.balance())[other.url, "sat"] >= 20
            assert (await client.purchases(1))[0].breaches == ()
        async with TokenClient(state=tmp_path / "client", relays=[relay_url]) as client:
            assert await client.wallet.preferred_mint() == mint_url  # where it was funded


async def test_a_failure_does_not_hide_a_breach(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    manners = {"fail": "generation-failed", "no_change": True}
    async with both(tmp_path, relay_url, mint_url, **manners) as (client, bird):
        with pytest.raises(RemoteError, match="change-short") as caught:
            await client.ask("?", provider=bird.pubkey).done()
        assert caught.value.code == "generation-failed"


# who stalls, and two who work on one purchase


async def test_answers_to_nobody_win_no_time(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url, silent=True, stalls="nobody") as (client, bird):
        with pytest.raises(WorldError) as caught:
            await client.ask("?", provider=bird.pubkey, deadline_s=0.5).done()
        assert caught.value.code == "provider-silent"
        assert bird.queries == ["order", "order"]
        order = bird.orders[0][1]
        assert order.end_by == order.deadline + 900


async def test_an_answer_ends_no_order(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url, take_and_be_silent=True) as (client, bird):
        with pytest.raises(WorldError):
            await client.ask("?", provider=bird.pubkey, deadline_s=0.5).done()
        letter, order = bird.orders[0]
        await bird.say(order.reply, QueryAnswer(to=letter.id, state="settled"))
        await client.resume()
        assert await open_rows(client) == ["sent"]


async def test_resume_leaves_alone_what_is_under_way(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        purse = client._world.purse

        class Slow:
            """Sends, and lets somebody resume in between."""

            async def send(self, *what: Any) -> Any:
                token = await purse.send(*what)
                await resume(client._world, client._buyer, wait_s=1.0)
                return token

            def __getattr__(self, name: str) -> Any:
                return getattr(purse, name)

        client._buyer._world = replace(client._world, purse=Slow())  # type: ignore[arg-type]
        asked = client.ask("?", provider=bird.pubkey)
        await bird.heard.wait()
        assert await client.resume() == []
        result = await asked.done()
        assert (result.text, result.breaches) == (TEXT, ())
        assert await open_rows(client) == []


# whom to ask, how much to spend


async def test_who_was_silent_or_broke_a_bargain_is_not_chosen_again(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        model = bird.model.model_copy(update={"id": f"jay-{bird.pubkey[:8]}"})
        bird.model = model
        await bird.announce()
        folder = tmp_path / "other"
        async with counterpart(folder, relay_url, mint_url, take_and_be_silent=True) as cheap:
            cheap.model = model.model_copy(update={"price": Price(input=1, output=1, request=400)})
            await cheap.announce()
            wishes: dict[str, Any] = {"model": model.id, "max_tokens": 20}
            with pytest.raises(WorldError, match="does not answer"):
                await client.ask("?", deadline_s=1, **wishes).done()
            bird.manners.overcharge_msat = 300
            result = await client.ask("?", **wishes).done()
            assert (result.provider, result.breaches) == (bird.pubkey, ("price-altered",))
            with pytest.raises(LocalError, match="left out unless named"):
                await client.ask("?", **wishes).done()
            bird.manners.overcharge_msat = 0
            assert (await client.ask("?", provider=bird.pubkey, **wishes).done()).text == TEXT


async def test_a_request_has_a_limit_of_its_own(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await fund(client, 3_000, mint_url)
        price = bird.model.price.model_copy(update={"request": 1_100_000})
        bird.model = bird.model.model_copy(update={"price": price})
        await bird.announce()
        with pytest.raises(LocalError) as caught:
            await client.ask("?", provider=bird.pubkey).done()
        assert caught.value.code == "payment-amount-low"
        result = await client.ask("?", provider=bird.pubkey, max_msat=None).done()
        assert (result.cost_msat > BUDGET_MSAT, result.breaches) == (True, ())
        assert BUDGET_SAT * 1_000 == BUDGET_MSAT


async def test_a_name_is_topped_up_only_when_followed(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        with pytest.raises(LocalError, match="public key"):
            await client.topup(bird.name, 10)
        assert await held(client) == FUND
        assert (await client.topup(to_npub(bird.pubkey), 10)).balance_msat == 9_000
        await client.follow(bird.pubkey)
        assert (await client.topup(bird.name, 10)).balance_msat == 18_000


# and the true provider


async def test_the_honest_provider_is_accused_of_nothing(
    tmp_path: Path, relay_url: str, mint_url: str, engine_url: str
) -> None:
    text = config_text(tmp_path / "stall", [relay_url], mint_url, engine_url)
    async with (
        selling(text) as stall,
        TokenClient(state=tmp_path / "client", relays=[relay_url], mint=mint_url) as client,
    ):
        await fund(client, 1_000, mint_url)
        wishes: dict[str, Any] = {"provider": stall.pubkey, "max_tokens": 16, "model": MODEL}
        accounts = [await client.topup(stall.pubkey, 100)]
        for _ in range(2):
            answers = [
                client.ask("Say hi.", pay=pay, **wishes)
                for pay in ("account", "token", "account", "token")
            ]
            results = [await answer.done() for answer in answers]
            assert [result.breaches for result in results] == [()] * 4
            assert all(result.accepted is not None for result in results)
            accounts.append(await client.balance(stall.pubkey))
        free = await client.ask("Say hi.", **{**wishes, "model": "free"}).done()
        credited = await client.ask("Say hi.", change="account", **wishes).done()
        assert (free.breaches, credited.breaches) == ((), ())
        accounts.append(await client.topup(stall.pubkey, 20))
        accounts.append(await client.refund(stall.pubkey))
        assert [account.breaches for account in accounts] == [()] * len(accounts)
        assert await client._world.store.read("dispute_list") == []
