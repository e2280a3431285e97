"""Locked tokens when the mint, the process or the clock fails: nothing is lost or settled twice."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import nprofile
from nostrllm.adapters.mint_cashu import CashuMint
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core import ledger
from nostrllm.devnet.children import Child
from nostrllm.ports import Filter
from nostrllm.provider import daemon as daemon_module
from nostrllm.provider import trial
from nostrllm.provider.daemon import Daemon
from nostrllm.provider.handout import chosen
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.payout import deposit
from nostrllm.provider.trial import Trials
from nostrllm.purse import Pace, Purse
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import opened
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_announcement
from nostrllm.wire.event import Rumor
from nostrllm.wire.token import parse_token
from tests.adapters.scripted import Wire, scripted
from tests.faultymint import FaultyMint
from tests.purse.test_faults import rotate
from tests.purse.test_faults_locked import NO_REASON
from tests.purse.world import wallet
from tests.roles.market import Buyer, Replies, Stall, buying, config_text
from tests.roles.test_provider_locked import (
    ORDER_S,
    WORTH,
    Market,
    Paid,
    comes_back,
    fails,
    signatures,
    until_tried,
)
from tests.roles.test_provider_orders import writes
from tests.roles.test_provider_requests_crash import DyingStore, Late
from tests.sim.life import Life
from tests.sim.mint import URL, SimMint
from tests.sim.mintline import MintLine, MintLines
from tests.sim.weather import Weather

AWAY = dict.fromkeys(("/v1/swap", "/v1/restore", "/v1/checkstate"), (503, "busy"))
PACE = Pace(tries=5, first_s=0.01, most_s=0.05)


@dataclass
class Running:
    """A provider with a clock and a store of the test's."""

    stall: Stall
    clock: Late
    store: DyingStore


@asynccontextmanager
async def running(text: str) -> AsyncIterator[Running]:
    """One life of the provider, which ends well unless its store has died."""
    config = ProviderConfig.model_validate(tomllib.loads(text))
    shop = config.shop("0.0.0")
    async with opened(config, shop) as (real, seed):
        store, clock = DyingStore(real.store), Late(real.clock, 0.0)
        purse = Purse(store, real.mints, clock, seed, pace=PACE)
        world = replace(real, store=store, purse=purse, clock=clock)
        daemon = Daemon(
            world, shop, seed=seed, nprofile=nprofile(world.identity.pubkey, shop.relays)
        )
        stop, ready = asyncio.Event(), asyncio.Event()

        async def announced() -> None:
            ready.set()

        task = asyncio.create_task(daemon.run(stop, announced))
        waiting = asyncio.create_task(ready.wait())
        try:
            async with asyncio.timeout(30):
                await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            yield Running(Stall(daemon, world, stop), clock, store)
        finally:
            waiting.cancel()
            stop.set()
            dying = asyncio.create_task(store.dead.wait())
            await asyncio.wait((task, dying), return_when=asyncio.FIRST_COMPLETED)
            dying.cancel()
            if store.dead.is_set():
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@dataclass
class Town:
    """A provider whose mint, which fails on demand, was tried; and a buyer with coins of it."""

    text: str
    faulty: FaultyMint
    buyer: Buyer
    key: str

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Market, Running]]:
        """One life of the provider, and the buyer in it."""
        async with running(self.text) as life:
            yield Market(life.stall, self.buyer, self.key), life


@asynccontextmanager
async def town(
    relay: str, mint: str, tmp: Path, engine: str, provider: str = ""
) -> AsyncIterator[Town]:
    async with (
        FaultyMint(mint) as faulty,
        buying(relay, faulty.url, tmp, amount=4_000) as buyer,
    ):
        text = config_text(tmp / "stall", [relay], faulty.url, engine, provider)
        async with running(text) as life:
            stall = life.stall
            await deposit(stall.world.purse, parse_token(await buyer.token(200)), stall.world.now_s)
            await until_tried(stall, faulty.url)
            wanted = Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(stall.pubkey,))
            [event] = await buyer.relays.fetch([wanted])
            key = parse_announcement(event).payment_key
        yield Town(text, faulty, buyer, key)


Script = Callable[[Wire], Any]
Towns = Callable[..., Any]


@pytest.fixture
async def towns(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Towns]:
    async with AsyncExitStack() as stack:

        async def make(script: Script = writes, provider: str = "", mint: str = "") -> Town:
            engine = await stack.enter_async_context(scripted(script))
            return await stack.enter_async_context(
                town(relay_url, mint or mint_url, tmp_path, engine.url, provider)
            )

        yield make


