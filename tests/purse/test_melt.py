"""Lightning paid with coins, while mint and process fail: an invoice is paid once or not at all."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.clock import SystemClock
from nostrllm.devnet.children import Child, Part, mint_part, start
from nostrllm.errors import LocalError, OutcomeUnknown, RemoteError
from nostrllm.ports import MeltQuote, Write
from nostrllm.purse import Outcome, Purse
from nostrllm.purse.melt import blanks
from tests.faultproxy import FaultProxy
from tests.faultymint import FaultyMint
from tests.invoices import invoice
from tests.purse.test_faults import (
    CRASHES,
    FAULTS,
    Matrix,
    counted,
    matrices,
    survive,
)
from tests.purse.world import PACE, Crash, CrashingStore, Wallet, wallet

SHORT = [("lost, restore lost", crash) for crash in CRASHES]
SHORT += [("none", crash) for crash in ((0, 0), (2, 0), (0, 2))]
SHORT += [(name, (0, 0)) for name in ("garbage", "500 after", "code 0 after", "503", "mixture")]

MELT = "/v1/melt/bolt11"


@pytest.fixture
async def faulty(mint_url: str) -> AsyncIterator[FaultyMint]:
    async with FaultyMint(mint_url) as faulty:
        yield faulty


@pytest.fixture
async def ann(tmp_path: Path, faulty: FaultyMint) -> AsyncIterator[Wallet]:
    async with wallet(tmp_path, faulty.url) as ann:
        yield ann


async def asked(who: Wallet, amount: int = 5) -> MeltQuote:
    return await who.purse.quote_melt(who.mint, "sat", invoice(amount * 1_000))


def melts(faulty: FaultyMint) -> list[bytes]:
    return [body for path, body in faulty.calls if path == MELT]


@matrices(SHORT)
async def test_paid_once_whatever_fails(ann: Wallet, faulty: FaultyMint, matrix: Matrix) -> None:
    await ann.fund(1024)
    for number, (name, crash) in enumerate(matrix):
        before, quote = await ann.worth(), await asked(ann)

        async def start(purse: Purse, n: int = number, quote: MeltQuote = quote) -> Outcome:
            return await purse.melt(f"m{n}", ann.mint, quote)

        outcome = await survive(ann, faulty, start, FAULTS[name], crash)
        assert (outcome.state, outcome.amount) == ("DONE", 5), (name, crash)
        assert outcome.fee == 2, (name, crash)  # 1 for the network, 1 for the coins
        assert await counted(ann) == before - 7, (name, crash)


async def test_the_change_comes_back_whatever_coins_there_are(
    ann: Wallet, faulty: FaultyMint
) -> None:
    await ann.fund(512)
    quote = await asked(ann, 3)
    assert (quote.amount, quote.fee_reserve) == (3, 2)
    outcome = await ann.purse.melt("m", ann.mint, quote)
    assert (outcome.state, outcome.amount, outcome.fee) == ("DONE", 3, 2)
    body = json.loads(melts(faulty)[0])
    assert [coin["amount"] for coin in body["inputs"]] == [512]
    assert len(body["outputs"]) == blanks(511 - 3) == 9
    assert await counted(ann) == 512 - 5
    # coins that pay it and their own fee to the unit go first
    outcome = await ann.purse.melt("n", ann.mint, await asked(ann, 5))
    put_in = sum(coin["amount"] for coin in json.loads(melts(faulty)[1])["inputs"])
    assert (put_in, outcome.fee) == (5 + 2 + 1, 2)


def test_blank_outputs() -> None:
    """The table of NUT-08, whose example has 10 for a reserve of 1,000."""
    assert [blanks(over) for over in (0, 1, 2, 3, 4, 5, 8, 9, 1_000)] == [
        1, 1, 1, 2, 2, 3, 3, 4, 10,
    ]  # fmt: skip
    for over, change in itertools.combinations(range(130), 2):
        assert min(over, change).bit_count() <= blanks(max(over, change))


async def test_msat(ann: Wallet) -> None:
    await ann.fund(40_000, "msat")
    quote = await ann.purse.quote_melt(ann.mint, "msat", invoice(1_234))
    assert (quote.amount, quote.fee_reserve) == (1_234, 2_000)
    outcome = await ann.purse.melt("m", ann.mint, quote)
    assert (outcome.state, outcome.amount, outcome.fee) == ("DONE", 1_234, 2)


async def test_half_a_coin_is_rounded_up(ann: Wallet) -> None:
    assert (await ann.purse.quote_melt(ann.mint, "sat", invoice(1_234))).amount == 2


async def test_what_cannot_be_paid(ann: Wallet, faulty: FaultyMint) -> None:
    for text in ("lnbc", invoice(None), invoice(5_000, expiry_s=60, age_s=61)):
        with pytest.raises(RemoteError) as caught:
            await ann.purse.quote_melt(ann.mint, "sat", text)
        assert caught.value.code == "payment-invoice-invalid"
    await ann.fund(8)
    with pytest.raises(LocalError) as poor:
        await ann.purse.melt("m", ann.mint, await asked(ann, 8))
    assert poor.value.code == "wallet-empty"
    assert (await ann.worth(), melts(faulty)) == (8, [])
    faulty.changes["/v1/melt/quote/bolt11"] = lambda body: body | {"amount": body["amount"] + 1}
    with pytest.raises(RemoteError) as lie:
        await asked(ann)
    assert lie.value.code == "payment-mint-unaccepted"


async def test_the_callers_rows_go_with_it(ann: Wallet, faulty: FaultyMint) -> None:
    await ann.fund(32)
    quote = await asked(ann)

    def note(y: str) -> Write:
        return Write("claim_insert", {"mint": "note", "y": y, "owner": "o"})

    with suppress(Crash):
        purse = ann.again(CrashingStore(ann.store, before=2))  # 1: counters
        await purse.place_melt("m", ann.mint, quote, lambda plan: [note("begun")])
    assert await ann.store.read("claim_owner", mint="note", y="begun") == []
    plan = await ann.purse.place_melt("m", ann.mint, quote, lambda plan: [note("begun")])
    assert (plan.amount, plan.fee, plan.net) == (5, 3, 5)
    assert await ann.worth() + 8 <= 32
    with suppress(Crash):
        await ann.again(CrashingStore(ann.store, before=1)).run("m", lambda end: [note(end.state)])
    assert await ann.store.read("claim_owner", mint="note", y="DONE") == []
    assert (await ann.purse.run("m", lambda end: [note(end.state)])).state == "DONE"
    assert len(await ann.store.read("claim_owner", mint="note", y="DONE")) == 1
    assert await counted(ann) == 32 - 7


async def test_two_payments_never_share_a_coin(ann: Wallet) -> None:
    await ann.fund(127)
    quotes = [await asked(ann) for _ in range(6)]
    ends = await asyncio.gather(
        *(ann.purse.melt(f"m{n}", ann.mint, quote) for n, quote in enumerate(quotes)),
        return_exceptions=True,
    )
    done = [end for end in ends if isinstance(end, Outcome) and end.state == "DONE"]
    assert done
    assert await ann.purse.pending() == []
    assert await counted(ann) == 127 - sum(end.amount + end.fee for end in done)


# a definite no, and no answer


SETTLED = {"FAKEWALLET_PAY_INVOICE_STATE": "SETTLED", "FAKEWALLET_PAYMENT_STATE": "SETTLED"}
FAILED = {"FAKEWALLET_PAY_INVOICE_STATE": "FAILED", "FAKEWALLET_PAYMENT_STATE": "FAILED"}
PENDING = {"FAKEWALLET_PAY_INVOICE_STATE": "PENDING", "FAKEWALLET_PAYMENT_STATE": "PENDING"}


def paying(part: Part, **settings: str) -> Part:
    """A mint whose Lightning node behaves so."""
    return replace(part, environment={**part.environment, **settings})


@asynccontextmanager
async def at_own_mint(folder: Path, **settings: str) -> AsyncIterator[tuple[Wallet, Child]]:
    """Somebody with 32 sat at a mint of his own, to kill and start again."""
    with start(paying(mint_part(folder / "mint"), **settings)) as mint:
        async with wallet(folder, mint.url) as ann:
            await ann.fund(32)
            yield ann, mint


async def came_to(who: Wallet, quote: MeltQuote, *states: str) -> None:
    """Wait until the mint says that a payment is in one of these states."""
    mint = who.mints.at(who.mint)
    for _ in range(1_000):
        with suppress(OutcomeUnknown):
            if (await mint.melt_quote(quote.quote)).state in states:
                return
        await asyncio.sleep(0.02)
    raise AssertionError


async def test_a_payment_that_fails_gives_the_coins_back(tmp_path: Path) -> None:
    async with at_own_mint(tmp_path, **FAILED) as (ann, _):
        for _ in range(2):
            outcome = await ann.purse.melt("m", ann.mint, await asked(ann))
            assert (outcome.state, outcome.code) == ("REJECTED", "payment-lightning-failed")
            assert await counted(ann) == 32


async def test_a_payment_on_its_way_is_waited_for(tmp_path: Path) -> None:
    """The node says PENDING; then the mint dies, and finds at its start that it was paid."""
    async with at_own_mint(tmp_path, **PENDING) as (ann, mint):
        outcome = await ann.purse.melt("m", ann.mint, await asked(ann))
        assert outcome.state == "PREPARED"
        assert (await ann.again().run("m")).state == "PREPARED"
        reserved = await ann.store.read("proof_of_owner", owner="m", state="reserved")
        assert sum(int(row["amount"]) for row in reserved) >= 8
        mint.kill()
        assert (await ann.again().run("m")).state == "PREPARED"
        mint.part = paying(mint.part, **SETTLED)
        mint.start()
        outcome = await ann.again().run("m")
        assert (outcome.state, outcome.amount) == ("DONE", 5)
        assert await counted(ann) == 32 - 5 - outcome.fee


async def test_a_mint_killed_while_it_pays(tmp_path: Path) -> None:
    slow = {"FAKEWALLET_DELAY_OUTGOING_PAYMENT": "30"}
    async with at_own_mint(tmp_path, **slow) as (ann, mint):
        quote = await asked(ann)
        running = asyncio.create_task(ann.purse.melt("m", ann.mint, quote))
        await came_to(ann, quote, "PENDING", "PAID")
        mint.kill()
        assert (await running).state == "PREPARED"
        mint.start()
        outcome = await ann.again().run("m")
        assert outcome.state == "DONE"
        assert await counted(ann) == 32 - 5 - outcome.fee


@pytest.mark.parametrize("fault", ["refuse", "503", "lost"])
async def test_unpaid_is_not_final_while_a_request_may_arrive(
    ann: Wallet, faulty: FaultyMint, fault: str
) -> None:
    """The first request is lost from sight; later ones are refused, but the first may come."""
    await ann.fund(32)
    quote = await asked(ann)
    path = f"/v1/melt/quote/bolt11/{quote.quote}"
    if fault == "lost":  # as if it were still on its way
        faulty.changes = {
            path: lambda body: body | {"state": "UNPAID"},
            "/v1/checkstate": lambda body: {
                "states": [row | {"state": "UNSPENT"} for row in body["states"]]
            },
            "/v1/restore": lambda body: {"outputs": [], "signatures": []},
        }
    clock = LateClock()
    pace = replace(PACE, lands_s=600, tries=1)
    purse = Purse(ann.store, ann.mints, clock, ann.seed, pace=pace)
    faulty.faults = [fault]
    assert (await purse.melt("m", ann.mint, quote)).state == "PREPARED"
    faulty.says[MELT] = (400, '{"detail": "no", "code": 20004}')
    for _ in range(3):
        assert (await purse.run("m")).state == "PREPARED"
    if fault == "lost":  # it came, long after
        faulty.changes.clear()
        assert (await purse.run("m")).state == "DONE"
        assert await counted(ann) == 32 - 7
        return
    clock.late_s = 601
    outcome = await purse.run("m")
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-lightning-failed")
    assert await counted(ann) == 32


class LateClock(SystemClock):
    """A clock that can be set forward."""

    late_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.late_s


async def test_after_a_restart_a_refusal_waits_too(ann: Wallet, faulty: FaultyMint) -> None:
    await ann.fund(32)
    with suppress(Crash):
        await ann.again(CrashingStore(ann.store, after=2)).melt("m", ann.mint, await asked(ann))
    faulty.faults = ["", "", "400 20004"] * 40
    slow = Purse(ann.store, ann.mints, SystemClock(), ann.seed, pace=replace(PACE, lands_s=600))
    assert (await slow.run("m")).state == "PREPARED"
    faulty.faults = []
    assert (await slow.run("m")).state == "DONE"


async def test_a_stalled_line(mint_url: str, tmp_path: Path) -> None:
    """The mint pays, and its answer never comes through."""
    async with FaultProxy(mint_url) as proxy, wallet(tmp_path, proxy.url) as ann:
        await ann.fund(32)
        quote = await asked(ann)
        plan = await ann.purse.place_melt("m", ann.mint, quote, lambda plan: ())
        assert plan.op_id == "m"
        proxy.swallow_down = True
        running = asyncio.create_task(ann.purse.run("m"))
        async with wallet(tmp_path, mint_url) as other:
            await came_to(other, quote, "PAID")
        proxy.cut()
        proxy.swallow_down = False
        outcome = await running
        assert outcome.state == "DONE"
        assert await counted(ann) == 32 - 5 - outcome.fee


async def test_the_coins_went_elsewhere(ann: Wallet, faulty: FaultyMint, tmp_path: Path) -> None:
    """A copy of the same wallet spent them: the melt is refused, and what is left is free again."""
    await ann.fund(7)
    quote = await asked(ann, 4)
    await ann.purse.place_melt("m", ann.mint, quote, lambda plan: ())
    rows = await ann.store.read("proof_of_owner", owner="m", state="reserved")
    from nostrllm.purse.operation import proof_of
    from nostrllm.wire.token import Token

    async with wallet(tmp_path, ann.mint) as ben:
        token = Token(ann.mint, "sat", (proof_of(rows[0]),))
        assert (await ben.purse.receive("r", token)).state == "DONE"
    outcome = await ann.purse.run("m")
    assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")
    assert await counted(ann) == 7 - int(rows[0]["amount"])


async def test_a_quote_that_others_paid_is_left_alone(
    ann: Wallet, faulty: FaultyMint, tmp_path: Path
) -> None:
    await ann.fund(32)
    quote = await asked(ann)
    async with wallet(tmp_path, ann.mint) as ben:
        await ben.fund(32)
        assert (await ben.purse.melt("m", ben.mint, quote)).state == "DONE"
    assert (await ann.purse.melt("m", ann.mint, quote)).state == "PREPARED"
    assert [kind for _, kind in await ann.purse.pending()] == ["melt"]


# change


@pytest.mark.parametrize("where", [MELT, "/v1/restore", "both"])
async def test_change_that_does_not_verify_never_undoes_the_payment(
    ann: Wallet, faulty: FaultyMint, where: str
) -> None:
    def spoil(body: Any) -> Any:
        for signature in body.get("change") or body.get("signatures") or ():
            signature["dleq"] = None
        return body

    await ann.fund(32)
    quote = await asked(ann)
    paths = (MELT, "/v1/restore") if where == "both" else (where,)
    faulty.changes = dict.fromkeys(paths, spoil)
    outcome = await ann.purse.melt("m", ann.mint, quote)
    assert (outcome.state, outcome.suspect) == ("DONE", False)
    if where == "both":  # the payment is done, its change is evidence and no money
        assert '"C_"' in outcome.note
        assert outcome.proofs == ()
    else:
        assert (outcome.fee, outcome.note) == (2, "")
    faulty.changes.clear()
    assert await counted(ann) == 32 - 5 - outcome.fee


async def test_a_mint_that_gives_no_change(ann: Wallet, faulty: FaultyMint) -> None:
    await ann.fund(32)
    quote = await asked(ann)
    faulty.changes[MELT] = lambda body: body | {"change": None}
    outcome = await ann.purse.melt("m", ann.mint, quote)
    assert outcome.state == "DONE"
    assert outcome.fee + 5 == 32 - await counted(ann)


async def test_old_counters_of_a_restored_backup(
    ann: Wallet, faulty: FaultyMint, tmp_path: Path
) -> None:
    """The numbers of the blank outputs were used in a past that the store does not know."""
    async with wallet(tmp_path, ann.mint) as past:
        await past.fund(32)
        async with wallet(tmp_path, ann.mint, seed=past.seed) as restored:
            token = await past.purse.send("t", past.mint, "sat", 20)
            async with wallet(tmp_path, ann.mint) as ben:
                await ben.purse.receive("r", token)
                gift = await ben.purse.send("s", ben.mint, "sat", 18)
            await restored.purse.receive("r", gift)
            before = await counted(restored)
            outcome = await restored.purse.melt("m", restored.mint, await asked(restored))
            assert outcome.state == "DONE"
            assert await counted(restored) >= before - 5 - outcome.fee
