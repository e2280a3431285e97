"""Payment requests: a wallet pays from a key of its own, and whoever asked is served."""

from __future__ import annotations

import shutil
import sqlite3
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.crypto.bdhke import y_of
from nostrllm.ports import Filter, Signer
from nostrllm.provider.admit import Letter
from nostrllm.provider.reply import Address
from nostrllm.service.audit import audit_provider
from nostrllm.service.config import ProviderConfig
from nostrllm.wire import creqb, kinds
from nostrllm.wire.event import Draft, Rumor, rumor
from nostrllm.wire.nip19 import parse_profile
from nostrllm.wire.payment_request import (
    Payload,
    PaymentRequest,
    encode_payload,
    parse_request,
)
from nostrllm.wire.token import Proof, Token, find_tokens, parse_token
from tests.adapters.scripted import Scripted, scripted
from tests.faultymint import FaultyMint
from tests.locking import locked
from tests.roles.market import CLOCK, KEYRING, Buyer, Stall, as_token, buying, config_text, selling
from tests.roles.test_provider_orders import writes

QUESTION = "What is the capital of France?"


@pytest.fixture
async def engine() -> AsyncIterator[Scripted]:
    async with scripted(writes) as it:
        yield it


@pytest.fixture
def text(relay_url: str, mint_url: str, engine: Scripted, tmp_path: Path) -> str:
    return config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)


@pytest.fixture
async def stall(text: str) -> AsyncIterator[Stall]:
    """A provider whose books are clean when the test is over."""
    async with selling(text) as it:
        yield it
    await check_books(text)


async def check_books(text: str) -> None:
    audit = await audit_provider(ProviderConfig.model_validate(tomllib.loads(text)))
    assert audit.ok, [check for check in audit.checks if not check.ok]


@pytest.fixture
async def person(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Buyer]:
    """Somebody with 500 sat."""
    async with buying(relay_url, mint_url, tmp_path) as it:
        yield it


async def asked(stall: Stall, person: Buyer, text: str = QUESTION) -> PaymentRequest:
    """The request in the message after the words."""
    await person.say(stall.pubkey, text)
    words = await person.heard(stall.pubkey)
    assert "request in the next message" in words
    return parse_request(await person.heard(stall.pubkey))


async def coins(person: Buyer, amount: int, key: str | None = None) -> Token:
    """A token of so many sat after the mint's fee, locked to this key."""
    if key is None:
        return parse_token(await person.token(amount + 1))
    async with CashuMints() as mints:
        plain = parse_token(await person.token(amount + 2))
        return await locked(mints, plain, key)


def letter_of(payer: Signer, to: str, payload: Payload, age_s: int = 0, *also: str) -> Rumor:
    tags = tuple(("p", key) for key in (to, *also))
    draft = Draft(kinds.DM, encode_payload(payload), int(CLOCK.now()) - age_s, tags)
    return rumor(draft, payer.pubkey)


async def pay(
    stall: Stall, person: Buyer, payload: Payload, *, payer: Signer | None = None, **how: Any
) -> Rumor:
    """Send a payload as a wallet does: from a key that is made for it."""
    payer = payer or KEYRING.signer()
    letter = letter_of(payer, stall.pubkey, payload, how.get("age_s", 0), *how.get("also", ()))
    for _ in range(how.get("copies", 1)):
        published = await person.relays.publish(await payer.wrap(letter, stall.pubkey))
        assert published.ok
    return letter


def lock_of(request: PaymentRequest) -> str:
    assert request.lock is not None
    return request.lock.data


async def released(buyer: Buyer, said: Sequence[str]) -> int:
    """What a released token is worth to a mint that is asked to swap it as it stands."""
    [token] = [parse_token(found) for text in said for found in find_tokens(text)[0]]
    async with CashuMints() as mints:
        mint = mints.at(token.mint)
        ids = {key[:16]: key for key in await mint.keysets()}
        proofs = [replace(one, id=ids[one.id]) for one in token.proofs]
        assert all(one.witness for one in proofs)
        outcome = await receive_as_is(buyer, mint.url, proofs)
        states = await mint.states([y_of(one.secret) for one in proofs])
        assert set(states) == {"SPENT"}
    return outcome