@dataclass
class Ear:
    """What came to a reply key: how orders ended, and the last word on the change of each."""

    replies: Replies
    ends: dict[str, wire.Result | wire.Refused] = field(default_factory=dict)
    change: dict[str, wire.Settled] = field(default_factory=dict)

    async def ended(self, *ids: str) -> wire.Result | wire.Refused:
        """Listen until these orders have ended; the end of the first."""
        while not self.ends.keys() >= set(ids):
            await self._next()
        return self.ends[ids[0]]

    async def told(self, order_id: str) -> wire.Settled:
        """Listen until there is word of an order's change."""
        while order_id not in self.change:
            await self._next()
        return self.change.pop(order_id)

    async def _next(self) -> None:
        message = await self.replies.next()
        if isinstance(message, wire.Result | wire.Refused):
            self.ends.setdefault(message.order, message)
        elif isinstance(message, wire.Settled):
            self.change[message.order] = message

    @property
    def credited(self) -> int:
        """What the results credited."""
        return sum(end.credit_msat for end in self.ends.values() if isinstance(end, wire.Result))


@asynccontextmanager
async def listening(buyer: Buyer) -> AsyncIterator[Ear]:
    async with buyer.listening() as replies:
        yield Ear(replies)


async def worth(buyer: Buyer) -> int:
    return sum((await buyer.purse.balance()).values())


async def account(stall: Stall, pubkey: str) -> int:
    return -(await stall.books()).get(ledger.account(pubkey), 0)


async def whole(it: Market, paid: Paid, end: wire.Result | wire.Refused) -> None:
    """The buyer has what he is owed: all of it released, or his change found at the mint."""
    before = await worth(it.buyer)
    if end.release is not None:
        assert await comes_back(it, paid, end.release) == WORTH - 1
        assert await worth(it.buyer) == before + WORTH - 1
        return
    assert isinstance(end, wire.Result)
    assert end.signed is not None
    rest = end.signed.amount * 1_000 + end.credit_msat
    assert end.cost_msat + end.fee_msat + rest == WORTH * 1_000
    for _ in range(2):
        found = await it.buyer.purse.run(f"ladder-{paid.n}")
        assert (found.state, found.amount) == ("DONE", end.signed.amount)
    assert await worth(it.buyer) == before + end.signed.amount


async def at_rest(it: Market) -> None:
    """Wait until every order is over, settled and told."""
    async with asyncio.timeout(30):
        while True:
            await it.settled()
            untold = await it.stall.world.store.read("locked_to_tell")
            states = {order["state"] for order in await it.stall.orders()}
            if not untold and states <= {"closed", "refused"}:
                return
            await asyncio.sleep(0.05)


async def states(stall: Stall) -> dict[str, str]:
    rows = await stall.world.store.read("locked_rows")
    return {row["id"]: row["state"] for row in rows}


async def swaps(stall: Stall) -> list[str]:
    history = await stall.world.purse.history()
    return [str(row["state"]) for row in history if row["kind"] == "settle"]


# the process dies

STEPS = [(commit, done) for commit in range(1, 17) for done in (False, True)]


@pytest.mark.parametrize("script", [writes, fails], ids=["answered", "failed"])
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(STEPS[1:12:4], id="some"),
        pytest.param(STEPS, id="all", marks=pytest.mark.nightly),
    ],
)
async def test_the_end_at_any_commit_loses_and_doubles_nothing(
    towns: Towns, script: Script, steps: list[tuple[int, bool]]
) -> None:
    place = await towns(script)
    for commit, done in steps:
        async with listening(place.buyer) as ear:
            async with place.open() as (it, life):
                paid = await it.pay()
                life.store.die_at(commit, done=done)
                letter = await it.order(paid, ear.replies)
                with suppress(TimeoutError):  # or all was done in fewer commits
                    async with asyncio.timeout(1.5):
                        await life.store.dead.wait()
            async with place.open() as (it, life):
                end = await ear.ended(letter.id)
                await at_rest(it)
                await whole(it, paid, end)
                await it.audited()
                assert (await states(it.stall))[letter.id] in ("settled", "released")
                assert "PREPARED" not in await swaps(it.stall)


