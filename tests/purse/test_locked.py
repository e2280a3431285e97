"""Locked coins on a real mint: who can spend them when, and change that is signed for others."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from coincurve import PrivateKey

from nostrllm.core import coins
from nostrllm.core.lock import parse_locked
from nostrllm.crypto.bdhke import public_key_of, sign_witness, verify_proof_dleq
from nostrllm.errors import RemoteError
from nostrllm.purse import Outcome
from nostrllm.purse.settle import Part
from nostrllm.wire.token import BlindedMessage, Token
from tests.purse.world import Wallet, wallet

PAYEE = PrivateKey(b"\x21" * 32)
KEY = public_key_of(PAYEE.secret)


def unlock(secret: str) -> str:
    return sign_witness(secret, PAYEE.secret, secrets.token_bytes(32))


def soon() -> tuple[str, int]:
    return KEY, int(time.time()) + 3_600


@dataclass(frozen=True)
class Paid:
    """A payer with a locked token and the outputs for his change."""

    payer: Wallet
    token: Token
    outputs: tuple[BlindedMessage, ...]

    def part(self, owner: str, change: int) -> Part:
        chosen = coins.subset([output.amount for output in self.outputs], change)
        assert chosen is not None
        ready = tuple(replace(coin, witness=unlock(coin.secret)) for coin in self.token.proofs)
        return Part(owner, ready, tuple(self.outputs[index] for index in chosen))


Payers = Callable[[], Awaitable[Paid]]


@pytest.fixture
async def payers(tmp_path: Path, mint_url: str) -> AsyncIterator[Payers]:
    async with AsyncExitStack() as stack:

        async def make() -> Paid:
            payer = await stack.enter_async_context(wallet(tmp_path, mint_url))
            await payer.fund(100)
            token = await payer.purse.send("pay", mint_url, "sat", 64, lock=soon())
            write, outputs = await payer.purse.plan_ladder("change", mint_url, "sat", 64)
            await payer.store.commit(write)
            return Paid(payer, token, outputs)

        yield make


async def test_only_the_payee_can_spend_a_locked_token(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(100)
    lock = soon()
    token = await alice.purse.send("s", alice.mint, "sat", 21, lock=lock)
    keysets = await alice.mints.at(alice.mint).keysets()
    for proof in token.proofs:
        assert verify_proof_dleq(proof, keysets[proof.id].keys[proof.amount])
        found = parse_locked(proof.secret)
        assert (found.key, found.locktime) == lock
    assert len({parse_locked(proof.secret).refund for proof in token.proofs}) == 3
    with pytest.raises(RemoteError) as locked:
        await bob.purse.receive("r", token)
    assert locked.value.code == "payment-token-locked-wrong"
    early = await alice.purse.reclaim("s")
    assert early.state == "REJECTED"
    plan = await bob.purse.plan_receive("r2", token, ladder=False, owner="", unlock=unlock)
    await bob.store.commit(*plan.writes)
    assert (await bob.purse.run("r2")).state == "DONE"
    assert await bob.worth() == 20


async def test_a_released_token_comes_back_at_once(alice: Wallet) -> None:
    await alice.fund(100)
    await alice.purse.send("s", alice.mint, "sat", 21, lock=soon())
    released = await alice.purse.reclaim("s", unlock=unlock)
    assert (released.state, released.net) == ("DONE", 20)
    assert await alice.worth() == 98


async def test_after_the_locktime_our_own_key_takes_it_back(alice: Wallet) -> None:
    await alice.fund(64)
    await alice.purse.send("s", alice.mint, "sat", 16, lock=(KEY, int(time.time()) + 2))
    assert (await alice.purse.reclaim("s")).state == "REJECTED"
    await asyncio.sleep(3)
    back = await alice.again().reclaim("s")
    assert (back.state, back.net) == ("DONE", 15)


async def test_one_swap_settles_many_payers(bob: Wallet, payers: Payers) -> None:
    paid = [await payers() for _ in range(3)]
    parts = [one.part(f"o{number}", 43 - number) for number, one in enumerate(paid)]
    plan = await bob.purse.plan_settle("settle", bob.mint, "sat", parts)
    await bob.store.commit(*plan.writes)
    outcome = await bob.purse.run("settle")
    change = 43 + 42 + 41
    assert (outcome.state, outcome.fee) == ("DONE", 1)
    assert outcome.net == await bob.worth() == 3 * 64 - 1 - change
    assert await bob.again().run("settle") == outcome
    handed = {row.output.B_: row.signature for row in outcome.signed if row.owner == "o0"}
    first = await paid[0].payer.purse.take_signed("change", handed)
    assert (first.state, first.amount) == ("DONE", 43)
    assert await paid[0].payer.purse.take_signed("change", handed) == first
    for one, amount in zip(paid[1:], (42, 41), strict=True):
        before = await one.payer.worth()
        assert (await one.payer.again().run("change")).state == "DONE"  # from the mint alone
        assert await one.payer.worth() == before + amount


async def test_a_ladder_that_nobody_signed_stays_open(payers: Payers) -> None:
    paid = await payers()
    assert (await paid.payer.purse.run("change")).state == "PREPARED"
    assert (await paid.payer.purse.take_signed("change", {})).state == "PREPARED"


async def test_a_used_output_names_whose_it_is(bob: Wallet, payers: Payers) -> None:
    good, bad = await payers(), await payers()
    once = bad.part("bad", 8)
    first = await bob.purse.plan_settle("one", bob.mint, "sat", [once])
    await bob.store.commit(*first.writes)
    assert (await bob.purse.run("one")).state == "DONE"
    again = await bad.payer.purse.send("pay2", bob.mint, "sat", 16, lock=soon())
    poisoned = replace(bad, token=again).part("bad", 8)
    plan = await bob.purse.plan_settle("two", bob.mint, "sat", [good.part("good", 8), poisoned])
    await bob.store.commit(*plan.writes)
    outcome = await bob.purse.run("two")
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-outputs-wrong")
    assert outcome.note == "bad"
    rest = await bob.purse.plan_settle("three", bob.mint, "sat", [good.part("good", 8)])
    await bob.store.commit(*rest.writes)
    assert (await bob.purse.run("three")).state == "DONE"


async def test_a_forged_signature_is_no_change(bob: Wallet, payers: Payers) -> None:
    paid = await payers()
    plan = await bob.purse.plan_settle("s", bob.mint, "sat", [paid.part("o", 32)])
    await bob.store.commit(*plan.writes)
    (row,) = (await bob.purse.run("s")).signed
    assert row.signature.dleq is not None
    forged = replace(row.signature, dleq=replace(row.signature.dleq, e="11" * 32))
    outcome: Outcome = await paid.payer.purse.take_signed("change", {row.output.B_: forged})
    assert (outcome.state, outcome.suspect) == ("PREPARED", True)
    assert (await paid.payer.purse.run("change")).amount == 32  # the mint did sign it


async def test_a_lock_is_known_by_its_operation(alice: Wallet) -> None:
    await alice.fund(100)
    lock = soon()
    token = await alice.purse.send("s", alice.mint, "sat", 21, lock=lock)
    found = await alice.purse.lock_of("s")
    assert found is not None
    assert (found.key, found.locktime, found.mint, found.amount) == (*lock, alice.mint, 21)
    assert found.secrets == tuple(proof.secret for proof in token.proofs)
    assert await alice.purse.locked() == {"s": found}
    await alice.purse.send("plain", alice.mint, "sat", 5)
    assert await alice.purse.lock_of("plain") is await alice.purse.lock_of("none") is None
    assert not await alice.purse.taken("s")
    await alice.store.commit(alice.purse.gone("s"))
    assert await alice.purse.taken("s")
    assert await alice.purse.locked() == {}


async def test_the_mint_says_when_locked_coins_are_taken(alice: Wallet, bob: Wallet) -> None:
    await alice.fund(100)
    token = await alice.purse.send("s", alice.mint, "sat", 21, lock=soon())
    plan = await bob.purse.plan_receive("r", token, ladder=False, owner="", unlock=unlock)
    await bob.store.commit(*plan.writes)
    assert (await bob.purse.run("r")).state == "DONE"
    assert await alice.purse.taken("s")
    assert not await alice.purse.taken("none")


async def test_a_ladder_that_is_no_longer_wanted(payers: Payers) -> None:
    paid = await payers()
    purse = paid.payer.purse
    assert await purse.keyset_of("change") == paid.outputs[0].id
    assert await purse.keyset_of("none") == ""
    await paid.payer.store.commit(purse.unused("change"), purse.unused("pay"))
    assert (await purse.state_of("change"), await purse.state_of("pay")) == ("REJECTED", "DONE")
    await paid.payer.store.commit(purse.unused("change"))
    assert await purse.pending() == []


async def test_refusals_of_a_settle(bob: Wallet, payers: Payers) -> None:
    paid = await payers()
    with pytest.raises(RemoteError) as low:
        await bob.purse.plan_settle("s", bob.mint, "sat", [paid.part("o", 64)])
    assert low.value.code == "payment-amount-low"
    part = paid.part("o", 32)
    other = replace(part.outputs[0], id="00" * 8)
    with pytest.raises(RemoteError) as stale:
        await bob.purse.plan_settle("s", bob.mint, "sat", [replace(part, outputs=(other,))])
    assert stale.value.code == "payment-outputs-stale"
