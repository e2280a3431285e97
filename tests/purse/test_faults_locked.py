"""Locked coins under faults: every step of theirs × what fails × where the process dies.

The matrix is that of test_faults. Whatever happens, what went in is in the end ours, the payers'
change and the mint's fee, each of it once.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.errors import OutcomeUnknown
from nostrllm.purse import Outcome, Pace, Purse
from nostrllm.purse.settle import Part
from nostrllm.wire.token import BlindSignature
from tests.faultymint import FaultyMint
from tests.purse.test_faults import (
    FAULTS,
    SHORTER,
    Matrix,
    counted,
    matrices,
    survive,
)
from tests.purse.test_locked import Paid, soon, unlock
from tests.purse.world import Crash, CrashingStore, Wallet, proofs_unspent, wallet

IN = 16
FEE = 1
CHANGES = (9, 6)

#: nutshell's no without a reason; nothing was done.
NO_REASON = (400, '{"detail": "no", "code": 0}')


@pytest.fixture
async def eve(tmp_path: Path, faulty: FaultyMint) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, faulty.url) as eve:
        yield eve


async def pays(payer: Wallet, name: str) -> Paid:
    """A locked token and a ladder of that name."""
    token = await payer.purse.send(f"pay-{name}", payer.mint, "sat", IN, lock=soon())
    write, outputs = await payer.purse.plan_ladder(f"change-{name}", payer.mint, "sat", IN)
    await payer.store.commit(write)
    return Paid(payer, token, outputs)


async def settle(purse: Purse, name: str, mint: str, parts: list[Part]) -> Outcome:
    """Plan it unless it is planned, and run it."""
    if await purse.state_of(name) is None:
        plan = await purse.plan_settle(name, mint, "sat", parts)
        await purse._till.store.commit(*plan.writes)
    return await purse.run(name)


@matrices(SHORTER)
async def test_settle(
    ann: Wallet, ben: Wallet, eve: Wallet, faulty: FaultyMint, matrix: Matrix
) -> None:
    payers = (ann, eve)
    for number, (name, crash) in enumerate(matrix):
        for payer in payers:
            await payer.fund(32)
        paid = [await pays(payer, str(number)) for payer in payers]
        parts = [
            one.part(f"order {n}", change)
            for n, (one, change) in enumerate(zip(paid, CHANGES, strict=True))
        ]
        before = [await counted(who) for who in (ben, *payers)]

        async def start(purse: Purse, n: int = number, parts: list[Part] = parts) -> Outcome:
            return await settle(purse, f"settle-{n}", ben.mint, parts)

        outcome = await survive(ben, faulty, start, FAULTS[name], crash)
        assert (outcome.state, outcome.fee) == ("DONE", FEE), (name, crash)
        signed = dict.fromkeys(("order 0", "order 1"), 0)
        for one in outcome.signed:
            signed[one.owner] += one.output.amount
        assert tuple(signed.values()) == CHANGES, (name, crash)
        for payer, change in zip(payers, CHANGES, strict=True):
            for _ in range(2):  # from the mint alone, and once
                found = await payer.again().run(f"change-{number}")
                assert (found.state, found.amount) == ("DONE", change), (name, crash)
        after = [await counted(who) for who in (ben, *payers)]
        gained = [now - then for then, now in zip(before, after, strict=True)]
        assert gained == [2 * IN - FEE - sum(CHANGES), *CHANGES], (name, crash)


@matrices(SHORTER)
async def test_send_locked(ann: Wallet, ben: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    for number, (name, crash) in enumerate(matrix):
        await ann.fund(16)
        before = await ann.worth()
        lock = soon()

        async def start(purse: Purse, n: int = number, lock: tuple[str, int] = lock) -> Outcome:
            return await purse.send_out(f"s{n}", ann.mint, "sat", 9, lock=lock)

        outcome = await survive(ann, faulty, start, FAULTS[name], crash)
        assert outcome.token is not None, (name, crash)
        assert outcome.token.amount == 9
        assert await proofs_unspent(ann, outcome.token)
        assert await counted(ann) == before - 9 - outcome.fee, (name, crash)
        plan = await ben.purse.plan_receive(
            f"r{number}", outcome.token, ladder=False, owner="", unlock=unlock
        )
        await ben.store.commit(*plan.writes)
        assert (await ben.purse.run(f"r{number}")).net == 8, (name, crash)


@matrices(SHORTER)
async def test_reclaim_by_release(ann: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    await ann.fund(1024)
    for number, (name, crash) in enumerate(matrix):
        token = await ann.purse.send(f"s{number}", ann.mint, "sat", 10, lock=soon())
        before = await ann.worth()
        faulty.faults = list(FAULTS[name])
        for store in (CrashingStore(ann.store, before=crash[0], after=crash[1]), *[None] * 5):
            purse = ann.again(store)
            with suppress(Crash):
                for op_id, _ in await purse.pending():
                    await purse.run(op_id)
                if await purse.token_of(f"s{number}") is not None:
                    with suppress(OutcomeUnknown):
                        await purse.reclaim(f"s{number}", unlock=unlock)
        faulty.faults = []
        assert await ann.purse.pending() == [], (name, crash)
        assert not await proofs_unspent(ann, token)
        assert await counted(ann) == before + 9, (name, crash)


@pytest.mark.parametrize("way", ["signatures", "restore"])
@matrices(SHORTER)
async def test_ladder(
    ann: Wallet, ben: Wallet, faulty: FaultyMint, matrix: Matrix, way: str
) -> None:
    await ann.fund(2048)
    for number, (name, crash) in enumerate(matrix):
        paid = await pays(ann, str(number))
        outcome = await settle(ben.purse, f"s{number}", ben.mint, [paid.part("order", 11)])
        handed = {row.output.B_: row.signature for row in outcome.signed}
        before = await ann.worth()

        async def start(
            purse: Purse, n: int = number, handed: dict[str, BlindSignature] = handed
        ) -> Outcome:
            if way == "signatures":
                return await purse.take_signed(f"change-{n}", handed)
            return await purse.run(f"change-{n}")

        outcome = await survive(ann, faulty, start, FAULTS[name], crash)
        assert (outcome.state, outcome.amount) == ("DONE", 11), (name, crash)
        assert await counted(ann) == before + 11, (name, crash)


async def two(ann: Wallet, eve: Wallet) -> list[Part]:
    """What two payers locked, with the outputs for their change."""
    parts = []
    for number, (payer, change) in enumerate(zip((ann, eve), CHANGES, strict=True)):
        await payer.fund(32)
        parts.append((await pays(payer, "x")).part(f"order {number}", change))
    return parts


async def test_a_no_without_a_reason_is_taken_after_three(
    ann: Wallet, ben: Wallet, eve: Wallet, faulty: FaultyMint
) -> None:
    parts = await two(ann, eve)
    calls = len(faulty.calls)
    faulty.says["/v1/swap"] = NO_REASON
    outcome = await settle(ben.purse, "both", ben.mint, parts)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-mint-unreachable")
    bodies = {body for path, body in faulty.calls[calls:] if path == "/v1/swap"}
    assert len(bodies) == 1
    faulty.says.clear()
    for part, change in zip(parts, CHANGES, strict=True):
        alone = await settle(ben.purse, part.owner, ben.mint, [part])
        assert (alone.state, alone.net) == ("DONE", IN - FEE - change)
    assert await counted(ben) == 2 * (IN - FEE) - sum(CHANGES)
    for payer, change in zip((ann, eve), CHANGES, strict=True):
        assert (await payer.purse.run("change-x")).amount == change


async def test_a_no_without_a_reason_is_not_taken_while_a_request_may_land(
    ann: Wallet, ben: Wallet, eve: Wallet, faulty: FaultyMint
) -> None:
    """One that was lost on its way could be done after its coins went into another swap."""
    parts = await two(ann, eve)
    faulty.faults = ["refuse"]
    faulty.says["/v1/swap"] = NO_REASON
    patient = Purse(
        ben.store, ben.mints, ben.again()._till.clock, ben.seed, pace=Pace(6, 0.01, 0.02)
    )
    assert (await settle(patient, "both", ben.mint, parts)).state == "PREPARED"
    assert (await patient.run("both")).state == "PREPARED"


async def test_nor_does_it_wait_for_ever(
    ann: Wallet, ben: Wallet, eve: Wallet, faulty: FaultyMint
) -> None:
    """After a restart, and when nothing can be under way any more, three are enough again."""
    parts = await two(ann, eve)
    faulty.faults = ["refuse"]
    faulty.says["/v1/swap"] = NO_REASON
    state = (await settle(ben.again(), "both", ben.mint, parts)).state
    purse = ben.again()
    for _ in range(20):
        if state != "PREPARED":
            break
        state = (await purse.run("both")).state
    assert state == "REJECTED"
    faulty.says.clear()
    for part in parts:
        assert (await settle(ben.purse, part.owner, ben.mint, [part])).state == "DONE"


async def test_coins_that_somebody_else_spent_end_a_settle(
    ann: Wallet, ben: Wallet, eve: Wallet, faulty: FaultyMint
) -> None:
    """Whoever has the key as well took one payer's coins: the other's part is whole."""
    stolen, good = await two(ann, eve)
    bare = replace(stolen, outputs=())
    assert (await settle(eve.purse, "theft", eve.mint, [bare])).state == "DONE"
    outcome = await settle(ben.purse, "both", ben.mint, [stolen, good])
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")
    alone = await settle(ben.purse, "stolen", ben.mint, [stolen])
    assert (alone.state, alone.code) == ("REJECTED", "payment-token-spent")
    assert (await settle(ben.purse, "good", ben.mint, [good])).net == IN - FEE - CHANGES[1]
    assert (await ann.purse.run("change-x")).state == "PREPARED"


@pytest.mark.parametrize("faults", [[], ["lost"]])
async def test_one_bad_signature_spoils_one_output(
    ann: Wallet, ben: Wallet, eve: Wallet, faulty: FaultyMint, faults: list[str]
) -> None:
    """Of a swap of many payers: what the mint signed well is kept, whosever it is."""
    count, spoiled = 1, 0
    while spoiled < count:
        paid = []
        for payer in (ann, eve):
            await payer.fund(32)
            paid.append(await pays(payer, str(spoiled)))
        parts = [
            one.part(f"order {n}", change)
            for n, (one, change) in enumerate(zip(paid, CHANGES, strict=True))
        ]
        plan = await ben.purse.plan_settle(f"settle-{spoiled}", ben.mint, "sat", parts)
        await ben.store.commit(*plan.writes)

        def spoil(body: Any, which: int = spoiled) -> Any:
            if body["signatures"]:
                body["signatures"][which]["dleq"]["e"] = "11" * 32
            return body

        before = await counted(ben)
        faulty.changes, faulty.faults = {"/v1/swap": spoil, "/v1/restore": spoil}, list(faults)
        outcome = await ben.purse.run(plan.op_id)
        faulty.changes = {}
        assert (outcome.state, outcome.suspect) == ("REJECTED", True)
        kept = sum(proof.amount for proof in outcome.proofs)
        signed = sum(one.output.amount for one in outcome.signed)
        evidence = json.loads(outcome.note)
        assert outcome.amount - kept == evidence["lost"]
        assert (evidence["lost"] == 0) != (signed == sum(CHANGES))
        assert len(evidence["bad"]) == 1
        assert await counted(ben) - before == kept
        assert await ben.again().run(plan.op_id) == outcome
        spoiled, count = spoiled + 1, len(outcome.proofs) + len(outcome.signed) + 1


async def test_one_bad_signature_spoils_one_rung(
    ann: Wallet, ben: Wallet, faulty: FaultyMint
) -> None:
    await ann.fund(32)
    paid = await pays(ann, "0")
    [change, _] = CHANGES
    done = await settle(ben.purse, "settle", ben.mint, [paid.part("order", change)])
    assert done.state == "DONE"

    def spoil(body: Any) -> Any:
        body["signatures"][0]["dleq"]["e"] = "11" * 32
        return body

    faulty.changes = {"/v1/restore": spoil}
    found = await ann.purse.run("change-0")
    assert (found.state, found.suspect) == ("REJECTED", True)
    assert 0 < found.amount < change
    assert found.amount == sum(proof.amount for proof in found.proofs)
    assert await ann.purse.run("change-0") == found