@pytest.mark.parametrize(
    "faults",
    [
        ["lost"],
        ["lost", "lost", "503"],
        ["refuse"],
        ["garbage"],
        ["500 after"],
        ["code 0"],
        ["lost", "refuse", "refuse", "refuse", "refuse", "refuse", "refuse"],
    ],
)
async def test_whatever_the_mint_answers_it_is_settled_once(
    towns: Towns, faults: list[str]
) -> None:
    place = await towns()
    async with place.open() as (it, _), listening(it.buyer) as ear:
        paid = await it.pay()
        place.faulty.faults = list(faults)
        letter = await it.order(paid, ear.replies)
        change = (await ear.told(letter.id)).signed
        place.faulty.faults = []
        assert change is not None
        taken = await it.buyer.purse.take_signed(f"ladder-{paid.n}", signatures(change))
        assert taken.amount == change.amount
        await at_rest(it)
        assert (await swaps(it.stall)).count("DONE") == 1
        await it.audited()


# the mint is away


async def test_a_mint_that_is_down_is_not_believed_until_it_is_back(towns: Towns) -> None:
    place = await towns()
    async with place.open() as (it, life), listening(it.buyer) as ear:
        first, second, third, plain = (
            await it.pay(),
            await it.pay(),
            await it.pay(),
            await it.buyer.token(WORTH),
        )
        place.faulty.says |= AWAY
        letter = await it.order(first, ear.replies)
        early = await ear.ended(letter.id)
        assert isinstance(early, wire.Result)
        async with asyncio.timeout(20):
            while it.stall.daemon.redeemer.answers(place.faulty.url):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        refused = await it.buys(second)
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "payment-mint-unreachable"
        order = await it.buyer.order(
            it.stall.pubkey, wire.TokenPayment(token=plain), reply=ear.replies.key
        )
        message = it.buyer.message(order)
        await it.buyer.send(message, it.stall.pubkey)
        of_plain = await ear.ended(message.id)
        assert isinstance(of_plain, wire.Refused)
        assert of_plain.problem.code == "payment-mint-unreachable"
        assert set((await states(it.stall)).values()) == {"settling", "released"}
        place.faulty.says.clear()
        life.clock.ahead_s = 10.0  # whatever is waited for
        await ear.told(letter.id)
        await at_rest(it)
        await whole(it, first, early)
        assert await comes_back(it, second, refused.release) == WORTH - 1
        assert it.stall.daemon.redeemer.answers(place.faulty.url)
        assert isinstance(await it.buys(third), wire.Result)
        await at_rest(it)
        await it.audited()


async def test_stopping_while_the_mint_stalls_is_no_fault(
    towns: Towns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "DRAIN_REPLIES_S", 0.3)
    place = await towns()
    async with listening(place.buyer) as ear:
        async with place.open() as (it, _):
            paid = await it.pay()
            place.faulty.stalls.add("/v1/swap")
            letter = await it.order(paid, ear.replies)
            end = await ear.ended(letter.id)
        place.faulty.stalls.clear()
        async with place.open() as (it, _):
            await ear.told(letter.id)
            await at_rest(it)
            await whole(it, paid, end)
            await it.audited()


# many orders, of which one spoils it


async def placed(it: Market, ear: Ear, every: list[Paid]) -> dict[str, Paid]:
    return {(await it.order(paid, ear.replies)).id: paid for paid in every}


@pytest.mark.parametrize(
    "answer", [NO_REASON, (400, json.dumps({"detail": "no", "code": 10002}))], ids=["0", "10002"]
)
async def test_a_refusal_that_names_nobody_costs_only_the_culprit(
    towns: Towns, answer: tuple[int, str]
) -> None:
    place = await towns(provider="queue_max = 20")
    async with place.open() as (it, _), listening(it.buyer) as ear:
        every = [await it.pay() for _ in range(4)]
        async with it.stall.daemon.redeemer._sweeping:
            letters = await placed(it, ear, every)
            await ear.ended(*letters)
            culprit = list(letters)[2]
            rungs = letters[culprit].outputs
            place.faulty.refuses = {rung.B_: answer for rung in rungs}
        credited = 0
        for number, paid in letters.items():
            end, settled = ear.ends[number], await ear.told(number)
            assert isinstance(end, wire.Result)
            assert end.signed is not None
            assert (settled.signed is None) == (number == culprit)
            if number == culprit:
                credited = settled.credit_msat
                assert credited == end.signed.amount * 1_000
            else:
                await whole(it, paid, end)
        await at_rest(it)
        owed = ear.credited + credited
        assert await account(it.stall, it.buyer.me.pubkey) == owed
        rows = await it.stall.world.store.read("conduct_all")
        assert [row["kind"] for row in rows if row["author"] == it.buyer.me.pubkey] == ["ladder"]
        await it.audited()


