"""The purse on a real mint: every operation as it should go, and every refusal it must make."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from nostrllm.crypto.bdhke import sign_witness, y_of
from nostrllm.crypto.keys import public_key
from nostrllm.errors import LocalError, RemoteError
from nostrllm.ports import Conflict, Write
from nostrllm.purse import Outcome
from nostrllm.wire.token import Dleq, Token, encode_token, parse_token
from tests.locking import locked
from tests.purse.world import Wallet, proofs_unspent, wallet


def noted(name: str) -> list[Write]:
    """A row of our own, to see what is committed together with what."""
    return [Write("claim_insert", {"mint": "note", "y": name, "owner": name})]


async def is_noted(wallet: Wallet, name: str) -> bool:
    return bool(await wallet.store.read("claim_owner", mint="note", y=name))


async def test_fund_send_receive(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(100)
    assert await alice.worth() == 100
    outcome = await alice.purse.send_out("s1", alice.mint, "sat", 21)
    assert (outcome.state, outcome.amount, outcome.net, outcome.fee) == ("DONE", 21, 21, 1)
    token = outcome.token
    assert token is not None
    assert token.amount == 21
    assert await alice.worth() == 78
    text = encode_token(token)
    got = await bob.purse.receive("r1", parse_token(text))
    assert (got.state, got.amount, got.fee, got.net) == ("DONE", 21, 1, 20)
    assert sum(proof.amount for proof in got.proofs) == 20
    assert await bob.worth() == 20
    assert [row["kind"] for row in await bob.purse.history()] == ["receive"]
    assert await alice.purse.pending() == await bob.purse.pending() == []


async def test_the_same_id_does_a_thing_once(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(64)
    token = await alice.purse.send("s", alice.mint, "sat", 21)
    assert await alice.purse.send("s", alice.mint, "sat", 21) == token
    assert await alice.again().send("s", alice.mint, "sat", 21) == token
    first = await bob.purse.receive("r", token)
    calls: list[Outcome] = []
    second = await bob.purse.receive("r", token, lambda outcome: calls.append(outcome) or ())  # type: ignore[func-returns-value]
    assert first == second
    assert calls == []
    assert await bob.worth() == 20
    with pytest.raises(RemoteError) as seen:
        await bob.purse.receive("other", token)
    assert seen.value.code == "payment-token-spent"
    assert await bob.purse.claimed_by(token) == {"r"}


async def test_exact_coins_go_without_the_mint(alice: Wallet) -> None:
    await alice.fund(7)
    outcome = await alice.purse.send_out(
        "s", alice.mint, "sat", 5, lambda outcome: noted(str(outcome.token is not None))
    )
    assert (outcome.fee, outcome.state) == (0, "DONE")
    assert sorted(p.amount for p in outcome.token.proofs) == [1, 4] if outcome.token else False
    assert await is_noted(alice, "True")
    assert await alice.worth() == 2


async def test_too_little_money(alice: Wallet) -> None:
    await alice.fund(8)
    for amount in (8 + 1, 100, 8):
        if amount == 8:
            assert (await alice.purse.send("exact", alice.mint, "sat", 8)).amount == 8
            break
        with pytest.raises(LocalError) as empty:
            await alice.purse.send(f"s{amount}", alice.mint, "sat", amount)
        assert empty.value.code == "wallet-empty"
    with pytest.raises(LocalError):
        await alice.purse.send("zero", alice.mint, "sat", 0)
    await alice.fund(8)
    with pytest.raises(LocalError) as fee:
        await alice.purse.send("s7", alice.mint, "sat", 15)
    assert fee.value.code == "wallet-empty"
    assert (await alice.purse.pending(), await alice.worth()) == ([], 8)


async def test_many_sends_at_once_share_the_coins(alice: Wallet) -> None:
    for _ in range(4):
        await alice.fund(31)
    purses = [alice.purse, alice.again()]  # two that know nothing of each other's choices
    tokens = await asyncio.gather(
        *(purses[n % 2].send(f"s{n}", alice.mint, "sat", 8) for n in range(8))
    )
    names = [proof.secret for token in tokens for proof in token.proofs]
    assert len(set(names)) == len(names)
    assert {token.amount for token in tokens} == {8}
    fees = sum(int(row["fee"]) for row in await alice.purse.history())
    assert await alice.worth() == 4 * 31 - 8 * 8 - fees


async def test_provider_keeps_a_ladder_and_gives_change(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(256)
    token = await alice.purse.send("s", alice.mint, "sat", 100)
    plan = await bob.purse.plan_receive(
        "order", token, ladder=True, owner="order", proof_state="held"
    )
    assert (plan.amount, plan.fee, plan.net) == (100, 1, 99)
    await bob.store.commit(*noted("accepted"), *plan.writes)
    with pytest.raises(Conflict, match="claim_insert"):
        await bob.store.commit(*plan.writes)
    assert await bob.purse.pending() == [("order", "receive")]
    outcome = await bob.purse.run("order", lambda outcome: noted(outcome.state))
    assert outcome.state == "DONE"
    assert await is_noted(bob, "DONE")
    held = await bob.purse.held("order")
    assert sorted(held, key=repr) == sorted(outcome.proofs, key=repr)
    assert await bob.worth() == 0
    for cost in range(100):
        change, kept = bob.purse.choose(held, cost)
        assert sum(p.amount for p in change) == cost
        assert sum(p.amount for p in kept) == 99 - cost
    with pytest.raises(LocalError):
        bob.purse.choose(held, 100)
    change, kept = bob.purse.choose(held, 57)
    moves = bob.purse.mark(change, "held", "sent", "order")
    moves += bob.purse.mark(kept, "held", "free", "")
    await bob.store.commit(*moves)
    with pytest.raises(Conflict, match="proof_mark"):
        await bob.store.commit(*moves)
    back = await bob.purse.token_of("order")
    assert back is not None
    assert back.amount == 57
    assert await bob.worth() == 42
    assert await bob.purse.watch_sent() == []
    assert (await alice.purse.receive("change", back)).state == "DONE"
    assert await bob.purse.watch_sent(noted) == ["order"]
    assert await is_noted(bob, "order")
    assert await bob.purse.token_of("order") is None
    assert await bob.purse.watch_sent() == []


async def test_a_spent_token_is_refused_for_good(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(32)
    token = await alice.purse.send("s", alice.mint, "sat", 16)
    assert (await alice.purse.reclaim("s")).state == "DONE"
    assert await alice.worth() == 30
    ends: list[Outcome] = []

    def then(outcome: Outcome) -> list[Write]:
        ends.append(outcome)
        return noted("refused")

    outcome = await bob.purse.receive("r", token, then)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")
    assert [end.state for end in ends] == ["REJECTED"]
    assert await is_noted(bob, "refused")
    assert await bob.purse.receive("r", token) == outcome
    assert await bob.worth() == 0
    assert await bob.purse.pending() == []


async def test_reclaim(alice: Wallet, bob: Wallet) -> None:
    with pytest.raises(LocalError):
        await alice.purse.reclaim("nothing")
    await alice.fund(33)
    await alice.purse.send("s", alice.mint, "sat", 32)
    outcome = await alice.purse.reclaim("s")
    assert (outcome.state, outcome.net) == ("DONE", 31)
    assert await alice.worth() == 32
    with pytest.raises(LocalError):
        await alice.purse.reclaim("s")
    with pytest.raises(LocalError) as gone:
        await alice.purse.send("s", alice.mint, "sat", 32)
    assert gone.value.code == "payment-token-spent"
    token = await alice.purse.send("t", alice.mint, "sat", 16)
    await bob.purse.receive("r", token)
    with pytest.raises(RemoteError) as taken:
        await alice.purse.reclaim("t")
    assert taken.value.code == "payment-token-spent"
    assert await alice.purse.token_of("t") is None
    await alice.purse.send("one", alice.mint, "sat", 1)
    with pytest.raises(LocalError) as small:
        await alice.purse.reclaim("one")
    assert small.value.code == "payment-amount-low"
    assert await alice.purse.token_of("one") is not None


async def test_reclaim_of_a_half_taken_token(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(48)
    token = await alice.purse.send("s", alice.mint, "sat", 48)
    await bob.purse.receive("r", replace(token, proofs=token.proofs[:1]))
    outcome = await alice.purse.reclaim("s")
    assert (outcome.state, outcome.amount) == ("DONE", 16)
    assert await alice.worth() == 15


async def test_own_coins_spent_elsewhere(alice: Wallet, tmp_path: Path) -> None:
    await alice.fund(40)
    async with wallet(tmp_path, alice.mint, seed=alice.seed) as copy:
        assert await copy.purse.scan(alice.mint, empty_max=500) == 40
        stolen = await copy.purse.send("x", alice.mint, "sat", 32)
        assert (await copy.purse.reclaim("x")).state == "DONE"
    assert not await proofs_unspent(alice, stolen)
    outcome = await alice.purse.send_out("s", alice.mint, "sat", 33)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")
    # Its outputs had the numbers of the copy's coins: those found that way are ours as well.
    found = await alice.worth() - 8
    assert await alice.purse.scan(alice.mint, empty_max=500) == 31 - found
    assert await alice.worth() == 39
    with pytest.raises(LocalError) as gone:
        await alice.purse.send("s", alice.mint, "sat", 33)
    assert gone.value.code == "payment-token-spent"


async def test_scan_finds_everything_from_the_seed(alice: Wallet, tmp_path: Path) -> None:
    await alice.fund(100)
    token = await alice.purse.send("s", alice.mint, "sat", 21)
    await alice.fund(7, "msat")
    await alice.again().receive("r", token)  # restarted: a block of counters was skipped
    left = await alice.worth()
    async with wallet(tmp_path, alice.mint, seed=alice.seed) as fresh:
        assert await fresh.purse.scan(alice.mint) == left
        assert await fresh.purse.scan(alice.mint, "msat", empty_max=500) == 7
        assert await fresh.purse.scan(alice.mint, empty_max=500) == 0
        assert await fresh.worth() == left
        outcome = await fresh.purse.send_out("s", alice.mint, "sat", 50)
        assert outcome.state == "DONE"
        assert await fresh.purse.pending() == []


async def test_a_quote_is_claimed_once(alice: Wallet) -> None:
    quote = await alice.purse.fund(alice.mint, 5)
    assert [row["id"] for row in await alice.purse.quotes()] == [quote.quote]
    first = await alice.purse.claim_quote(quote.quote, wait_s=10)
    assert (first.state, first.net, first.fee) == ("DONE", 5, 0)
    assert await alice.purse.claim_quote(quote.quote) == first
    assert await alice.worth() == 5
    assert await alice.purse.quotes() == []
    with pytest.raises(LocalError):
        await alice.purse.claim_quote("unknown")
    with pytest.raises(LocalError):
        await alice.purse.run("unknown")
    with pytest.raises(RemoteError):
        await alice.purse.fund(alice.mint, 5, "gbp")


async def a_token(wallet: Wallet, amount: int = 12) -> Token:
    await wallet.fund(amount)
    return await wallet.purse.send(secrets.token_hex(4), wallet.mint, "sat", amount)


async def test_refusals_before_the_mint(alice: Wallet, bob: Wallet) -> None:
    token = await a_token(alice)
    coin = token.proofs[0]
    assert coin.dleq is not None
    other = secrets.token_hex(32)
    bad: list[tuple[Token, str]] = [
        (replace(token, unit="msat"), "payment-token-invalid"),
        (with_coin(token, amount=3), "payment-token-invalid"),
        (with_coin(token, amount=coin.amount * 2), "payment-token-invalid"),
        (with_coin(token, secret="other"), "payment-token-invalid"),
        (with_coin(token, dleq=Dleq(other, other, other)), "payment-token-invalid"),
        (with_coin(token, id="01" + "00" * 32), "payment-token-invalid"),
        (with_coin(token, id="01" + "00" * 7), "payment-token-invalid"),
        (with_coin(token, secret=' ["P2PK",{}]'), "payment-token-locked-wrong"),
        (replace(token, mint="ftp://x"), "payment-token-invalid"),
    ]
    for number, (wrong, code) in enumerate(bad):
        with pytest.raises(RemoteError) as refused:
            await bob.purse.receive(f"r{number}", wrong)
        assert refused.value.code == code, number
    dust = await a_token(alice, 1)
    with pytest.raises(RemoteError) as low:
        await bob.purse.receive("dust", dust)
    assert low.value.code == "payment-amount-low"
    assert await bob.purse.history() == []
    assert (await bob.purse.receive("good", token)).state == "DONE"  # nothing was claimed before


def with_coin(token: Token, **changes: object) -> Token:
    return replace(token, proofs=(replace(token.proofs[0], **changes), *token.proofs[1:]))  # type: ignore[arg-type]


async def test_a_short_id_that_is_not_clear(alice: Wallet, bob: Wallet) -> None:
    keysets = await bob.mints.at(bob.mint).keysets()
    token = await a_token(alice)
    assert len(keysets) > 1
    with pytest.raises(RemoteError, match="not clear"):
        await bob.purse.receive("r", with_coin(token, id="01"))


async def test_tokens_of_ordinary_wallets_have_no_dleq(alice: Wallet, bob: Wallet) -> None:
    token = await a_token(alice)
    plain = replace(token, proofs=tuple(replace(p, dleq=None) for p in token.proofs))
    assert (await bob.purse.receive("r", plain)).state == "DONE"
    forged = replace(
        plain, proofs=tuple(replace(p, secret=secrets.token_hex(32)) for p in plain.proofs)
    )
    outcome = await bob.purse.receive("forged", forged)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-invalid")
    assert await bob.worth() == 11


async def test_two_runs_at_once_end_once(alice: Wallet, bob: Wallet) -> None:
    token = await a_token(alice, 20)
    plan = await bob.purse.plan_receive("r", token, ladder=False, owner="")
    await bob.store.commit(*plan.writes)
    twin = bob.again()
    outcomes = await asyncio.gather(bob.purse.run("r"), bob.purse.run("r"), twin.run("r"))
    assert {outcome.state for outcome in outcomes} == {"DONE"}
    assert await bob.worth() == 19


async def test_a_thens_conflict_leaves_the_operation_open(alice: Wallet, bob: Wallet) -> None:
    token = await a_token(alice, 20)
    await bob.store.commit(*noted("mine"))
    with pytest.raises(Conflict):
        await bob.purse.receive("r", token, lambda outcome: noted("mine"))
    assert await bob.purse.pending() == [("r", "receive")]
    assert (await bob.purse.run("r")).state == "DONE"
    assert await bob.worth() == 19


async def test_a_proof_is_stored_under_its_y(alice: Wallet) -> None:
    await alice.fund(1)
    token = await alice.purse.send("s", alice.mint, "sat", 1)
    rows = await alice.store.read("proof_of_owner", owner="s", state="sent")
    assert [row["y"] for row in rows] == [y_of(token.proofs[0].secret)]


async def test_one_receive_started_twice(alice: Wallet, bob: Wallet) -> None:
    token = await a_token(alice, 20)
    outcomes = await asyncio.gather(*(bob.purse.receive("r", token) for _ in range(3)))
    assert {outcome.state for outcome in outcomes} == {"DONE"}
    assert await bob.worth() == 19


async def test_one_send_started_twice(alice: Wallet) -> None:
    await alice.fund(64)
    tokens = await asyncio.gather(*(alice.purse.send("s", alice.mint, "sat", 10) for _ in range(3)))
    assert tokens[0] == tokens[1] == tokens[2]
    assert await alice.worth() == 53


async def test_many_orders_at_once(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(1023)
    tokens = [await alice.purse.send(f"s{n}", alice.mint, "sat", 7) for n in range(12)]
    outcomes = await asyncio.gather(
        *(bob.purse.receive(f"r{n}", token) for n, token in enumerate(tokens))
    )
    assert {outcome.state for outcome in outcomes} == {"DONE"}
    assert await bob.worth() == 12 * 6


async def test_one_issue_and_one_reclaim_started_twice(alice: Wallet) -> None:
    quote = await alice.purse.fund(alice.mint, 32)
    claims = (alice.purse.claim_quote(quote.quote, wait_s=10) for _ in range(3))
    assert {outcome.state for outcome in await asyncio.gather(*claims)} == {"DONE"}
    assert await alice.worth() == 32
    await alice.purse.send("s", alice.mint, "sat", 32)
    results = await asyncio.gather(
        *(alice.purse.reclaim("s") for _ in range(3)), return_exceptions=True
    )
    done = [result for result in results if isinstance(result, Outcome)]
    assert {outcome.state for outcome in done} == {"DONE"}
    assert await alice.worth() == 31


async def test_locked_coins_are_taken_with_their_witness(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(64)
    key = secrets.token_bytes(32)
    compressed = f"02{public_key(key)}"
    plain = await alice.purse.send("s", alice.mint, "sat", 21)
    token = await locked(alice.mints, plain, compressed)
    with pytest.raises(RemoteError) as refused:
        await bob.purse.plan_receive("r", token, ladder=False, owner="")
    assert refused.value.code == "payment-token-locked-wrong"
    with pytest.raises(RemoteError, match="locked"):
        await bob.purse.plan_receive("r", token, ladder=False, owner="", unlock=lambda _: None)

    def unlock(secret: str) -> str:
        return sign_witness(secret, key, bytes(32))

    plan = await bob.purse.plan_receive("r", token, ladder=False, owner="", unlock=unlock)
    await bob.store.commit(*plan.writes)
    outcome = await bob.again().run("r")  # the witness is in the stored request
    assert (outcome.state, outcome.amount, outcome.fee) == ("DONE", 20, 1)
    assert await bob.worth() == 19


async def test_a_witness_of_another_key_is_the_mints_to_refuse(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(64)
    plain = await alice.purse.send("s", alice.mint, "sat", 21)
    token = await locked(alice.mints, plain, f"02{public_key(bytes(31) + bytes([7]))}")

    def unlock(secret: str) -> str:
        return sign_witness(secret, bytes(31) + bytes([8]), bytes(32))

    plan = await bob.purse.plan_receive("r", token, ladder=False, owner="", unlock=unlock)
    await bob.store.commit(*plan.writes)
    outcome = await bob.purse.run("r")
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-invalid")
    assert await proofs_unspent(bob, token)
