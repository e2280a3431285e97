"""Programs: order, accepted, stream, result, change, receipt; and every way it can go wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nostrllm.core.money import cost_msat
from nostrllm.core.parts import fits, split
from nostrllm.ports import Filter
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import (
    join_pages,
    parse_announcement,
    parse_price_page,
)
from nostrllm.wire.event import Draft, parse_event, rumor
from nostrllm.wire.receipt import binds, commitment, parse_details, parse_receipt
from nostrllm.wire.token import parse_token
from tests.adapters.scripted import Script, Wire, scripted
from tests.roles.market import (
    CLOCK,
    KEYRING,
    MODEL,
    Buyer,
    Stall,
    buying,
    config_text,
    question,
    selling,
)


@pytest.fixture
async def stall(
    relay_url: str, mint_url: str, engine_url: str, tmp_path: Path
) -> AsyncIterator[Stall]:
    """A provider with the real model."""
    async with selling(config_text(tmp_path / "stall", [relay_url], mint_url, engine_url)) as it:
        yield it


@pytest.fixture
async def buyer(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Buyer]:
    """A program with 500 sat."""
    async with buying(relay_url, mint_url, tmp_path) as it:
        yield it


async def test_what_is_announced_is_what_is_sold(stall: Stall, buyer: Buyer) -> None:
    kinds_wanted = (0, 10002, 10050, 31990, kinds.ANNOUNCEMENT, kinds.PRICE_LIST)
    events = await buyer.relays.fetch([Filter(kinds=kinds_wanted, authors=(stall.pubkey,))])
    by_kind = {event.kind: event for event in events}
    assert set(by_kind) == set(kinds_wanted)
    announcement = parse_announcement(by_kind[kinds.ANNOUNCEMENT])
    page = parse_price_page(by_kind[kinds.PRICE_LIST])
    assert announcement.price_root == page.root
    assert announcement.mints == (buyer.mint,)
    assert [model.id for model in join_pages([page])] == [MODEL, "free"]


async def test_an_order_from_payment_to_receipt(stall: Stall, buyer: Buyer) -> None:
    salt = "cd" * 32
    async with buyer.listening() as replies:
        payment = wire.TokenPayment(token=await buyer.token(64))
        order = await buyer.order(
            stall.pubkey, payment, reply=replies.key, c=commitment(buyer.me.pubkey, salt)
        )
        letter = buyer.message(order)
        await buyer.send(letter, stall.pubkey)
        accepted = await replies.next()
        assert isinstance(accepted, wire.Accepted)
        signed = wire.embedded_event(accepted.event, kinds.ACCEPTED, stall.pubkey)
        assert KEYRING.verify(signed)
        terms = wire.parse_terms(signed)
        assert (terms.order, terms.session) == (letter.id, accepted.session)
        assert terms.ceiling_msat == order.ceiling_msat
        streamed = await replies.stream(accepted.session)
        result = await replies.result()
    assert result.problem is None
    assert streamed == result.text
    assert result.sha256 == hashlib.sha256(result.text.encode()).hexdigest()
    page = parse_price_page((await buyer.relays.fetch([Filter(ids=(order.price,))]))[0])
    assert result.cost_msat == cost_msat(page.models[0].price, result.usage)
    assert result.change is not None
    assert (
        result.cost_msat + result.change.amount * 1_000 + result.credit_msat + result.fee_msat
        == 64_000
    )
    outcome = await buyer.purse.receive("change", parse_token(result.change.token))
    assert outcome.state == "DONE"
    event = parse_event(result.receipt)
    receipt = parse_receipt(event)
    assert KEYRING.verify(event)
    assert binds(receipt, buyer.me.pubkey, salt)
    assert parse_details(result.details).digest == receipt.content.details
    statement = wire.parse_statement(
        wire.embedded_event(result.statement, kinds.STATEMENT, stall.pubkey)
    )
    assert statement.balance_msat == result.credit_msat


async def test_an_account_pays_to_the_msat(stall: Stall, buyer: Buyer) -> None:
    async with buyer.listening() as replies:
        reply = wire.ReplyTo(key=replies.key.pubkey, relays=[buyer.relays.status()[0].url])
        top_up = wire.TopUp(reply=reply, token=await buyer.token(100))
        await buyer.send(buyer.message(top_up), stall.pubkey)
        answer = await replies.next()
        assert isinstance(answer, wire.Answer)
        assert answer.balance_msat == 99_000
        order = await buyer.order(stall.pubkey, wire.AccountPayment(), reply=replies.key)
        await buyer.send(buyer.message(order), stall.pubkey)
        result = await replies.result()
        assert result.problem is None
        assert result.change is None
        assert result.fee_msat == 0
        query = buyer.message(wire.Query(reply=reply, what="balance"))
        await buyer.send(query, stall.pubkey)
        answer = await replies.next()
        assert isinstance(answer, wire.Answer)
        assert answer.balance_msat == 99_000 - result.cost_msat
        refund = buyer.message(wire.Refund(reply=reply))
        await buyer.send(refund, stall.pubkey)
        answer = await replies.next()
        assert isinstance(answer, wire.Answer)
        assert answer.change is not None
        outcome = await buyer.purse.receive("refund", parse_token(answer.change.token))
        assert outcome.state == "DONE"
        await stall.books()


async def refusal(stall: Stall, buyer: Buyer, **fields: Any) -> wire.Problem:
    """What becomes of an order with these fields; its coins must still be spendable."""
    token = await buyer.token(40)
    async with buyer.listening() as replies:
        payment = fields.pop("payment", wire.TokenPayment(token=token))
        fields = {"ceiling_msat": 39_000, **fields}
        order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
        await buyer.send(buyer.message(order), stall.pubkey)
        message = await replies.next()
    assert isinstance(message, wire.Refused)
    assert await buyer.worth(token) == 39
    return message.problem


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "gpt-9"}, "model-unknown"),
        ({"price": "ab" * 32}, "price-expired"),
        ({"deadline": 1_000}, "deadline"),
        ({"ceiling_msat": 500_000}, "payment-amount-low"),
        ({"ceiling_msat": 1_500}, "payment-amount-low"),
        ({"payment": wire.AccountPayment()}, "account-insufficient"),
        ({"payment": wire.TokenPayment(token="cashuBnonsense")}, "payment-token-invalid"),
        ({"body": question("word " * 2_600)}, "context-too-long"),
    ],
)
async def test_refusals_take_nothing(
    stall: Stall, buyer: Buyer, fields: dict[str, Any], code: str
) -> None:
    problem = await refusal(stall, buyer, **fields)
    assert problem.code == code
    assert await stall.books() == {}


async def test_a_message_of_another_version_or_none_is_told_where_it_asks(
    stall: Stall, buyer: Buyer
) -> None:
    async with buyer.listening() as replies:
        reply = {"key": replies.key.pubkey, "relays": [buyer.relays.status()[0].url]}
        for content, code in (
            ('{"v":9,"type":"order","reply":%s}', "version-unsupported"),
            ('{"v":1,"type":"dance","reply":%s}', "message-invalid"),
        ):
            text = content % json.dumps(reply)
            draft = Draft(kinds.MESSAGE, text, int(CLOCK.now()))
            await buyer.send(rumor(draft, buyer.me.pubkey), stall.pubkey)
            message = await replies.next()
            assert isinstance(message, wire.Refused)
            assert message.problem.code == code


async def test_the_same_coins_pay_once(stall: Stall, buyer: Buyer) -> None:
    payment = wire.TokenPayment(token=await buyer.token(64))
    async with buyer.listening() as replies, buyer.listening() as others:
        for to in (replies, others):
            order = await buyer.order(stall.pubkey, payment, reply=to.key)
            await buyer.send(buyer.message(order), stall.pubkey)
            last = await to.next()
            if to is others:
                assert isinstance(last, wire.Refused)
                assert last.problem.code == "payment-token-spent"
            else:
                assert isinstance(last, wire.Accepted)
        assert (await replies.result()).problem is None


# engines that fail


@asynccontextmanager
async def market(
    script: Script, relay: str, mint: str, tmp: Path, provider: str = ""
) -> AsyncIterator[tuple[Stall, Buyer]]:
    """A provider whose model does as it is told, and a buyer."""
    async with (
        scripted(script) as engine,
        selling(config_text(tmp / "stall", [relay], mint, engine.url, provider)) as stall,
        buying(relay, mint, tmp) as buyer,
    ):
        yield stall, buyer


async def bought(stall: Stall, buyer: Buyer, **fields: Any) -> wire.Result:
    """The result of one ordinary order, its change received."""
    async with buyer.listening() as replies:
        payment = wire.TokenPayment(token=await buyer.token(64))
        order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
        await buyer.send(buyer.message(order), stall.pubkey)
        result = await replies.result()
    if result.change:
        outcome = await buyer.purse.receive(result.order, parse_token(result.change.token))
        assert outcome.state == "DONE"
    await stall.books()
    return result


async def dies_at_once(wire_: Wire) -> None:
    await wire_.status(500, {"error": {"message": "out of memory"}})


async def dies_mid_stream(wire_: Wire) -> None:
    await wire_.open()
    await wire_.text("The capital")


async def says_nothing(wire_: Wire) -> None:
    await wire_.open()
    await wire_.text("", finish_reason="stop")
    await wire_.end()


async def writes(wire_: Wire) -> None:
    await wire_.open()
    for word in ("Hello", " there", "."):
        await wire_.text(word)
    usage = {"prompt_tokens": 10, "completion_tokens": 3}
    await wire_.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    await wire_.event({"choices": [], "usage": usage})
    await wire_.end()


async def never_begins(wire_: Wire) -> None:
    await wire_.open()
    await asyncio.Event().wait()


async def never_ends(wire_: Wire) -> None:
    await wire_.open()
    while True:
        await wire_.text("again ")
        await asyncio.sleep(0.01)


async def exaggerates(wire_: Wire) -> None:
    await wire_.open()
    await wire_.text("Hi")
    usage = {"prompt_tokens": 10, "completion_tokens": 10_000_000}
    await wire_.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    await wire_.event({"choices": [], "usage": usage})
    await wire_.end()


async def test_an_order_in_parts(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with market(writes, relay_url, mint_url, tmp_path) as (stall, buyer):
        async with buyer.listening() as replies:
            payment = wire.TokenPayment(token=await buyer.token(64))
            body = question("word " * 10_000)
            order = await buyer.order(
                stall.pubkey, payment, reply=replies.key, model="free", body=body
            )
            whole = buyer.message(order)
            assert not fits(whole)
            for draft in reversed(split(whole, int(CLOCK.now()))):
                await buyer.send(rumor(draft, buyer.me.pubkey), stall.pubkey, copies=2)
            result = await replies.result()
        assert result.order == whole.id
        assert result.text == "Hello there."
        assert result.cost_msat == 0
        assert len(await stall.orders()) == 1


@pytest.mark.parametrize("script", [dies_at_once, dies_mid_stream, says_nothing])
async def test_a_failed_answer_is_free(
    script: Script, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(script, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer)
        assert result.problem is not None
        assert result.problem.code == "generation-failed"
        assert (result.text, result.cost_msat, result.receipt) == ("", 0, None)
        assert result.change is not None
        assert result.change.amount == 63
        assert (await stall.books()).get("income", 0) == 0


async def test_the_deadline_bounds_the_first_token(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(never_begins, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer, deadline=int(CLOCK.now()) + 2)
        assert result.problem is not None
        assert result.problem.code == "deadline"
        assert result.cost_msat == 0


async def test_end_by_and_cancel_charge_what_was_written(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(never_ends, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer, end_by=int(CLOCK.now()) + 2)
        assert result.finish_reason == "cancelled"
        assert 0 < result.cost_msat <= 59_000
        async with buyer.listening() as replies:
            payment = wire.TokenPayment(token=await buyer.token(64))
            order = await buyer.order(stall.pubkey, payment, reply=replies.key)
            letter = buyer.message(order)
            await buyer.send(letter, stall.pubkey)
            accepted = await replies.next()
            assert isinstance(accepted, wire.Accepted)
            await anext(aiter(replies.chunks))
            cancel = wire.Cancel(reply=order.reply, order=letter.id)
            stranger = KEYRING.signer()
            other = rumor(Draft(kinds.MESSAGE, cancel.as_json(), int(CLOCK.now())), stranger.pubkey)
            await buyer.relays.publish(await stranger.wrap(other, stall.pubkey))
            await buyer.send(buyer.message(cancel), stall.pubkey)
            result = await replies.result()
            assert result.finish_reason == "cancelled"
            assert result.text.startswith("again")
            assert result.change is not None


async def test_usage_never_passes_the_ceiling(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(exaggerates, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer, ceiling_msat=20_000)
        assert result.cost_msat == 20_000 - result.fee_msat


async def test_too_many_orders_are_refused_before_anything_is_taken(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(never_ends, relay_url, mint_url, tmp_path, "queue_max = 0") as (stall, buyer):
        async with buyer.listening() as replies:
            for _ in range(2):
                payment = wire.TokenPayment(token=await buyer.token(64))
                end = {"end_by": int(CLOCK.now()) + 5}
                order = await buyer.order(stall.pubkey, payment, reply=replies.key, **end)
                await buyer.send(buyer.message(order), stall.pubkey)
                assert isinstance(await replies.next(), wire.Accepted)
            problem = await refusal(stall, buyer)
        assert problem.code == "busy"
        assert problem.retry_after_s


async def test_stopping_finishes_what_runs_and_says_so(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        buying(relay_url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        async with market(never_ends, relay_url, mint_url, tmp_path) as (stall, _):
            payment = wire.TokenPayment(token=await buyer.token(64))
            end = {"end_by": int(CLOCK.now()) + 2}
            order = await buyer.order(stall.pubkey, payment, reply=replies.key, **end)
            await buyer.send(buyer.message(order), stall.pubkey)
            assert isinstance(await replies.next(), wire.Accepted)
            pubkey = stall.pubkey
        result = await replies.result()
        assert result.text.startswith("again")
        wanted = Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(pubkey,))
        [event] = await buyer.relays.fetch([wanted])
        assert parse_announcement(event).closing


async def test_a_short_answer_by_the_clients_own_wish_costs_the_prompt(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(says_nothing, relay_url, mint_url, tmp_path) as (stall, buyer):
        result = await bought(stall, buyer, body=question("Hi", stop=["H"]))
        assert result.problem is None
        assert 0 < result.cost_msat < 5_000