async def test_a_token_that_the_mint_never_takes_keeps_no_other_waiting(towns: Towns) -> None:
    place = await towns(provider="queue_max = 20")
    async with place.open() as (it, life), listening(it.buyer) as ear:
        every = [await it.pay() for _ in range(3)]
        async with it.stall.daemon.redeemer._sweeping:
            letters = await placed(it, ear, every)
            await ear.ended(*letters)
            rows = await it.stall.world.store.read("locked_all_due")
            culprit = rows[0]["id"]  # the one that is tried first
            secret = json.dumps(letters[culprit].token.proofs[0].secret)
            place.faulty.refuses = {secret: (400, json.dumps({"detail": "no", "code": 11005}))}
        others = set(letters) - {culprit}
        for number in others:
            await ear.told(number)
        for number in others:
            await whole(it, letters[number], ear.ends[number])
        found = await states(it.stall)
        assert found.pop(culprit) in ("due", "settling")
        assert set(found.values()) == {"settled"}
        assert it.stall.daemon.redeemer.answers(place.faulty.url)
        await it.audited()
        place.faulty.refuses.clear()
        life.clock.ahead_s = 10.0
        await at_rest(it)
        assert (await states(it.stall))[culprit] == "settled"
        await it.audited()


# the mint or somebody else cheats


async def test_what_somebody_else_took_is_lost_and_credited_to_nobody(
    towns: Towns, tmp_path: Path
) -> None:
    """A second daemon with a copy of the key: its swap was first."""
    place = await towns()
    async with place.open() as (it, _), listening(it.buyer) as ear:
        stolen, good = await it.pay(), await it.pay()
        with structlog.testing.capture_logs() as logs:
            async with it.stall.daemon.redeemer._sweeping:
                letters = await placed(it, ear, [stolen, good])
                await ear.ended(*letters)
                async with wallet(tmp_path, place.faulty.url) as thief:
                    unlock = it.stall.daemon._locks.unlock
                    plan = await thief.purse.plan_receive(
                        "theft", stolen.token, ladder=False, owner="", unlock=unlock
                    )
                    await thief.store.commit(*plan.writes)
                    assert (await thief.purse.run("theft")).state == "DONE"
            await at_rest(it)
        lost, well = letters
        assert await states(it.stall) == {lost: "lost", well: "settled"}
        assert [entry["order"] for entry in logs if entry["event"] == "locked_token_lost"] == [
            lost[:16]
        ]
        assert not [entry for entry in logs if entry["event"] == "part_failed"]
        await whole(it, good, ear.ends[well])
        assert await account(it.stall, it.buyer.me.pubkey) == ear.credited
        await it.audited()


async def test_a_mint_that_signs_wrongly_is_doubted_and_the_loss_is_booked(towns: Towns) -> None:
    def spoil(body: Any) -> Any:
        for signature in body["signatures"]:
            signature["dleq"] = signature["dleq"] | {"e": "11" * 32}
        return body

    place = await towns()
    async with place.open() as (it, _), listening(it.buyer) as ear:
        paid, after = await it.pay(), await it.pay()
        with structlog.testing.capture_logs() as logs:
            async with it.stall.daemon.redeemer._sweeping:
                letter = await it.order(paid, ear.replies)
                await ear.ended(letter.id)
                place.faulty.changes["/v1/swap"] = spoil
            await at_rest(it)
            place.faulty.changes.clear()
        assert (await states(it.stall))[letter.id] == "lost"
        assert await swaps(it.stall) == ["SUSPECT"]
        names = [entry["event"] for entry in logs]
        assert "mint_suspect" in names
        assert "part_failed" not in names
        history = await it.stall.world.purse.history()
        [row] = [row for row in history if row["kind"] == "settle"]
        assert '"C_"' in row["note"]
        await it.audited()
        assert not await it.stall.daemon.trials.passed(place.faulty.url)
        result = await it.buys(after)
        assert isinstance(result, wire.Result)
        assert result.change is not None  # swapped first
        await it.audited()