async def receive_as_is(buyer: Buyer, mint: str, proofs: list[Proof]) -> int:
    """Swap coins with the witness that they carry."""
    witnesses = {one.secret: one.witness for one in proofs}
    token = Token(mint, "sat", tuple(proofs))
    plan = await buyer.purse.plan_receive(
        f"back:{proofs[0].C}", token, ladder=False, owner="", unlock=witnesses.get
    )
    await buyer.purse._till.store.commit(*plan.writes)
    outcome = await buyer.purse.run(plan.op_id)
    assert outcome.state == "DONE"
    return outcome.net


async def balance(stall: Stall, pubkey: str) -> int:
    rows = await stall.world.store.read("account_get", pubkey=pubkey)
    return int(rows[0]["balance_msat"]) if rows else 0


# as it should go


async def test_the_request_says_what_a_wallet_needs(stall: Stall, person: Buyer) -> None:
    request = await asked(stall, person)
    assert request.amount is not None
    assert request.amount >= 8
    assert (request.unit, request.single_use, request.mints) == ("sat", True, (person.mint,))
    [transport] = request.transports
    assert (transport.kind, transport.tags) == ("nostr", (("n", "17"),))
    assert parse_profile(transport.target).pubkey == stall.pubkey
    assert request.lock is not None
    assert (request.lock.kind, request.lock.tags) == ("P2PK", ())
    announced = stall.daemon.announcer._payment_key.public
    assert request.lock.data == announced
    await person.say(stall.pubkey, "/qr")
    assert "capitals" in await person.heard(stall.pubkey)
    assert creqb.parse_request(await person.heard(stall.pubkey)) == request


@pytest.mark.parametrize("lock", [True, False], ids=["locked", "plain"])
async def test_a_paid_question_is_answered_to_who_asked(
    stall: Stall, person: Buyer, engine: Scripted, lock: bool
) -> None:
    request = await asked(stall, person)
    assert request.amount is not None
    token = await coins(person, request.amount, lock_of(request) if lock else None)
    letter = await pay(stall, person, Payload(request.id, token))
    assert f"{request.amount} sat added" in await person.heard(stall.pubkey)
    said = await person.heard_until(stall.pubkey, "Cost ")
    assert said[0] == "Hello there."
    [order] = await stall.orders()
    assert (order["author"], order["funding"]) == (person.me.pubkey, "account")
    left = request.amount * 1_000 - order["cost_msat"]
    books = await stall.books()
    assert books[f"account:{person.me.pubkey}"] == -left
    assert await balance(stall, letter.pubkey) == 0
    [row] = await stall.world.store.read("payments_all")
    assert (row["state"], row["author"]) == ("done", person.me.pubkey)
    assert (await stall.world.store.read("payment_get", id=letter.id))[0]["payload"] == ""
    assert len(engine.asked) == 1


@pytest.mark.parametrize(("command", "amount"), [("/topup 50", 50), ("/topup", 30)])
async def test_a_top_up_by_request(stall: Stall, person: Buyer, command: str, amount: int) -> None:
    request = await asked(stall, person, command)
    assert request.amount == (50 if amount == 50 else None)
    await pay(stall, person, Payload(request.id, await coins(person, amount, lock_of(request))))
    assert f"{amount} sat added" in await person.heard(stall.pubkey)
    assert await balance(stall, person.me.pubkey) == amount * 1_000
    await person.say(stall.pubkey, QUESTION)
    assert (await person.heard_until(stall.pubkey, "Cost "))[0] == "Hello there."


async def test_over_nip04_the_answer_goes_back_there(stall: Stall, person: Buyer) -> None:
    content = await person.me.encrypt_legacy("/topup 20", stall.pubkey)
    draft = Draft(kinds.DM_LEGACY, content, int(CLOCK.now()), (("p", stall.pubkey),))
    wanted = Filter(kinds=(kinds.DM_LEGACY,), tags={"p": (person.me.pubkey,)})
    said: list[str] = []
    async with person.relays.subscribe("legacy", [wanted]) as letters:
        await person.relays.publish(await person.me.sign(draft))
        async for event in letters:
            said.append(await person.me.decrypt_legacy(event.content, event.pubkey))
            if said[-1].startswith("creqA"):
                request = parse_request(said[-1])
                token = await coins(person, 20, lock_of(request))
                await pay(stall, person, Payload(request.id, token))
            if "added" in said[-1]:
                break
    assert "20 sat added" in said[-1]


