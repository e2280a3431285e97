"""Money under faults: every operation × what goes wrong with the mint × where the process dies.

Whatever happens, after a restart the operation ends once, its sum is right to the unit, every coin
we count is one the mint would take, and doing it again changes nothing.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.mint_cashu import CashuMint
from nostrllm.devnet.children import Child
from nostrllm.errors import OutcomeUnknown
from nostrllm.ports import Write
from nostrllm.purse import Outcome, Purse
from nostrllm.wire.token import Token
from tests.faultymint import FaultyMint
from tests.purse.world import Crash, CrashingStore, Wallet, proofs_unspent, wallet

FAULTS = {
    "none": [],
    "refused": ["refuse"],
    "lost": ["lost"],
    "lost, restore lost": ["lost", "lost"],
    "lost, refused thrice": ["lost", "refuse", "refuse", "refuse"],
    "garbage": ["garbage"],
    "500 after": ["500 after"],
    "code 0 after": ["code 0"],
    "503": ["503", "429"],
    "mixture": ["lost", "503", "", "lost", "garbage", "refuse"],
}
#: (before, after): which commit the process dies at; (0, 0) is no crash.
CRASHES = [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (3, 0), (0, 3)]

Start = Callable[[Purse], Awaitable[Outcome]]
Matrix = list[tuple[str, tuple[int, int]]]

FULL = list(itertools.product(FAULTS, CRASHES))
SHORT = list(itertools.product(("none", "lost, restore lost"), CRASHES))
SHORT += [(name, (0, 0)) for name in FAULTS]
SHORTER = [("lost, restore lost", crash) for crash in CRASHES]
SHORTER += [("none", (0, 0)), ("503", (3, 0))]


def matrices(short: Matrix) -> pytest.MarkDecorator:
    full = pytest.param(FULL, id="full", marks=pytest.mark.nightly)
    return pytest.mark.parametrize("matrix", [pytest.param(short, id="short"), full])


async def survive(
    who: Wallet, faulty: FaultyMint, start: Start, faults: list[str], crash: tuple[int, int]
) -> Outcome:
    """Start it, let it fail and die as told, restart until it has ended, and do it once more."""
    faulty.faults = list(faults)
    outcome: Outcome | None = None
    with suppress(Crash):
        outcome = await start(who.again(CrashingStore(who.store, before=crash[0], after=crash[1])))
    for _ in range(5):
        if outcome is not None and outcome.state != "PREPARED":
            break
        for op_id, _kind in await who.again().pending():
            await who.again().run(op_id)
        outcome = await start(who.again())
    faulty.faults = []
    assert outcome is not None
    worth = await who.worth()
    assert await start(who.again()) == outcome
    assert await who.worth() == worth
    assert await who.purse.pending() == []
    return outcome


async def counted(who: Wallet) -> int:
    """What we count as ours, after the mint has confirmed every coin of it."""
    rows = await who.store.read("proof_free", mint=who.mint, unit="sat")
    states = await who.mints.at(who.mint).states([row["y"] for row in rows])
    assert set(states) <= {"UNSPENT"}
    return sum(int(row["amount"]) for row in rows)


@matrices(SHORT)
async def test_receive(ann: Wallet, ben: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    await ann.fund(2048)
    for number, (name, crash) in enumerate(matrix):
        token = await ann.purse.send(f"s{number}", ann.mint, "sat", 12)
        before = await ben.worth()

        async def start(purse: Purse, n: int = number, token: Token = token) -> Outcome:
            return await purse.receive(f"r{n}", token)

        outcome = await survive(ben, faulty, start, FAULTS[name], crash)
        assert (outcome.state, outcome.net) == ("DONE", 11), (name, crash)
        assert await counted(ben) == before + 11, (name, crash)


@matrices(SHORTER)
async def test_send(ann: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    for number, (name, crash) in enumerate(matrix):
        await ann.fund(16)
        before = await ann.worth()

        async def start(purse: Purse, n: int = number) -> Outcome:
            return await purse.send_out(f"s{n}", ann.mint, "sat", 9)

        outcome = await survive(ann, faulty, start, FAULTS[name], crash)
        assert outcome.token is not None, (name, crash)
        assert outcome.token.amount == 9
        assert await proofs_unspent(ann, outcome.token)
        assert await counted(ann) == before - 9 - outcome.fee, (name, crash)


@matrices(SHORTER)
async def test_reclaim(ann: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    await ann.fund(1024)
    for number, (name, crash) in enumerate(matrix):
        token = await ann.purse.send(f"s{number}", ann.mint, "sat", 10)
        before = await ann.worth()
        faulty.faults = list(FAULTS[name])
        for store in (CrashingStore(ann.store, before=crash[0], after=crash[1]), *[None] * 5):
            purse = ann.again(store)
            with suppress(Crash):
                for op_id, _ in await purse.pending():
                    await purse.run(op_id)
                if await purse.token_of(f"s{number}") is not None:
                    await reclaim(purse, f"s{number}")
        faulty.faults = []
        assert await ann.purse.pending() == [], (name, crash)
        assert not await proofs_unspent(ann, token)
        assert await counted(ann) == before + 9, (name, crash)


async def reclaim(purse: Purse, op_id: str) -> None:
    with suppress(OutcomeUnknown):  # the question which coins are left may be lost as well
        await purse.reclaim(op_id)


@matrices(SHORTER)
async def test_issue(ann: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    for name, crash in matrix:
        before = await ann.worth()
        quote = await ann.purse.fund(ann.mint, 6)
        while (await ann.mints.at(ann.mint).mint_quote(quote.quote)).state != "PAID":
            continue

        async def start(purse: Purse, key: str = quote.quote) -> Outcome:
            return await purse.claim_quote(key)

        outcome = await survive(ann, faulty, start, FAULTS[name], crash)
        assert (outcome.state, outcome.net) == ("DONE", 6), (name, crash)
        assert await counted(ann) == before + 6, (name, crash)


async def a_token(ann: Wallet, amount: int = 12) -> Token:
    await ann.fund(amount)
    return await ann.purse.send(f"t{amount}", ann.mint, "sat", amount)


async def test_the_end_and_the_callers_rows_go_together(
    ann: Wallet, ben: Wallet, faulty: FaultyMint
) -> None:
    token = await a_token(ann)
    plan = await ben.purse.plan_receive("r", token, ladder=True, owner="r", proof_state="held")
    await ben.store.commit(*plan.writes)

    def then(outcome: Outcome) -> list[Write]:
        return [Write("claim_insert", {"mint": "note", "y": outcome.state, "owner": "o"})]

    for before, after in ((1, 0), (0, 1)):
        with suppress(Crash):
            await ben.again(CrashingStore(ben.store, before=before, after=after)).run("r", then)
        rows = await ben.store.read("claim_owner", mint="note", y="DONE")
        assert len(rows) == after == bool(await ben.purse.held("r"))
    assert (await ben.purse.run("r", then)).state == "DONE"


async def test_a_mint_that_is_down_for_long(ann: Wallet, ben: Wallet, faulty: FaultyMint) -> None:
    token = await a_token(ann)
    await ann.fund(8)
    faulty.faults = ["503"] * 50
    outcome = await ben.purse.receive("r", token)
    assert (outcome.state, outcome.proofs) == ("PREPARED", ())
    assert await ben.purse.pending() == [("r", "receive")]
    with pytest.raises(OutcomeUnknown):
        await ann.purse.send("s", ann.mint, "sat", 3)
    faulty.faults = []
    assert (await ben.purse.run("r")).state == "DONE"
    assert await counted(ben) == 11
    assert (await ann.purse.send("s", ann.mint, "sat", 3)).amount == 3


async def test_pending_coins_are_waited_for(ann: Wallet, ben: Wallet, faulty: FaultyMint) -> None:
    token = await a_token(ann)

    def pending(body: Any) -> Any:
        return {"states": [row | {"state": "PENDING"} for row in body["states"]]}

    faulty.changes["/v1/checkstate"] = pending
    faulty.faults = ["refuse"]
    assert (await ben.purse.receive("r", token)).state == "PREPARED"
    swaps = [path for path, _ in faulty.calls if path == "/v1/swap"]
    faulty.changes.clear()
    assert (await ben.purse.run("r")).state == "DONE"
    assert len([path for path, _ in faulty.calls if path == "/v1/swap"]) == len(swaps) + 1


async def test_the_same_bytes_are_sent_again(ann: Wallet, ben: Wallet, faulty: FaultyMint) -> None:
    token = await a_token(ann)
    faulty.faults = ["503", "", "", "503"]
    calls = len(faulty.calls)
    assert (await ben.purse.receive("r", token)).state == "DONE"
    swaps = [body for path, body in faulty.calls[calls:] if path == "/v1/swap"]
    assert len(swaps) > 1
    assert len(set(swaps)) == 1


async def test_one_refusal_is_enough_if_nothing_else_is_under_way(
    ann: Wallet, ben: Wallet, faulty: FaultyMint
) -> None:
    token = await a_token(ann)
    faulty.faults = ["400 11005"]
    outcome = await ben.purse.receive("r", token)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-invalid")


@pytest.mark.parametrize(("refusals", "state"), [(1, "DONE"), (2, "REJECTED")])
async def test_two_refusals_are_needed_after_a_lost_request(
    ann: Wallet, ben: Wallet, faulty: FaultyMint, refusals: int, state: str
) -> None:
    token = await a_token(ann)
    asked = ["", ""]  # restore, checkstate
    faulty.faults = ["refuse", *asked, "400 11005", *asked]
    faulty.faults += [*asked, "400 11005", *asked] * (refusals - 1)
    assert (await ben.purse.receive("r", token)).state == state


async def test_a_refused_send_gives_the_coins_back(ann: Wallet, faulty: FaultyMint) -> None:
    await ann.fund(16)
    faulty.faults = ["400 11005"]
    outcome = await ann.purse.send_out("s", ann.mint, "sat", 9)
    assert (outcome.state, outcome.token) == ("REJECTED", None)
    assert await counted(ann) == 16
    assert (await ann.purse.send("s2", ann.mint, "sat", 9)).amount == 9


async def test_a_refused_reclaim_leaves_the_token(ann: Wallet, faulty: FaultyMint) -> None:
    token = await a_token(ann)
    faulty.faults = ["", "400 11005"]
    assert (await ann.purse.reclaim("t12")).state == "REJECTED"
    assert await ann.purse.token_of("t12") == token
    assert (await ann.purse.reclaim("t12")).state == "DONE"


async def test_a_passing_refusal_is_tried_again(
    ann: Wallet, ben: Wallet, faulty: FaultyMint
) -> None:
    token = await a_token(ann)
    faulty.faults = ["400 11002"]
    assert (await ben.purse.receive("r", token)).state == "DONE"


async def test_a_refusal_is_final_once_the_keysets_were_asked_for_after_it(
    ann: Wallet, ben: Wallet, faulty: FaultyMint
) -> None:
    """Our outputs may be of a keyset that is gone since we last asked, whatever the mint says."""
    token = await a_token(ann)
    plan = await ben.purse.plan_receive("r", token, ladder=False, owner="")
    await ben.store.commit(*plan.writes)
    mint = ben.purse._till.mints.at(ben.mint)
    assert isinstance(mint, CashuMint)
    mint._limits = replace(mint._limits, refresh_wait_s=0.5)
    await mint.keysets(refresh=True)
    faulty.faults = ["400 11000"]
    calls = len(faulty.calls)
    assert (await ben.purse.run("r")).state == "REJECTED"
    paths = [path for path, _ in faulty.calls[calls:]]
    assert "/v1/keysets" in paths[paths.index("/v1/swap") :]


def rotate(mint: Child) -> None:
    """Restart the mint with a new sat keyset, the old one inactive."""
    mint.kill()
    with sqlite3.connect(mint.part.folder / "database" / "mint.sqlite3") as database:
        database.execute("UPDATE keysets SET active = 0 WHERE derivation_path = ?", ("m/0'/0'/0'",))
    database.close()
    path = {"MINT_DERIVATION_PATH": "m/0'/0'/1'"}
    mint.part = replace(mint.part, environment={**mint.part.environment, **path})
    mint.start()


async def test_a_mint_killed_and_back_with_another_keyset(
    mint_process: Child, tmp_path: Path
) -> None:
    async with wallet(tmp_path, mint_process.url) as ann, wallet(tmp_path, ann.mint) as ben:
        token = await a_token(ann)
        plan = await ben.purse.plan_receive("r", token, ladder=False, owner="")
        await ben.store.commit(*plan.writes)
        mint_process.kill()
        assert (await ben.purse.run("r")).state == "PREPARED"
        rotate(mint_process)
        outcome = await ben.purse.run("r")
        assert outcome.state == "DONE", outcome
        assert {proof.id for proof in outcome.proofs} != {proof.id for proof in token.proofs}
        assert await counted(ben) == 11


async def test_half_spent_inputs_are_refused(ann: Wallet, ben: Wallet, tmp_path: Path) -> None:
    token = await a_token(ann)
    assert (
        await ben.purse.receive("half", replace(token, proofs=token.proofs[:1]))
    ).state == "DONE"
    async with wallet(tmp_path, ben.mint) as other:
        outcome = await other.purse.receive("r", token)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")


async def test_old_counters_of_a_restored_backup(ann: Wallet, ben: Wallet, tmp_path: Path) -> None:
    """The seed's numbers were used in a past the store does not know."""
    await ben.purse.receive("past", await a_token(ann, 40))
    token = await a_token(ann, 12)
    async with wallet(tmp_path, ben.mint, seed=ben.seed) as restored:
        outcome = await restored.purse.receive("r", token)
        assert (outcome.state, outcome.net) == ("DONE", 11)
        found = await counted(restored) - 11
        assert found > 0
        assert await restored.purse.scan(ben.mint, empty_max=500) == 39 - found
        assert await counted(restored) == 39 + 11


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("faults", [[], ["lost"]])
async def test_signatures_that_do_not_verify_are_no_money(
    ann: Wallet, ben: Wallet, faulty: FaultyMint, missing: bool, faults: list[str]
) -> None:
    def spoil(body: Any) -> Any:
        first = body["signatures"][0]
        first["dleq"] = None if missing else first["dleq"] | {"e": "11" * 32}
        return body

    token = await a_token(ann)
    faulty.changes = {"/v1/swap": spoil, "/v1/restore": spoil_if_any(spoil)}
    if faults:
        faulty.changes.pop("/v1/swap")
    faulty.faults = list(faults)
    outcome = await ben.purse.receive("r", token)
    assert (outcome.state, outcome.suspect, outcome.proofs) == ("REJECTED", True, ())
    assert await ben.worth() == 0
    assert [row["state"] for row in await ben.purse.history()] == ["SUSPECT"]
    assert '"C_"' in outcome.note
    faulty.changes.clear()
    assert await ben.purse.receive("r", token) == outcome


