"""Lightning into accounts and out of them: credited once, paid once, whatever fails."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.errors import OutcomeUnknown
from nostrllm.ports import Write
from nostrllm.provider.deposits import AT_ONCE, STRANGERS_MAX
from nostrllm.service.audit import audit_provider
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import _Report
from nostrllm.wire import order as wire
from nostrllm.wire.event import parse_event
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.scripted import scripted
from tests.faultymint import FaultyMint
from tests.invoices import invoice
from tests.roles.market import CLOCK, MODEL, Stall, config_text, question, selling
from tests.roles.test_provider_audit import Customer, cli, customer, model

pytestmark = pytest.mark.usefixtures("mint_url")

MELT = "/v1/melt/bolt11"
QUOTE = "/v1/mint/quote/bolt11"


@dataclass
class Market:
    """A provider at a mint that does what a test wants, and a customer of his."""

    text: str
    mint: FaultyMint
    stall: Stall
    who: Customer

    async def token(self, amount: int) -> str:
        token = parse_token(await self.who.buyer.token(amount))
        return encode_token(replace(token, mint=self.mint.url))

    async def fill(self, amount: int) -> int:
        """Top the customer up; the balance."""
        await self.who.send(wire.TopUp(reply=self.who.reply, token=await self.token(amount)))
        answer = await self.who.answer()
        assert answer.problem is None
        return answer.balance_msat or 0

    async def pay(self, text: str) -> wire.Answer | wire.Refused:
        await self.who.send(wire.Refund(reply=self.who.reply, invoice=text))
        return await self.reply()

    async def reply(self) -> wire.Answer | wire.Refused:
        while True:
            message = await self.who.replies.next()
            if isinstance(message, wire.Answer | wire.Refused):
                return message

    async def ask(self, msat: int) -> tuple[str, wire.Answer]:
        """An invoice that fills the account: the id of the message, and the answer."""
        content = wire.TopUp(reply=self.who.reply, lightning_msat=msat)
        name = await self.who.send(content)
        return name, await self.who.answer()

    async def balance(self) -> int:
        rows = await self.stall.world.store.read("account_get", pubkey=self.who.buyer.me.pubkey)
        return int(rows[0]["balance_msat"]) if rows else 0


async def clean(text: str) -> None:
    """The books of a stopped provider agree, and so does the mint."""
    found = await audit_provider(ProviderConfig.model_validate(tomllib.loads(text)))
    assert [(check.name, check.faults) for check in found.checks if not check.ok] == []


@dataclass
class Place:
    """Where a provider can be started, again and again."""

    text: str
    mint: FaultyMint
    who: Customer

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Market]:
        async with selling(self.text) as stall:
            yield Market(self.text, self.mint, stall, self.who)


@pytest.fixture
async def place(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with scripted(model) as engine, FaultyMint(mint_url) as mint:
        text = config_text(tmp_path / "stall", [relay_url], mint.url, engine.url)
        async with selling(text) as stall:
            pubkey = stall.pubkey
        async with customer(relay_url, mint_url, tmp_path, pubkey) as who:
            yield Place(text, mint, who)
        await clean(text)


@pytest.fixture
async def market(place: Place) -> AsyncIterator[Market]:
    async with place.open() as market:
        yield market


def seq_of(answer: wire.Answer) -> int:
    assert answer.statement is not None
    statement = wire.parse_statement(parse_event(answer.statement))
    assert statement.balance_msat == answer.balance_msat
    return statement.seq


# in


async def test_a_program_fills_its_account_by_lightning(market: Market) -> None:
    name, asked = await market.ask(50_000)
    assert (asked.to, asked.state) == (name, "waiting")
    found = parse_invoice(asked.invoice or "")
    assert found.amount_msat == 50_000
    assert asked.expires_at == found.expires_at
    paid = await market.who.answer()
    assert (paid.to, paid.state, paid.problem) == (name, "done", None)
    assert paid.balance_msat == 50_000 == await market.balance()
    assert seq_of(paid) == 1
    books = await market.stall.books()
    assert books[f"account:{market.who.buyer.me.pubkey}"] == -50_000
    await market.who.send(wire.Query(reply=market.who.reply, what="order", order=name))
    assert (await market.who.answer()).state == "done"


async def test_the_same_message_again_makes_no_second_invoice(market: Market) -> None:
    hide(market.mint)
    letter = market.who.buyer.message(wire.TopUp(reply=market.who.reply, lightning_msat=9_000))
    await market.who.buyer.send(letter, market.stall.pubkey, copies=3)
    assert (await market.who.answer()).to == letter.id
    asked = [path for path, _ in market.mint.calls if path == QUOTE]
    assert len(asked) == 1
    await market.who.send(wire.Query(reply=market.who.reply, what="order", order=letter.id))
    assert (await market.who.answer()).state == "waiting"


async def test_a_person_fills_the_account_by_lightning(market: Market) -> None:
    buyer, to = market.who.buyer, market.stall.pubkey
    await buyer.say(to, "/topup 21 lightning")
    assert "minutes and 21 sat are added" in await buyer.heard(to)
    assert parse_invoice(await buyer.heard(to)).amount_msat == 21_000
    assert "Paid: 21 sat added. Your balance is 21 sat." in await buyer.heard(to)
    await buyer.say(to, "/topup 0 lightning")
    assert "at least one" in await buyer.heard(to)
    await buyer.say(to, "/topup 6000 lightning")
    assert "payment-amount-high" in await buyer.heard(to)
    await buyer.say(to, "/topup lightning")
    assert "in whole sat" in await buyer.heard(to)


def hide(mint: FaultyMint) -> None:
    """Every invoice that is made from now on is unpaid, as far as the provider can see."""

    def unpaid(body: Any) -> Any:
        return body | {"state": "UNPAID"}

    def made(body: Any) -> Any:
        mint.changes[f"{QUOTE}/{body['quote']}"] = unpaid
        return body

    mint.changes[QUOTE] = made


async def test_an_invoice_paid_while_nobody_looked_is_credited_once(place: Place) -> None:
    async with place.open() as market:
        hide(place.mint)
        name, asked = await market.ask(7_000)
        assert asked.state == "waiting"
        assert await market.stall.daemon.lightning.deposits.look(name) is False
    await clean(place.text)
    place.mint.changes.clear()
    place.mint.faults = ["lost", "", "lost"]  # the coins are issued, and nobody hears of it
    async with place.open() as market:
        paid = await place.who.answer()
        assert (paid.to, paid.state, paid.balance_msat) == (name, "done", 7_000)
        deposits = market.stall.daemon.lightning.deposits
        assert await deposits.look(name) is True
    async with place.open() as market:
        await market.stall.daemon.lightning.deposits.sweep()
        assert await market.balance() == 7_000


async def test_an_invoice_that_ended_unpaid_is_looked_at_once_more(market: Market) -> None:
    hide(market.mint)
    name, _ = await market.ask(7_000)
    store, deposits = market.stall.world.store, market.stall.daemon.lightning.deposits
    [row] = await store.read("deposit_get", id=name)
    past = {**row, "id": "ab" * 32, "quote": "other", "expires_at": 1, "at": 1}
    await store.commit(Write("deposit_insert", past))
    market.mint.says[f"{QUOTE}/other"] = (500, "")
    await market.stall.world.store.commit(
        Write(
            "quote_insert",
            {
                **{name: row[name] for name in ("mint", "unit")},
                "id": "other",
                "amount": 7,
                "request": "",
                "expiry": 1,
                "state": "UNPAID",
                "created_at": 1,
            },
        )
    )
    with pytest.raises(OutcomeUnknown):
        await deposits.look("ab" * 32)  # the mint does not say: it stays
    body = {"quote": "other", "request": "", "state": "UNPAID"}
    market.mint.says[f"{QUOTE}/other"] = (200, json.dumps(body))
    assert await deposits.look("ab" * 32) is True
    [row] = await store.read("deposit_get", id="ab" * 32)
    assert (row["state"], row["told"]) == ("expired", 1)
    assert await deposits.look(name) is False


async def test_nobody_has_many_unpaid_invoices(market: Market) -> None:
    hide(market.mint)
    for amount in (1_000, 2_000, 3_000, 4_000):
        await market.ask(amount)
    await market.who.send(wire.TopUp(reply=market.who.reply, lightning_msat=5_000))
    refused = await market.reply()
    assert isinstance(refused, wire.Refused)
    assert refused.problem.code == "rate-limited"


async def test_strangers_leave_room_for_who_has_paid(market: Market) -> None:
    hide(market.mint)
    name, _ = await market.ask(1_000)
    store = market.stall.world.store
    [row] = await store.read("deposit_get", id=name)
    ids = [f"{n:064x}" for n in range(STRANGERS_MAX)]
    now = int(CLOCK.now())
    deposits = market.stall.daemon.lightning.deposits
    for _ in range(AT_ONCE):
        await deposits._at_once.acquire()  # nobody looks at them: their quotes are made up
    others = [{**row, "at": now, "id": one, "author": one, "quote": one} for one in ids]
    await store.commit(*(Write("deposit_insert", values) for values in others))
    # To have chosen a model is free, and leaves an account that never held anything.
    await store.commit(Write("account_model", {"pubkey": row["author"], "model": MODEL}))
    await market.who.send(wire.TopUp(reply=market.who.reply, lightning_msat=2_000))
    refused = await market.reply()
    assert isinstance(refused, wire.Refused)
    assert refused.problem.code == "rate-limited"
    assert await market.fill(101) == 100_000
    _, told = await market.ask(3_000)
    assert told.invoice is not None
    ends = [{"id": one, "state": "expired", "told": 1} for one in ids]
    await store.commit(*(Write("deposit_move", end) for end in ends))
    for _ in range(AT_ONCE):
        deposits._at_once.release()


async def test_a_mint_that_asks_for_another_amount_is_passed_over(market: Market) -> None:
    market.mint.changes[QUOTE] = lambda body: body | {"request": invoice(2_000)}
    await market.who.send(wire.TopUp(reply=market.who.reply, lightning_msat=1_000))
    refused = await market.reply()
    assert isinstance(refused, wire.Refused)
    assert refused.problem.code == "busy"


# out


async def test_a_program_has_an_invoice_paid(market: Market) -> None:
    assert await market.fill(101) == 100_000
    text = invoice(50_000)
    paid = await market.pay(text)
    assert isinstance(paid, wire.Answer)
    # 1 sat for the network and 1 for the coins
    assert (paid.state, paid.problem, paid.paid_msat) == ("done", None, 52_000)
    assert paid.balance_msat == 48_000 == await market.balance()
    assert seq_of(paid) == 3  # filled, taken off, what was not needed back
    again = await market.pay(text.upper())
    assert isinstance(again, wire.Refused)
    assert again.problem.code == "payment-invoice-invalid"
    assert await market.balance() == 48_000


async def test_a_person_has_an_invoice_paid(market: Market) -> None:
    buyer, to = market.who.buyer, market.stall.pubkey
    await market.fill(101)
    await buyer.say(to, f"/refund lightning:{invoice(50_000)}")
    said = await buyer.heard(to)
    assert said == "Your invoice of 50 sat is paid, for a fee of 2 sat; 48 sat stay here."
    await buyer.say(to, "/refund lnbc1nonsense")
    assert "payment-invoice-invalid" in await buyer.heard(to)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("lnbc", "payment-invoice-invalid"),
        (invoice(None), "payment-invoice-invalid"),
        (invoice(5_000, expiry_s=500), "payment-invoice-invalid"),
        (invoice(5_000, expiry_s=3_600, age_s=3_100), "payment-invoice-invalid"),
        (invoice(21_000), "account-insufficient"),
    ],
)
async def test_invoices_that_are_not_taken_leave_no_trace(
    market: Market, text: str, code: str
) -> None:
    await market.fill(21)
    refused = await market.pay(text)
    assert isinstance(refused, wire.Refused)
    assert refused.problem.code == code
    assert await market.stall.world.store.read("melts_all") == []
    assert await market.balance() == 20_000


async def test_the_balance_must_cover_what_paying_may_cost(market: Market) -> None:
    await market.fill(21)
    await market.who.answered("Hello?", token=await market.token(64))  # the provider's own coins
    balance = await market.balance()
    refused = await market.pay(invoice(balance // 1_000 * 1_000 - 1_000))
    assert isinstance(refused, wire.Refused)
    assert refused.problem.code == "account-insufficient"
    assert await market.balance() == balance


async def test_a_provider_without_coins_says_so(market: Market) -> None:
    await market.fill(101)
    market.mint.changes["/v1/melt/quote/bolt11"] = lambda body: body | {"fee_reserve": 90}
    refused = await market.pay(invoice(50_000))
    assert isinstance(refused, wire.Refused)
    assert refused.problem.code == "busy"


async def test_a_payment_that_fails_is_credited_back(market: Market) -> None:
    await market.fill(101)
    market.mint.says[MELT] = (400, '{"detail": "no route", "code": 20004}')
    text = invoice(50_000)
    failed = await market.pay(text)
    assert isinstance(failed, wire.Answer)
    assert failed.problem is not None
    assert (failed.state, failed.problem.code) == ("refused", "payment-lightning-failed")
    assert (failed.balance_msat, failed.paid_msat) == (100_000, 0)
    market.mint.says.clear()
    again = await market.pay(text.upper())
    assert isinstance(again, wire.Refused)  # a payment hash is taken for ever
    assert isinstance(await market.pay(invoice(50_000)), wire.Answer)


async def test_the_operator_sees_what_a_mint_does_not_say(market: Market, tmp_path: Path) -> None:
    state = tmp_path / "stall"
    await market.fill(101)
    market.mint.says[MELT] = (503, "")
    name = await market.who.send(wire.Refund(reply=market.who.reply, invoice=invoice(50_000)))
    world, daemon = market.stall.world, market.stall.daemon
    async with asyncio.timeout(30):
        while await world.purse.state_of(name) is None:  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.05)
    assert (await daemon.status()).waiting == []
    with closing(sqlite3.connect(state / "provider.db")) as db, db:
        db.execute("UPDATE operation SET created_at = created_at - 100 WHERE id = ?", (name,))
    [row] = (await daemon.status()).waiting
    assert (row["id"], row["kind"], row["amount"]) == (name, "melt", 50)
    (state / "provider.toml").write_text(market.text)
    shop = ProviderConfig.model_validate(tomllib.loads(market.text)).shop("0.0.0")
    await _Report(state, daemon, world, shop).write(ready=True)
    told = await cli(state, "status")
    assert f"mint silent    {market.mint.url} on melt of 50 sat since " in told.out
    market.mint.says.clear()


async def test_two_refunds_at_once_never_spend_a_balance_twice(market: Market) -> None:
    await market.fill(101)
    for _ in range(3):
        await market.who.send(wire.Refund(reply=market.who.reply, invoice=invoice(40_000)))
    said = [await market.reply() for _ in range(3)]
    done = [one for one in said if isinstance(one, wire.Answer) and one.state == "done"]
    assert len(done) <= 2
    assert await market.balance() == 100_000 - sum(one.paid_msat or 0 for one in done)


async def asked_for(mint: FaultyMint, path: str) -> None:
    """Wait until the mint has been asked for this."""
    for _ in range(600):
        if path in [asked for asked, _ in mint.calls]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError


@pytest.mark.parametrize("faults", [["lost"], ["500 after", "garbage"], ["refuse", "503"]])
async def test_a_payment_whose_answer_was_lost_is_found_after_a_restart(
    place: Place, faults: list[str]
) -> None:
    async with place.open() as market:
        await market.fill(101)
        dead = ["refuse"] * 200
        place.mint.faults = ["", *faults, *dead]  # "": the quote
        await market.who.send(wire.Refund(reply=place.who.reply, invoice=invoice(50_000)))
        async with asyncio.timeout(30):
            await asked_for(place.mint, MELT)
        [row] = await market.stall.world.store.read("melts_all")
        assert (row["state"], row["held_msat"]) == ("pending", 53_000)
        assert await market.balance() == 47_000
    place.mint.faults = []
    found = await audit_provider(ProviderConfig.model_validate(tomllib.loads(place.text)))
    assert [check.faults for check in found.checks if not check.ok] == []
    async with place.open() as market:
        paid = await place.who.answer()
        assert (paid.state, paid.paid_msat, paid.balance_msat) == ("done", 52_000, 48_000)
        assert await market.balance() == 48_000


# change


async def bought(market: Market, text: str, paid: int = 65, **fields: Any) -> wire.Result:
    payment = wire.TokenPayment(token=await market.token(paid))
    content = await market.who.buyer.order(
        market.stall.pubkey,
        payment,
        reply=market.who.replies.key,
        body=question("Hello?"),
        change="lightning",
        invoice=text,
        **fields,
    )
    await market.who.send(content)
    return await market.who.replies.result()


async def test_change_pays_an_invoice_and_the_rest_is_credited(market: Market) -> None:
    result = await bought(market, invoice(30_000))
    assert (result.cost_msat, result.change, result.credit_msat) == (25_200, None, 38_800)
    paid = await market.who.answer()
    assert (paid.to, paid.state, paid.paid_msat) == (result.order, "done", 32_000)
    assert paid.balance_msat == 6_800 == await market.balance()
    assert seq_of(paid) == 3


async def test_an_invoice_that_does_not_fit_leaves_the_change_in_the_account(
    market: Market,
) -> None:
    await market.fill(101)  # what was there before is not touched
    result = await bought(market, invoice(38_000))
    told = await market.who.answer()
    assert told.problem is not None
    assert (told.to, told.state) == (result.order, "refused")
    assert (told.problem.code, told.paid_msat) == ("account-insufficient", 0)
    assert told.balance_msat == 138_800 == await market.balance()


async def test_change_waits_for_the_mint_across_a_restart(place: Place) -> None:
    async with place.open() as market:
        place.mint.says["/v1/melt/quote/bolt11"] = (503, "")
        result = await bought(market, invoice(30_000))
        [row] = await market.stall.world.store.read("melts_all")
        assert row["state"] == "waiting"
    place.mint.says.clear()
    async with place.open() as market:
        paid = await place.who.answer()
        assert (paid.to, paid.state, paid.paid_msat) == (result.order, "done", 32_000)


async def test_an_order_with_an_invoice_that_was_used_is_refused_whole(market: Market) -> None:
    text = invoice(30_000)
    await bought(market, text)
    await market.who.answer()
    payment = wire.TokenPayment(token=await market.token(65))
    for fields in ({"invoice": text}, {"invoice": "lnbc"}):
        content = await market.who.buyer.order(
            market.stall.pubkey,
            payment,
            reply=market.who.replies.key,
            body=question("Hello?"),
            change="lightning",
            **fields,
        )
        await market.who.send(content)
        refused = await market.reply()
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "payment-invoice-invalid"
    assert len(await market.stall.orders()) == 1
    # and its coins may come again
    assert isinstance(await market.who.answered("Hello?", token=payment.token), wire.Result)


async def test_an_order_that_is_refused_pays_no_invoice(market: Market) -> None:
    spent = await market.token(65)
    await market.who.buyer.purse.receive(
        "r", replace(parse_token(spent), mint=market.who.buyer.mint)
    )
    content = await market.who.buyer.order(
        market.stall.pubkey,
        wire.TokenPayment(token=spent),
        reply=market.who.replies.key,
        change="lightning",
        invoice=invoice(30_000),
    )
    await market.who.send(content)
    refused = await market.reply()
    assert isinstance(refused, wire.Refused)
    for _ in range(600):
        [row] = await market.stall.world.store.read("melts_all")
        if row["state"] != "waiting":
            break
        await asyncio.sleep(0.05)
    assert (row["state"], row["told"]) == ("refused", 1)


# lies


LIES = (
    "UPDATE deposit SET msat = msat + 1000",
    "UPDATE deposit SET author = 'somebody'",
    "UPDATE deposit SET state = 'expired'",
    "UPDATE deposit SET state = 'odd'",
    "UPDATE deposit SET quote = 'another'",
    "UPDATE deposit SET msat = 'many'",
    "DELETE FROM deposit",
    "UPDATE melt SET held_msat = held_msat + 1000",
    "UPDATE melt SET held_msat = 0",
    "UPDATE melt SET paid_msat = paid_msat - 1000",
    "UPDATE melt SET paid_msat = paid_msat + 1000",
    "UPDATE melt SET fee_msat = fee_msat + 1000",
    "UPDATE melt SET state = 'pending'",
    "UPDATE melt SET state = 'refused'",
    "UPDATE melt SET state = 'refused', paid_msat = 0, fee_msat = 0",
    "UPDATE melt SET state = 'odd'",
    "UPDATE melt SET author = 'somebody'",
    "UPDATE melt SET unit = 'beads'",
    "DELETE FROM melt",
    "DELETE FROM operation WHERE kind = 'melt'",
    "UPDATE operation SET state = 'REJECTED' WHERE kind = 'melt'",
    "DELETE FROM entry WHERE set_id LIKE 'held:%'",
    "DELETE FROM entry WHERE set_id LIKE 'refund:%'",
    "UPDATE entry SET msat = msat + 1000 WHERE set_id LIKE 'refund:%'",
)


async def test_the_audit_finds_every_lie_about_an_invoice(place: Place) -> None:
    async with place.open() as market:
        await market.ask(100_000)
        await market.who.answer()
        paid = await market.pay(invoice(50_000))
        assert isinstance(paid, wire.Answer)
    config = ProviderConfig.model_validate(tomllib.loads(place.text))
    path = config.provider.state / "provider.db"
    whole = path.read_bytes()
    assert (await audit_provider(config, offline=True)).ok
    for lie in LIES:
        with closing(sqlite3.connect(path)) as db:
            db.execute(lie)
            db.commit()
        assert not (await audit_provider(config, offline=True)).ok, lie
        restore(path, whole)


def restore(path: Path, whole: bytes) -> None:
    for name in path.parent.glob("provider.db-*"):
        name.unlink()
    path.write_bytes(whole)