async def test_short_late_double_and_over_are_all_taken(
    stall: Stall, person: Buyer, engine: Scripted
) -> None:
    request = await asked(stall, person)
    assert request.amount is not None
    key = lock_of(request)
    await pay(stall, person, Payload(request.id, await coins(person, 1, key)))
    assert "1 sat added" in await person.heard(stall.pubkey)
    more = await person.heard(stall.pubkey)
    assert "account-insufficient" in more
    again = parse_request(await person.heard(stall.pubkey))
    assert (again.id, again.amount) == (request.id, request.amount - 1)
    assert engine.asked == []
    token = await coins(person, again.amount or 0, key)
    await pay(stall, person, Payload(request.id, token), age_s=86_000)
    assert "sat added" in await person.heard(stall.pubkey)
    assert (await person.heard_until(stall.pubkey, "Cost "))[0] == "Hello there."
    await pay(stall, person, Payload(request.id, await coins(person, 200, key)))
    assert "200 sat added" in await person.heard(stall.pubkey)
    [order] = await stall.orders()
    total = (request.amount + 200) * 1_000
    assert await balance(stall, person.me.pubkey) == total - order["cost_msat"]
    assert len(engine.asked) == 1


async def test_an_account_that_does_not_reach_asks_for_what_is_missing(
    stall: Stall, person: Buyer
) -> None:
    await person.say(stall.pubkey, f"/topup {await person.token(2)}")
    assert "1 sat added" in await person.heard(stall.pubkey)
    await person.say(stall.pubkey, QUESTION)
    words = await person.heard(stall.pubkey)
    assert "would cost at least" in words
    assert "[account-insufficient]" in words
    request = parse_request(await person.heard(stall.pubkey))
    token = await coins(person, request.amount or 0, lock_of(request))
    await pay(stall, person, Payload(request.id, token))
    assert "added" in await person.heard(stall.pubkey)
    assert (await person.heard_until(stall.pubkey, "Cost "))[0] == "Hello there."


@pytest.mark.parametrize("command", ["/cancel", "/new"])
async def test_a_withdrawn_question_does_not_run(
    stall: Stall, person: Buyer, engine: Scripted, command: str
) -> None:
    request = await asked(stall, person)
    await person.say(stall.pubkey, command)
    await person.heard(stall.pubkey)
    token = await coins(person, request.amount or 0, lock_of(request))
    await pay(stall, person, Payload(request.id, token))
    assert "sat added" in await person.heard(stall.pubkey)
    assert "no longer have the question" in await person.heard(stall.pubkey)
    assert engine.asked == []


async def test_after_a_restart_the_money_is_there_and_the_question_is_not(
    text: str, person: Buyer, engine: Scripted
) -> None:
    async with selling(text) as stall:
        request = await asked(stall, person)
    async with selling(text) as stall:
        token = await coins(person, request.amount or 0, lock_of(request))
        await pay(stall, person, Payload(request.id, token))
        assert "sat added" in await person.heard(stall.pubkey)
        assert "no longer have the question" in await person.heard(stall.pubkey)
        assert engine.asked == []
        await person.say(stall.pubkey, f"Once more: {QUESTION}")
        assert (await person.heard_until(stall.pubkey, "Cost "))[0] == "Hello there."
    await check_books(text)


async def test_a_payment_whose_mint_is_away_is_taken_when_it_is_back(
    relay_url: str, mint_url: str, engine: Scripted, person: Buyer, tmp_path: Path
) -> None:
    async with FaultyMint(mint_url) as faulty:
        text = config_text(tmp_path / "stall", [relay_url], faulty.url, engine.url)
        async with selling(text) as stall:
            request = await asked(stall, person, "/topup 20")
            token = replace(await coins(person, 20, lock_of(request)), mint=faulty.url)
            down = dict.fromkeys(("/v1/keysets", "/v1/keys", "/v1/info"), (503, ""))
            faulty.says |= down
            letter = await pay(stall, person, Payload(request.id, token))
            assert "payment-pending" in await person.heard(stall.pubkey)
            [row] = await stall.world.store.read("payment_get", id=letter.id)
            assert row["state"] == "waiting"
        faulty.says.clear()
        async with selling(text) as stall:
            assert "20 sat added" in await person.heard(stall.pubkey)
            assert await balance(stall, person.me.pubkey) == 20_000
        await check_books(text)


