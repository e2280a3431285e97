"""People in direct messages: they ask, pay, get answer and change, and are told what is wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nostrllm.core.money import MSAT_PER_SAT
from nostrllm.ports import Filter
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, parse_event, rumor
from nostrllm.wire.receipt import binds, parse_receipt
from nostrllm.wire.token import Token, encode_token
from tests.roles.market import (
    CLOCK,
    KEYRING,
    Buyer,
    Stall,
    as_token,
    buying,
    config_text,
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
async def person(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Buyer]:
    """Somebody with 500 sat."""
    async with buying(relay_url, mint_url, tmp_path) as it:
        yield it


async def test_a_question_with_a_token_gets_answer_and_change(stall: Stall, person: Buyer) -> None:
    token = await person.token(64)
    await person.say(stall.pubkey, f"What is the capital of France? {token}")
    said = await person.heard_until(stall.pubkey, "cashuB")
    assert len(said) >= 3
    assert said[0].strip()
    assert said[-2].startswith("Cost ")
    assert said[-1].startswith("cashuB")
    change = await person.worth(said[-1])
    [order] = await stall.orders()
    assert order["net_msat"] == 63 * MSAT_PER_SAT
    assert order["cost_msat"] + order["change_units"] * 1_000 + order["credit_msat"] == 63_000
    assert change == order["change_units"] - 1  # the mint's fee on the way in
    books = await stall.books()
    assert -books["income"] == order["cost_msat"] > 0
    assert await stall.daemon.recovery.book_spent_change() == 1
    assert f"change:{order['id']}" not in await stall.books()
    await person.say(stall.pubkey, "/change")
    assert "spent" in await person.heard(stall.pubkey)


async def test_the_same_question_over_nip04(stall: Stall, person: Buyer) -> None:
    token = await person.token(64)
    content = await person.me.encrypt_legacy(f"Say hello. {token}", stall.pubkey)
    draft = Draft(kinds.DM_LEGACY, content, int(CLOCK.now()), (("p", stall.pubkey),))
    wanted = Filter(kinds=(kinds.DM_LEGACY,), tags={"p": (person.me.pubkey,)})
    async with person.relays.subscribe("legacy", [wanted]) as letters:
        question = await person.me.sign(draft)
        for _ in range(3):
            await person.relays.publish(question)
        said: list[str] = []
        async for event in letters:
            said.append(await person.me.decrypt_legacy(event.content, event.pubkey))
            if said[-1].startswith("cashuB"):
                break
    assert len(said) >= 3
    assert await person.worth(said[-1]) > 40
    assert len(await stall.orders()) == 1


async def test_without_money_one_is_told_the_price_and_how_to_pay(
    stall: Stall, person: Buyer
) -> None:
    await person.say(stall.pubkey, "What is the capital of France?")
    said = await person.heard(stall.pubkey)
    for word in ("will cost about", "cashuB", person.mint, "/topup", "smollm2-135m"):
        assert word in said
    assert await stall.orders() == []


async def test_commands(stall: Stall, person: Buyer) -> None:
    for text, answer in [
        ("/help", "/topup"),
        ("/models", "→ smollm2-135m"),
        ("/price", "20 sat per 1,000 tokens in"),
        ("/price free", "free: 0 sat"),
        ("/model free", "free answers from now on"),
        ("/models again", "→ free"),
        ("/model nonsense", "model-unknown"),
        ("/balance", "0 sat"),
        ("/refund", "account-insufficient"),
        ("/change", "no change of yours"),
        ("/cancel", "Nothing of yours"),
        ("/qr", "no payment request"),
        ("/status", "not asked anything"),
        ("/receipt", "no receipt"),
        ("/new", "Forgotten"),
        ("/topup", "paste a token"),
        (None, "creqA"),
        ("/topup 50", "50 sat"),
        (None, "creqA"),
        ("/topup fifty", "whole sat"),
        ("/topup 0 sat", "1 sat or more"),
        ("/topup 6000", "payment-amount-high"),
        ("/qr again", "in capitals"),
        (None, "CREQB1"),
        ("/go", "no late message"),
        ("/dance", "do not know"),
    ]:
        if text is not None:
            await person.say(stall.pubkey, text)
        assert answer in await person.heard(stall.pubkey)


async def test_an_account_pays_to_the_msat_and_is_refunded(stall: Stall, person: Buyer) -> None:
    await person.say(stall.pubkey, f"/topup {await person.token(100)}")
    assert "99 sat added" in await person.heard(stall.pubkey)
    await person.say(stall.pubkey, "Say hello.")
    said = await person.heard_until(stall.pubkey, "Cost ")
    [order] = await stall.orders()
    assert order["funding"] == "account"
    balance = 99_000 - order["cost_msat"]
    assert f"balance {balance // 1_000}" in said[-1]
    assert (await stall.books())[f"account:{person.me.pubkey}"] == -balance
    await person.say(stall.pubkey, "/refund")
    said = await person.heard_until(stall.pubkey, "cashuB")
    refunded = as_token(said[-1]).amount
    fee = int("mint fee 1 sat" in said[-2])  # none if the coins were there as they are
    assert refunded == balance // 1_000 - fee
    await person.worth(said[-1])
    assert (await stall.books()).get(f"account:{person.me.pubkey}", 0) > -3_000


async def test_a_receipt_binds_the_person(stall: Stall, person: Buyer) -> None:
    await person.say(stall.pubkey, f"Say hello. {await person.token(32)}")
    await person.heard_until(stall.pubkey, "cashuB")
    await person.say(stall.pubkey, "/status")
    assert "Your last question is" in await person.heard(stall.pubkey)
    await person.say(stall.pubkey, "/receipt")
    told = json.loads(await person.heard(stall.pubkey))
    event = parse_event(told["receipt"])
    assert KEYRING.verify(event)
    receipt = parse_receipt(event)
    assert receipt.provider == stall.pubkey
    assert binds(receipt, person.me.pubkey, told["salt"])


async def test_a_conversation_goes_on(stall: Stall, person: Buyer) -> None:
    await person.say(stall.pubkey, f"/topup {await person.token(200)}")
    await person.heard(stall.pubkey)
    await person.say(stall.pubkey, "My name is Ada.")
    await person.heard_until(stall.pubkey, "Cost ")
    await person.say(stall.pubkey, "What is my name?")
    await person.heard_until(stall.pubkey, "Cost ")
    first, second = await stall.orders()
    assert second["cost_msat"] > 0
    talk = stall.daemon.talk
    said = talk.conversations.messages(person.me.pubkey, "x", 10_000)
    assert [message.role for message in said] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert first["id"] != second["id"]


async def test_late_tokens_are_redeemed_only_when_asked_again(stall: Stall, person: Buyer) -> None:
    token = await person.token(32)
    await person.say(stall.pubkey, f"Say hello. {token}", age_s=3_600)
    assert "/go" in await person.heard(stall.pubkey)
    assert await stall.orders() == []
    await person.say(stall.pubkey, "/go")
    said = await person.heard_until(stall.pubkey, "cashuB")
    assert await person.worth(said[-1]) > 20


async def test_late_top_ups_too(stall: Stall, person: Buyer) -> None:
    token = await person.token(32)
    await person.say(stall.pubkey, f"/topup {token}", age_s=3_600)
    assert "/go" in await person.heard(stall.pubkey)
    assert await stall.books() == {}
    await person.say(stall.pubkey, "/go")
    assert "31 sat added" in await person.heard(stall.pubkey)


async def test_tokens_in_a_group_are_left_alone(stall: Stall, person: Buyer) -> None:
    token = await person.token(32)
    await person.say(stall.pubkey, f"Say hello. {token}", also=("cd" * 32,))
    assert "went to others too" in await person.heard(stall.pubkey)
    assert await person.worth(token) == 31


async def test_bad_tokens_are_told_apart_and_nothing_is_taken(
    stall: Stall, person: Buyer, tmp_path: Path
) -> None:
    token = as_token(await person.token(16))
    spent = await person.token(32)
    await person.worth(spent)
    first, *rest = token.proofs
    forged = replace(first, C=("02" if first.C[:2] == "03" else "03") + first.C[2:], dleq=None)
    locked = replace(first, secret='["P2PK",{"nonce":"00","data":"02%s","tags":[]}]' % ("ab" * 32))
    good = encode_token(token)
    for text, code in [
        (f"Hi {good} {good}", "payment-token-invalid"),
        (f"Hi {spent}", "payment-token-spent"),
        (f"Hi {good[:-40]}", "payment-token-invalid"),
        (f"Hi {encode_token(replace(token, proofs=(forged, *rest)))}", "payment-token-invalid"),
        (
            f"Hi {encode_token(replace(token, proofs=(locked, *rest)))}",
            "payment-token-locked-wrong",
        ),
        (
            f"Hi {encode_token(replace(token, mint='https://other.example'))}",
            "payment-mint-unaccepted",
        ),
        (f"Hi {encode_token(replace(token, unit='usd'))}", "payment-mint-unaccepted"),
        (f"Hi {await person.token(2)}", "payment-amount-low"),
    ]:
        await person.say(stall.pubkey, text)
        said = await person.heard(stall.pubkey)
        assert code in said, (code, said)
        assert "Nothing was taken" in said
    assert await person.worth(good) == 15
    assert all(order["state"] == "refused" for order in await stall.orders())
    assert await stall.books() == {}


async def test_more_than_the_cap_is_refused(
    stall: Stall, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with buying(relay_url, mint_url, tmp_path, amount=3_000) as rich:
        token = await rich.token(2_500)
        await rich.say(stall.pubkey, f"Hi {token}")
        assert "payment-amount-high" in await rich.heard(stall.pubkey)
        assert await rich.worth(token) == 2_499


async def test_five_copies_are_charged_once(stall: Stall, person: Buyer) -> None:
    token = await person.token(64)
    text = f"Say hello. {token}"
    letter = rumor(
        Draft(kinds.DM, text, int(CLOCK.now()), (("p", stall.pubkey),)), person.me.pubkey
    )
    await person.send(letter, stall.pubkey, copies=5)
    said = await person.heard_until(stall.pubkey, "cashuB")
    await person.send(letter, stall.pubkey)  # the stored reply goes out again, nothing else
    await person.say(stall.pubkey, "/balance")
    assert "balance" in await person.heard(stall.pubkey)
    assert len(await stall.orders()) == 1
    assert await person.worth(said[-1]) > 40


async def test_msat_tokens_come_back_as_msat(stall: Stall, person: Buyer) -> None:
    quote = await person.purse.fund(person.mint, 40_000, "msat")
    await person.purse.claim_quote(quote.quote, wait_s=10)
    token: Token = await person.purse.send("m", person.mint, "msat", 30_000)
    await person.say(stall.pubkey, f"Say hello. {encode_token(token)}")
    said = await person.heard_until(stall.pubkey, "cashuB")
    assert as_token(said[-1]).unit == "msat"
    [order] = await stall.orders()
    assert order["credit_msat"] == 0
    assert order["cost_msat"] + order["change_units"] + order["fee_msat"] == 30_000
    assert await person.worth(said[-1]) > 10_000
