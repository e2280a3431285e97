"""Payment requests with cashu-ts, nutshell and nostr-tools: read by them, paid by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nostrllm.wire import creqb, kinds
from nostrllm.wire.payment_request import (
    PaymentRequest,
    encode_request,
    parse_payload,
    parse_request,
)
from nostrllm.wire.token import encode_token
from tests.interop.peers import Peer
from tests.roles.market import Buyer, Stall, as_token
from tests.roles.payee import payee
from tests.roles.test_client_requests import asked, client_at, fund


async def request_of(person: Peer | Buyer, stall: Stall) -> str:
    """The message after the words."""
    return (await person.heard_until(stall.pubkey, "creqA"))[-1]


def as_read(read: dict[str, Any]) -> dict[str, Any]:
    """What either library says, under the names of NUT-18."""
    if "i" in read:
        return {name: read[name] for name in ("i", "a", "u", "s", "m", "d", "t", "nut10")}
    [way] = read["transport"]
    lock = read["nut10"]
    return {
        "i": read["id"],
        "a": read["amount"],
        "u": read["unit"],
        "s": read["singleUse"],
        "m": read["mints"],
        "d": read["description"],
        "t": [{"t": way["type"], "a": way["target"], "g": way["tags"]}],
        "nut10": {"k": lock["kind"], "d": lock["data"]},
    }


def as_meant(request: PaymentRequest) -> dict[str, Any]:
    [way] = request.transports
    assert request.lock is not None
    return {
        "i": request.id,
        "a": request.amount,
        "u": request.unit,
        "s": request.single_use,
        "m": list(request.mints),
        "d": request.description,
        "t": [{"t": way.kind, "a": way.target, "g": [list(tag) for tag in way.tags]}],
        "nut10": {"k": request.lock.kind, "d": request.lock.data},
    }


async def test_they_read_both_forms_and_we_read_theirs(
    stall: Stall, ours: Buyer, wallet: Peer
) -> None:
    await ours.say(stall.pubkey, "/topup 50")
    text = await request_of(ours, stall)
    request = parse_request(text)
    assert encode_request(request) == text
    for form in (text, creqb.encode_request(request)):
        read = await wallet.do("asked", request=form)
        assert as_read(read) == as_meant(request)
        assert [parse_request(read["again"][0]), creqb.parse_request(read["again"][1])] == [
            request,
            request,
        ]


async def test_a_wallet_fills_an_account_of_ours(
    stall: Stall, ours: Buyer, tools: Peer, wallet: Peer
) -> None:
    await ours.say(stall.pubkey, "/topup 50")
    text = await request_of(ours, stall)
    paid = await wallet.do("payload", request=text)
    await tools.do("pay", **paid)
    assert "50 sat added" in await ours.heard(stall.pubkey)
    await tools.do("pay", **paid)  # the same coins in another message
    await ours.say(stall.pubkey, "/balance")
    assert "balance is 50 sat" in (await ours.heard_until(stall.pubkey, "balance is"))[-1]


@pytest.mark.interop
@pytest.mark.parametrize("dleq", [True, False])
async def test_a_person_pays_a_question_from_a_wallet(
    stall: Stall, tools: Peer, relay_url: str, dleq: bool
) -> None:
    await tools.do("listen", relays=[relay_url], kind=kinds.GIFT_WRAP)
    question = "What is the capital of France?"
    await tools.do("say", relays=[relay_url], to=stall.pubkey, text=question, how="nip17")
    text = await request_of(tools, stall)
    amount = parse_request(text).amount
    assert amount
    before = await tools.do("balance")
    await tools.do("pay", **await tools.do("payload", request=text, dleq=dleq))
    said = await tools.heard_until(stall.pubkey, "Cost ")
    assert f"{amount} sat added" in said[0]
    assert said[1].strip()
    [order] = await stall.orders()
    assert order["author"] == await tools.do("me")
    assert before - await tools.do("balance") <= amount + 2  # the fees of two swaps


async def test_what_we_release_their_wallet_takes_back(
    stall: Stall, ours: Buyer, wallet: Peer
) -> None:
    await ours.say(stall.pubkey, "/topup 50")
    paid = await wallet.do("payload", request=await request_of(ours, stall))
    body = json.loads(paid["text"])
    await ours.say(stall.pubkey, json.dumps(body | {"id": "another"}))
    said = await ours.heard_until(stall.pubkey, "cashuB")
    token = as_token(said[-1])
    assert token.amount == sum(proof["amount"] for proof in body["proofs"])
    assert await wallet.do("receive", token=said[-1]) >= 50


async def test_our_client_pays_a_request_that_they_wrote(
    wallet: Peer, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with payee() as tea, client_at(tmp_path / "ann", relay_url, mint_url) as client:
        await fund(client)
        read = await wallet.do("asked", request=encode_request(asked(tea, mint_url)))
        for form in read["again"]:
            paid = await client.requests.pay(form)
            assert paid.price.amount == 20
            payload = parse_payload(json.dumps(tea.posted[-1]))
            assert payload.id == "tea1"
            assert await wallet.do("receive", token=encode_token(payload.token)) == 20
        assert len(tea.posted) == len(read["again"])