async def test_an_audit_tells_who_was_credited(text: str, person: Buyer, tmp_path: Path) -> None:
    async with selling(text) as stall:
        request = await asked(stall, person, "/topup 20")
        await pay(stall, person, Payload(request.id, await coins(person, 20, lock_of(request))))
        assert "20 sat added" in await person.heard(stall.pubkey)
    await check_books(text)
    for sql, word in (
        ("UPDATE payment_request SET author = 'somebody'", "not credited to"),
        ("UPDATE payment SET state = 'refused'", "is refused, its top-up done"),
        ("UPDATE payment SET state = 'waiting'", "is waiting, its top-up done"),
        ("UPDATE payment SET state = 'lost'", "is lost"),
    ):
        shutil.copy(tmp_path / "stall" / "provider.db", tmp_path / "kept")
        with closing(sqlite3.connect(tmp_path / "stall" / "provider.db")) as db:
            db.execute(sql)
            db.commit()
        audit = await audit_provider(
            ProviderConfig.model_validate(tomllib.loads(text)), offline=True
        )
        [wrong] = [check for check in audit.checks if not check.ok]
        assert wrong.name == "payments went to whoever asked"
        assert word in wrong.faults[0]
        shutil.copy(tmp_path / "kept", tmp_path / "stall" / "provider.db")


async def test_whom_we_do_not_serve_we_ask_for_no_money(stall: Stall, person: Buyer) -> None:
    stall.daemon.conduct.block([person.me.pubkey])
    await person.say(stall.pubkey, QUESTION)
    assert "client-blocked" in await person.heard(stall.pubkey)
    assert await stall.world.store.read("request_last", author=person.me.pubkey) == []


# attacks