@pytest.mark.parametrize("which", [0, 1, 2, -1])
async def test_one_bad_signature_costs_no_more_than_its_coin(towns: Towns, which: int) -> None:
    def spoil(body: Any) -> Any:
        body["signatures"][which]["dleq"]["e"] = "11" * 32
        return body

    place = await towns()
    async with place.open() as (it, _), listening(it.buyer) as ear:
        paid = [await it.pay(), await it.pay()]
        async with it.stall.daemon.redeemer._sweeping:
            letters = await placed(it, ear, paid)
            await ear.ended(*letters)
            place.faulty.changes["/v1/swap"] = spoil
        await at_rest(it)
        place.faulty.changes.clear()
        assert set((await states(it.stall)).values()) == {"settled"}
        assert await swaps(it.stall) == ["SUSPECT"]
        history = await it.stall.world.purse.history()
        [row] = [row for row in history if row["kind"] == "settle"]
        evidence = json.loads(row["note"])
        assert (await it.stall.books()).get("lost", 0) == evidence["lost"] * 1_000
        wanted, signed = set[str](), set[str]()
        for name in letters:
            wanted |= {one.B_ for one in chosen(await it.stall.daemon._locks.stored(name))}
            told = await ear.told(name)
            assert told.signed is not None
            signed |= signatures(told.signed).keys()
        assert wanted - signed == wanted & {*evidence["bad"]}
        await it.audited()
        assert not await it.stall.daemon.trials.passed(place.faulty.url)


@pytest.mark.parametrize("ahead_s", [600, -600])
async def test_a_mint_whose_clock_is_off_has_its_tokens_swapped_first(
    towns: Towns, ahead_s: int
) -> None:
    place = await towns()
    async with place.open() as (it, _):
        place.faulty.ahead_s = ahead_s
        await it.stall.world.mints.at(place.faulty.url).states(["02" + "11" * 32])
        locktime = int(SystemClock().now()) + ORDER_S + 3_600 + 900
        result = await it.buys(await it.pay(locktime=locktime))
        assert isinstance(result, wire.Result)
        assert result.signed is None
        assert result.change is not None
        await at_rest(it)
        await it.audited()


class CarelessMint(SimMint):
    """Lists locks and takes any coin, whoever signs for it."""

    def _checked(self, proofs: Any) -> int:
        self._now, now = (lambda: 1 << 40), self._now
        try:
            return super()._checked(proofs)
        finally:
            self._now = now