def spoil_if_any(spoil: Any) -> Any:
    return lambda body: spoil(body) if body["signatures"] else body


async def test_watching_a_mint_that_is_away(ann: Wallet, faulty: FaultyMint) -> None:
    await a_token(ann)
    faulty.faults = ["503"]
    assert await ann.purse.watch_sent() == []


def saying(state: str) -> Any:
    return lambda body: body | {"state": state}


async def test_a_quote_that_is_not_paid_yet(ann: Wallet, faulty: FaultyMint) -> None:
    quote = await ann.purse.fund(ann.mint, 4)
    path = f"/v1/mint/quote/bolt11/{quote.quote}"
    faulty.changes[path] = saying("UNPAID")
    outcome = await ann.purse.claim_quote(quote.quote, wait_s=0.25)
    assert (outcome.state, outcome.code) == ("PREPARED", "payment-pending")
    assert await ann.purse.pending() == []
    faulty.changes[path] = saying("ISSUED")
    outcome = await ann.purse.claim_quote(quote.quote)
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")
    faulty.changes.clear()
    assert (await ann.purse.claim_quote(quote.quote, wait_s=10)).state == "DONE"
    assert await counted(ann) == 4


async def test_a_scan_keeps_no_coin_that_does_not_verify(
    ann: Wallet, faulty: FaultyMint, tmp_path: Path
) -> None:
    def spoil(body: Any) -> Any:
        for signature in body["signatures"][:1]:
            signature["dleq"] = None
        return body

    await ann.fund(3)
    faulty.changes["/v1/restore"] = spoil
    async with wallet(tmp_path, ann.mint, seed=ann.seed) as fresh:
        assert await fresh.purse.scan(ann.mint, empty_max=100) == 2