async def test_the_credit_is_the_askers_whoever_pays(
    stall: Stall, person: Buyer, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    request = await asked(stall, person, "/topup 20")
    async with buying(relay_url, mint_url, tmp_path) as other:
        token = await coins(other, 20, lock_of(request))
        await pay(stall, other, Payload(request.id, token), payer=other.me)
        assert "20 sat added" in await person.heard(stall.pubkey)
        assert await balance(stall, other.me.pubkey) == 0
        assert await balance(stall, person.me.pubkey) == 20_000
        await other.say(stall.pubkey, "/balance")
        assert "balance is 0 sat" in await other.heard(stall.pubkey)


async def test_a_replay_counts_once(stall: Stall, person: Buyer) -> None:
    request = await asked(stall, person, "/topup 20")
    payload = Payload(request.id, await coins(person, 20, lock_of(request)))
    await pay(stall, person, payload, copies=4)
    assert "20 sat added" in await person.heard(stall.pubkey)
    await pay(stall, person, payload, payer=person.me)  # the same coins in another rumor
    said = await person.heard_until(stall.pubkey, "payment-token-spent")
    assert all("20 sat added" in text for text in said[:-1])  # the stored reply, for each copy
    assert await balance(stall, person.me.pubkey) == 20_000
    assert len(await stall.world.store.read("transfers_all")) == 1


@pytest.mark.parametrize("name", [None, "00" * 16, "' OR 1=1"])
async def test_an_unknown_id_is_not_redeemed_and_our_lock_is_lifted(
    stall: Stall, person: Buyer, name: str | None
) -> None:
    key = lock_of(await asked(stall, person, "/topup"))
    payload = Payload(name, await coins(person, 20, key))
    await pay(stall, person, payload, payer=person.me)
    said = await person.heard_until(stall.pubkey, "cashuB")
    assert "payment-request-unknown" in said[0]
    assert "Nothing was taken" in said[0]
    assert await released(person, said) == 20
    assert await stall.world.store.read("transfers_all") == []


async def test_what_was_given_back_never_pays_and_what_paid_is_never_given_back(
    stall: Stall, person: Buyer
) -> None:
    request = await asked(stall, person, "/topup")
    given = await coins(person, 20, lock_of(request))
    await pay(stall, person, Payload("x", given), payer=person.me)
    assert "signed" in (await person.heard_until(stall.pubkey, "cashuB"))[1]
    await pay(stall, person, Payload(request.id, given), payer=person.me)
    assert "payment-token-spent" in await person.heard(stall.pubkey)
    taken = await coins(person, 20, lock_of(request))
    await pay(stall, person, Payload(request.id, taken))
    assert "20 sat added" in await person.heard(stall.pubkey)
    alias = replace(taken, mint=taken.mint.replace("127.0.0.1", "localhost"))
    for token in (taken, alias):
        await pay(stall, person, Payload("x", token), payer=person.me)
        assert "payment-request-unknown" in await person.heard(stall.pubkey)
    await person.say(stall.pubkey, "/balance")
    assert "balance is 20 sat" in await person.heard(stall.pubkey)  # and no token came before


async def test_unlocked_coins_of_an_unknown_id_stay_whose_they_are(
    stall: Stall, person: Buyer
) -> None:
    token = await person.token(20)
    await pay(stall, person, Payload("x", parse_token(token)), payer=person.me)
    assert "payment-request-unknown" in await person.heard(stall.pubkey)
    assert await person.worth(token) == 19


async def test_coins_that_cannot_be_taken_are_told_to_both(
    stall: Stall, person: Buyer, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    request = await asked(stall, person, "/topup 20")
    key = lock_of(request)
    good = await coins(person, 20, key)
    first, *rest = good.proofs
    assert first.dleq is not None
    forged = replace(first, dleq=replace(first.dleq, e=first.dleq.s))
    async with (
        buying(relay_url, mint_url, tmp_path, amount=0) as payer,
        CashuMints() as mints,
    ):
        for token, code in [
            (replace(good, mint="https://other.example"), "payment-mint-unaccepted"),
            (replace(good, unit="usd"), "payment-mint-unaccepted"),
            (replace(good, unit="msat"), "payment-token-invalid"),
            (replace(good, proofs=(forged, *rest)), "payment-token-invalid"),
            (parse_token(await person.token(1)), "payment-amount-low"),
            (
                await locked(mints, as_token(await person.token(9)), "02" + payer.me.pubkey),
                "payment-token-locked-wrong",
            ),
            (
                await locked(mints, as_token(await person.token(9)), key, ["pubkeys", key]),
                "payment-token-locked-wrong",
            ),
        ]:
            await pay(stall, person, Payload(request.id, token), payer=payer.me)
            for one in (payer, person):
                assert code in (said := await one.heard(stall.pubkey)), (code, said)
                assert "Nothing was taken" in said
                if token.proofs[-1] == good.proofs[-1] and token.mint != good.mint:
                    assert "signed" in await one.heard(stall.pubkey)
                    assert as_token(await one.heard(stall.pubkey)).amount == good.amount
    assert await balance(stall, person.me.pubkey) == 0


async def test_a_payload_of_ten_thousand_coins_is_refused(stall: Stall, person: Buyer) -> None:
    """No relay here carries one; another's may."""
    request = await asked(stall, person, "/topup 20")
    bare = replace((await coins(person, 1)).proofs[0], dleq=None)
    for many in (257, 10_000):
        proofs = tuple(replace(bare, secret=str(n)) for n in range(many))
        payload = Payload(request.id, Token(person.mint, "sat", proofs))
        letter = letter_of(person.me, stall.pubkey, payload)
        address = Address("chat", letter.pubkey, letter.pubkey)
        await stall.daemon._deliver(
            Letter(letter.id, "", letter.pubkey, letter.created_at, letter.content, address)
        )
        assert "payment-token-invalid" in await person.heard(stall.pubkey)
    await person.say(stall.pubkey, "/price")
    assert "per 1,000" in await person.heard(stall.pubkey)


async def test_coins_in_a_group_are_left_alone(stall: Stall, person: Buyer) -> None:
    request = await asked(stall, person, "/topup 20")
    payload = Payload(request.id, await coins(person, 20, lock_of(request)))
    await pay(stall, person, payload, payer=person.me, also=("cd" * 32,))
    said = await person.heard_until(stall.pubkey, "cashuB")
    assert "went to others too" in said[0]
    assert await released(person, said) == 20


async def test_coins_that_the_mint_refuses_come_back(
    relay_url: str, mint_url: str, engine: Scripted, person: Buyer, tmp_path: Path
) -> None:
    async with FaultyMint(mint_url) as faulty:
        text = config_text(tmp_path / "stall", [relay_url], faulty.url, engine.url)
        async with selling(text) as stall:
            request = await asked(stall, person, "/topup 20")
            token = replace(await coins(person, 20, lock_of(request)), mint=faulty.url)
            faulty.faults = ["400 11005"]
            await pay(stall, person, Payload(request.id, token), payer=person.me)
            said = await person.heard_until(stall.pubkey, "cashuB")
            assert "did not take it" in said[0]
            assert await released(person, said) == 20
        await check_books(text)


async def test_a_damaged_payload_is_no_prompt(
    stall: Stall, person: Buyer, engine: Scripted
) -> None:
    await person.say(stall.pubkey, '{"id":"x","proofs":[{"secret":"abc"')
    assert "cannot be read" in await person.heard(stall.pubkey)
    await person.say(stall.pubkey, '{"proofs":7}')
    assert "cannot be read" in await person.heard(stall.pubkey)
    assert engine.asked == []