async def test_a_mint_that_keeps_no_locks_is_never_believed(
    relay_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And costs one trial a day, not one a minute."""
    monkeypatch.setattr(trial, "EVERY_S", 0.01)
    text = config_text(tmp_path / "stall", [relay_url], URL, "http://127.0.0.1:9")
    config = ProviderConfig.model_validate(tomllib.loads(text))
    shop = config.shop("0.0.0")
    rng = random.Random(1)
    mint = CarelessMint(100)
    async with (
        opened(config, shop) as (real, seed),
        SqliteStore.open(tmp_path / "gift.db", ("purse",)) as store,
    ):
        clock = Late(real.clock, 0.0)
        mints = MintLines(MintLine(mint, Life(None, rng), Weather(rng, {})))
        purse = Purse(real.store, mints, clock, seed, pace=PACE)
        world = replace(real, mints=mints, purse=purse, clock=clock)
        gift = Purse(store, mints, clock, secrets.token_bytes(32), pace=PACE)
        quote = await gift.fund(URL, 100)
        assert (await gift.claim_quote(quote.quote)).state == "DONE"
        await deposit(purse, await gift.send("gift", URL, "sat", 80), world.now_s)
        key = PaymentKey(seed)
        key.open("shop")
        trials = Trials(world, shop, key)
        task = asyncio.create_task(trials.run())
        with structlog.testing.capture_logs() as logs:
            for day in range(1, 3):
                async with asyncio.timeout(10):
                    while len(_found(logs)) < day:  # noqa: ASYNC110  it tells nobody
                        await asyncio.sleep(0.01)
                for _ in range(20):
                    assert not await trials.passed(URL)
                    await asyncio.sleep(0.01)
                assert len(_found(logs)) == day
                clock.ahead_s += 86_400
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _found(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == "mint_keeps_no_locks"]


# keysets


async def new_outputs(it: Market, letter: Rumor, replies: Replies) -> str:
    """Answer the provider's request for other outputs; their ladder's name."""
    name = f"ladder-{secrets.token_hex(6)}"
    write, outputs = await it.buyer.purse.plan_ladder(name, it.buyer.mint, "sat", WORTH)
    await it.buyer.store.commit(write)
    relay = it.buyer.relays.status()[0].url
    message = wire.NewOutputs(
        reply=wire.ReplyTo(key=replies.key.pubkey, relays=[relay]),
        order=letter.id,
        outputs=[wire.Output(**output.as_dict()) for output in outputs],
    )
    await it.buyer.send(it.buyer.message(message), it.stall.pubkey)
    return name


@pytest.mark.parametrize("spent", [False, True])
async def test_what_was_to_be_swapped_first_and_was_refused_is_released(
    towns: Towns, tmp_path: Path, spent: bool
) -> None:
    place = await towns()
    place.faulty.ahead_s = -600  # so far off, a mint's locks are not believed
    async with place.open() as (it, _):
        paid = await it.pay()
        if spent:
            async with wallet(tmp_path, place.faulty.url) as thief:
                unlock = it.stall.daemon._locks.unlock
                plan = await thief.purse.plan_receive(
                    "theft", paid.token, ladder=False, owner="", unlock=unlock
                )
                await thief.store.commit(*plan.writes)
                assert (await thief.purse.run("theft")).state == "DONE"
        else:
            place.faulty.refuses[""] = (400, '{"detail": "no", "code": 11005}')
        refused = await it.buys(paid)
        place.faulty.refuses.clear()
        assert isinstance(refused, wire.Refused)
        assert [order["state"] for order in await it.stall.orders()] == ["refused"]
        if spent:
            assert (refused.problem.code, refused.release) == ("payment-token-spent", None)
        else:
            again = await it.buys(paid)
            assert isinstance(again, wire.Refused)
            assert again.release is None
            assert await comes_back(it, paid, refused.release) == WORTH - 1
        await it.audited()


async def test_coins_of_a_keyset_newer_than_our_list_are_taken(
    towns: Towns, mint_process: Child
) -> None:
    """And outputs of the one before it are nobody's fault."""
    place = await towns(mint=mint_process.url)
    async with place.open() as (it, _):
        ours = it.stall.world.mints.at(it.buyer.mint)
        theirs = it.buyer.purse._till.mints.at(it.buyer.mint)
        assert isinstance(ours, CashuMint)
        before = await it.pay()
        rotate(mint_process)
        await theirs.keysets(refresh=True)
        ours._loaded_at = asyncio.get_running_loop().time()  # as if it was asked just before
        result = await it.buys(await it.pay())
        assert isinstance(result, wire.Result), result
        refused = await it.buys(before)
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "payment-outputs-stale"
        assert await comes_back(it, before, refused.release) == WORTH - 1
        assert not await it.stall.world.store.read("conduct_all")
        await it.settled()
        await it.audited()


async def test_outputs_of_a_keyset_that_is_gone_are_asked_for_anew(
    towns: Towns, mint_process: Child
) -> None:
    place = await towns(mint=mint_process.url)
    async with place.open() as (it, life), listening(it.buyer) as ear:
        answers, silent = await it.pay(), await it.pay()
        async with it.stall.daemon.redeemer._sweeping:
            first = await it.order(answers, ear.replies)
            second = await it.order(silent, ear.replies)
            await ear.ended(first.id, second.id)
            rotate(mint_process)
        for message in (await ear.told(first.id), await ear.told(second.id)):
            assert message.problem is not None
            assert message.problem.code == "payment-outputs-stale"
        await it.buyer.purse._till.mints.at(it.buyer.mint).keysets(refresh=True)
        name = await new_outputs(it, first, ear.replies)
        settled = await ear.told(first.id)
        end = ear.ends[first.id]
        assert isinstance(end, wire.Result)
        assert end.signed is not None
        assert settled.signed is not None
        taken = await it.buyer.purse.take_signed(name, signatures(settled.signed))
        assert (taken.state, taken.amount) == ("DONE", end.signed.amount)
        rows = await it.stall.world.store.read("conduct_all")
        assert not [row for row in rows if row["kind"] == "ladder"]
        assert (await states(it.stall))[second.id] == "due"
        await it.audited()
        life.clock.ahead_s = ORDER_S + 3_900 - 1_800 + 5  # within the margin of its locktime
        it.stall.daemon.redeemer.wake()
        late = await ear.told(second.id)
        end = ear.ends[second.id]
        assert isinstance(end, wire.Result)
        assert end.signed is not None
        assert late.credit_msat == end.signed.amount * 1_000
        assert late.statement is not None
        await at_rest(it)
        assert set((await states(it.stall)).values()) == {"settled"}
        rows = await it.stall.world.store.read("conduct_all")
        assert not [row for row in rows if row["kind"] == "ladder"]
        await it.audited()
