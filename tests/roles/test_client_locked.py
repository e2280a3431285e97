"""Payment B against a provider who is honest with locked coins, and one who is not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nostrllm.client import ask
from nostrllm.client import resume as resuming
from nostrllm.client.answer import Answer
from nostrllm.client.keepsakes import Keepsakes
from nostrllm.client.locked import room_for
from nostrllm.client.quote import Question, Quote
from nostrllm.client.resume import resume
from nostrllm.client.wallet import Wallet
from nostrllm.client.world import World
from nostrllm.core.lock import parse_locked
from nostrllm.devnet.children import Child
from nostrllm.errors import NostrllmError, OutcomeUnknown, RemoteError, WorldError
from nostrllm.service.client import Client
from nostrllm.wire.announcement import Price
from nostrllm.wire.order import LockedPayment
from nostrllm.wire.token import parse_token
from tests.mintclock import ClockedMint, clocked_mint
from tests.purse.test_faults import rotate
from tests.roles.counterpart import Counterpart, counterpart
from tests.roles.locksmith import Locksmithing
from tests.roles.market import MODEL, config_text, selling
from tests.roles.test_client_resume import Dead, buyer_of, customer, mortal, restarted
from tests.roles.test_client_resume import held as world_held

TEXT = "Polly wants a cracker."
FUND = 100
#: No lock is longer when an answer is due within a minute.
LOCKED_S = 7_300
DAY_S = 86_400


@asynccontextmanager
async def both(
    tmp_path: Path, relay_url: str, mint_url: str, **locksmithing: Any
) -> AsyncIterator[tuple[Client, Counterpart]]:
    """A client with 100 sat and a provider with these manners."""
    async with (
        counterpart(
            tmp_path / "bird", relay_url, mint_url, locked=Locksmithing(**locksmithing)
        ) as bird,
        Client(state=tmp_path / "client", relays=[relay_url], mint=mint_url) as client,
    ):
        quote = await client.wallet.fund(FUND, mint=mint_url)
        assert await client.wallet.claim(quote.quote, wait_s=10) is not None
        yield client, bird


async def held(client: Client) -> int:
    """Sats in the wallet."""
    return sum((await client.wallet.balance()).values())


async def what_time(world: World, mint: ClockedMint) -> None:
    """Have the mint say what time it is; clocks do not leap, but here."""
    async with asyncio.timeout(20):
        while True:
            with suppress(OutcomeUnknown):  # as many of us come at once
                await world.mints.at(mint.url).states(["02" + "11" * 32])
                return
            await asyncio.sleep(0.1)


async def row(client: Client) -> dict[str, Any]:
    """The last purchase."""
    [found] = await client._world.store.read("purchase_list", count=1)
    return dict(found)


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClockedMint]:
    """A mint whose clock can be set; one for all tests here."""
    pytest.importorskip("cashu")
    with clocked_mint(tmp_path_factory.mktemp("clocked")) as mint:
        yield mint


@pytest.fixture
async def mint(clocked: ClockedMint) -> ClockedMint:
    """It, with the right time."""
    await clocked.ahead(0)
    return clocked


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for."""
    monkeypatch.setattr(ask, "QUERY_S", 0.2)
    monkeypatch.setattr(ask, "SETTLE_S", 0.5)
    monkeypatch.setitem(resuming.resume.__kwdefaults__ or {}, "wait_s", 0.6)
    monkeypatch.setattr(resuming, "LATE_S", 0)


async def test_an_answer_is_paid_by_locked_coins(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        quotes: list[Quote] = []
        before = int(time.time())
        answer = client.ask("Speak!", provider=bird.pubkey, pay="locked", on_quote=quotes.append)
        pieces = [piece async for piece in answer]
        assert "".join(pieces) == TEXT
        result = await answer.settled(10)
        assert (result.breaches, result.pending_msat) == ((), 0)
        paid = quotes[0].amount * 1_000
        spent = result.cost_msat + result.fee_msat
        assert paid == spent + result.change_msat + result.credit_msat
        assert FUND - 3 <= await held(client) < FUND
        payment = bird.orders[0][1].payment
        assert isinstance(payment, LockedPayment)
        locks = [parse_locked(proof.secret) for proof in parse_token(payment.token).proofs]
        assert {lock.key for lock in locks} == {bird.smith.key}
        [locktime] = {lock.locktime for lock in locks}
        assert locktime % 3_600 == 0
        assert bird.orders[0][1].deadline + 3_600 <= locktime <= before + 86_400
        assert await client._world.purse.locked() == {}
        assert await client._world.purse.pending() == []
        assert result.accepted is not None
        assert (await row(client))["state"] == "done"
        last = await client.wallet.history(2)  # what came of the outputs, and no more of them
        assert [one["kind"] for one in last] == ["change", "send"]
        assert last[0]["amount"] * 1_000 == result.change_msat
        await client.ask("Speak!", provider=bird.pubkey, pay="locked", change="account").done()
        assert [one["kind"] for one in await client.wallet.history(2)] == ["send", "change"]


# how the change comes, and how it does not


async def test_signatures_may_overtake_the_result(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, settles_first=True) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey, pay="locked").settled(10)
        assert (result.breaches, result.pending_msat) == ((), 0)
        assert await held(client) >= FUND - 3


async def test_the_answer_does_not_wait_for_the_mint(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, tells_nothing=True) as (client, bird):
        answer = client.ask("?", provider=bird.pubkey, pay="locked")
        result = await answer.done()
        assert (result.text, result.breaches) == (TEXT, ())
        assert result.pending_msat == result.change_msat > 0
        assert ((await row(client))["state"], (await row(client))["locked"]) == ("done", "owed")
        assert (await client.purchases(1))[0].open
    async with Client(state=tmp_path / "client", relays=[relay_url], mint=mint_url) as client:
        bird.manners.deaf = True  # the mint is enough
        await client.resume()
        assert await held(client) >= FUND - 3
        assert (await row(client))["locked"] == ""
        assert await client.late() == []


async def test_swapped_first_the_change_is_a_token(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, swaps_first=True) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey, pay="locked").done()
        assert (result.breaches, result.pending_msat) == ((), 0)
        assert result.change_msat > 0
        assert await held(client) >= FUND - 4
        assert (await row(client))["locked"] == ""
        assert await client._world.purse.pending() == []
        assert await client._world.purse.locked() == {}


async def test_all_change_as_credit(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        wishes: dict[str, Any] = {"pay": "locked", "change": "account"}
        result = await client.ask("?", provider=bird.pubkey, **wishes).done()
        assert (result.breaches, result.change_msat, result.pending_msat) == ((), 0, 0)
        payment = bird.orders[0][1].payment
        assert isinstance(payment, LockedPayment)
        assert payment.outputs == []
        assert (await row(client))["locked"] == "owed"
        await bird.settled.wait()
        await client.resume()
        assert (await row(client))["locked"] == ""
        assert await client._world.purse.locked() == {}


@pytest.mark.parametrize(
    ("locksmithing", "breach"),
    [
        ({"forges": True}, "signatures-invalid"),
        ({"signs_less": 3}, "change-short"),
        ({"promises_less": 3}, "change-short"),
        ({"credits": True}, "change-withheld"),
    ],
)
async def test_change_that_is_not_as_promised(
    locksmithing: dict[str, Any], breach: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, **locksmithing) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey, pay="locked").settled(10)
        assert (result.breaches, result.pending_msat) == ((breach,), 0)
        assert (await row(client))["breaches"] == breach
        back = result.change_msat // 1_000 if breach == "change-withheld" else 0
        assert await held(client) + back >= FUND - 3 - 3


async def test_a_debt_is_not_closed_by_a_part_of_it(
    tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    """One msat of credit, and no signature: what is still due is looked for until the locktime."""
    rude = {"credits": True, "credits_msat": 1}
    async with both(tmp_path, relay_url, mint.url, **rude) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey, pay="locked").settled(10)
        assert result.pending_msat > 0
        assert (await row(client))["locked"] == "owed"
        await mint.ahead(LOCKED_S)
        await what_time(client._world, mint)
        await client.resume()
        found = await row(client)
        assert found["locked"] == ""
        assert "change-unsigned" in found["breaches"]


async def test_an_order_that_is_too_long_locks_no_coins(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        cheap = Price(input=1_000, output=1_000, request=2_000)
        bird.model = bird.model.model_copy(update={"context": 1_000_000, "price": cheap})
        await bird.announce()
        with pytest.raises(RemoteError) as caught:
            await client.ask("a" * 500_000, provider=bird.pubkey, pay="locked").done()
        assert caught.value.code == "message-too-large"
        assert await held(client) == FUND
        assert (await row(client))["state"] == "failed"
        assert bird.orders == []


async def test_a_locked_payment_takes_no_more_room_than_was_kept(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        await client.ask("?", provider=bird.pubkey, pay="locked").settled(10)
        [(_, order)] = bird.orders
        text = json.dumps(order.payment.model_dump_json())  # as it is in a rumor
        assert isinstance(order.payment, LockedPayment)
        assert len(text) <= room_for(parse_token(order.payment.token).amount) + 100


async def test_what_is_not_handed_over_is_found_at_the_mint(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url, hands_less=1) as (client, bird):
        result = await client.ask("?", provider=bird.pubkey, pay="locked").settled(10)
        assert (result.breaches, result.pending_msat) == ((), 0)
        assert await held(client) >= FUND - 3


async def test_a_swap_without_our_outputs_is_a_breach_after_the_locktime(
    tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    rude = {"without_ladder": True, "tells_nothing": True}
    async with both(tmp_path, relay_url, mint.url, **rude) as (client, bird):
        assert (await client.ask("?", provider=bird.pubkey, pay="locked").done()).breaches == ()
        await bird.settled.wait()
    async with Client(state=tmp_path / "client", relays=[relay_url], mint=mint.url) as client:
        await client.resume()
        assert ((await row(client))["breaches"], (await row(client))["locked"]) == ("", "owed")
        await mint.ahead(LOCKED_S)
        await client.resume()
        found = await row(client)
        assert (found["breaches"], found["locked"]) == ("change-unsigned", "")


# the provider never takes them


async def test_what_is_never_settled_comes_back_and_is_paid_from_the_account(
    tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    async with both(tmp_path, relay_url, mint.url, never_settles=True) as (client, old):
        result = await client.ask("?", provider=old.pubkey, pay="locked").done()
        assert result.breaches == ()
        left = await held(client)
    async with (
        Client(state=tmp_path / "client", relays=[relay_url], mint=mint.url) as client,
        # its orders are stored, and not heard again
        counterpart(tmp_path / "again", relay_url, mint.url, before=old) as bird,
    ):
        for skew_s in (0, LOCKED_S):  # he has another day, as he gave an answer
            await mint.ahead(skew_s)
            await client.resume()
            assert (await held(client), (await row(client))["locked"]) == (left, "owed")
        await mint.ahead(LOCKED_S + DAY_S)
        await client.resume()
        assert await held(client) > left
        assert (await row(client))["locked"] == "due"
        await client.resume()
        topup, order = await client.purchases(2)
        assert (topup.what, topup.state) == ("topup", "done")
        assert (order.order_id, order.locked, order.breaches) == (result.order_id, "", ())
        assert sum(bird.balances.values()) >= result.cost_msat
        await client.resume()
        assert len(await client.purchases(9)) == 2
        assert await client._world.purse.locked() == {}
        assert await client._world.purse.pending() == []


async def test_silence_ends_with_the_locktime(
    tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    async with both(tmp_path, relay_url, mint.url) as (client, bird):
        bird.manners.silent = True
        with pytest.raises(WorldError, match="locked until"):
            await client.ask("?", provider=bird.pubkey, pay="locked", deadline_s=1.0).done()
        left = await held(client)
        assert left < FUND - 3
        await client.resume()
        assert ((await row(client))["state"], await held(client)) == ("sent", left)
        await mint.ahead(LOCKED_S)
        await client.resume()
        found = await row(client)
        assert (found["state"], found["code"]) == ("failed", "provider-silent")
        assert await held(client) >= FUND - 3
        assert await client._world.purse.pending() == []
        tries = [one["state"] for one in await client.wallet.history() if ":reclaim" in one["id"]]
        assert tries == ["DONE"]  # nothing was tried before its time


async def test_a_lost_result_leaves_the_change(
    tmp_path: Path, relay_url: str, mint_url: str, hasty: None
) -> None:
    """He worked, settled, and nothing of it was heard."""
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        bird.manners.mute = True
        with pytest.raises(WorldError):
            await client.ask("?", provider=bird.pubkey, pay="locked", deadline_s=1.0).done()
        await bird.settled.wait()
        before = await held(client)
        await client.resume()
        assert await held(client) > before
        assert (await row(client))["state"] == "sent"
        bird.manners.mute = False
        [late] = await client.resume()
        assert (late.text, late.breaches) == (TEXT, ())
        assert (await row(client))["locked"] == ""
        assert await held(client) >= FUND - 3


async def test_days_later_the_mint_is_enough(
    tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    """Nothing was heard, nobody is there any more, and the locktime is long past."""
    async with both(tmp_path, relay_url, mint.url) as (client, bird):
        bird.manners.mute = True
        with pytest.raises(WorldError):
            await client.ask("?", provider=bird.pubkey, pay="locked", deadline_s=1.0).done()
        await bird.settled.wait()
    await mint.ahead(LOCKED_S + 5 * DAY_S)
    async with Client(state=tmp_path / "client", relays=[relay_url], mint=mint.url) as client:
        await client.resume()
        assert await held(client) >= FUND - 3
        assert await client._world.purse.locked() == {}


async def test_at_the_locktime_the_mint_decides_who_was_first(
    tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    async with both(tmp_path, relay_url, mint.url) as (client, bird):
        bird.manners.take_and_be_silent = True
        for _ in range(3):
            before = await held(client)
            with pytest.raises(WorldError):
                await client.ask("?", provider=bird.pubkey, pay="locked", deadline_s=1.0).done()
            out = before - await held(client)
            letter, order = bird.orders[-1]
            await mint.ahead(LOCKED_S)
            taking = asyncio.create_task(bird.take(letter, order))
            await client.resume()
            taken = await taking
            again = await held(client) - before + out
            assert again == 0 if taken else again >= out - 2, (taken, again, out)
            await mint.ahead(0)


# what was released


@pytest.mark.parametrize("how", ["refused", "failed"])
async def test_what_was_released_is_back_at_once(
    how: str, tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        if how == "refused":
            bird.manners.refuse = "busy"
        else:
            bird.manners.fail = "generation-failed"
        with pytest.raises(RemoteError) as caught:
            await client.ask("?", provider=bird.pubkey, pay="locked").done()
        assert caught.value.code == ("busy" if how == "refused" else "generation-failed")
        assert "back" not in caught.value.message
        assert await held(client) >= FUND - 2
        found = await row(client)
        assert found["state"] == ("failed" if how == "refused" else "done")
        assert (found["locked"], found["breaches"]) == ("", "")
        assert await client._world.purse.pending() == []
        assert await client._world.purse.locked() == {}


async def test_what_is_free_is_released(tmp_path: Path, relay_url: str, mint_url: str) -> None:
    async with both(tmp_path, relay_url, mint_url) as (client, bird):
        bird.model = bird.model.model_copy(update={"price": Price(input=0, output=0)})
        await bird.announce()
        result = await client.ask("?", provider=bird.pubkey, pay="locked").done()
        assert (result.text, result.cost_msat, result.breaches) == (TEXT, 0, ())
        assert result.pending_msat == 0
        assert await held(client) >= FUND - 2


@pytest.mark.parametrize("release", ["missing", "forged"])
@pytest.mark.parametrize("how", ["refused", "failed"])
async def test_without_a_true_release_they_come_back_after_the_locktime(
    how: str, release: str, tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    async with both(tmp_path, relay_url, mint.url, release=release) as (client, bird):
        if how == "refused":
            bird.manners.refuse = "busy"
        else:
            bird.manners.fail = "generation-failed"
        with pytest.raises(RemoteError) as caught:
            await client.ask("?", provider=bird.pubkey, pay="locked", deadline_s=1.0).done()
        assert ("locked until" in caught.value.message) == (how == "refused")
        assert ("release-invalid" in caught.value.message) == (how == "failed")
        assert (await client.purchases(1))[0].open
        await mint.ahead(LOCKED_S)
        await what_time(client._world, mint)
        await client.resume()
        assert await held(client) >= FUND - 3
        found = await row(client)
        wrong = "" if (how, release) == ("refused", "missing") else "release-invalid"
        assert (found["locked"], found["breaches"]) == ("", wrong)
        assert not (await client.purchases(1))[0].open


@pytest.mark.parametrize("how", ["refused", "failed"])
async def test_a_release_of_what_is_taken_is_none(
    how: str, tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    async with both(tmp_path, relay_url, mint.url, release="taken") as (client, bird):
        if how == "refused":
            bird.manners.refuse = "busy"
        else:
            bird.manners.fail = "generation-failed"
        bird.manners.locked.settles_first = True
        with pytest.raises(RemoteError, match=r"not back yet|release-invalid"):
            await client.ask("?", provider=bird.pubkey, pay="locked", deadline_s=1.0).done()
        await mint.ahead(LOCKED_S)
        await client.resume()
        assert "release-invalid" in (await row(client))["breaches"]
        assert await client._world.purse.locked() == {}


# another keyset


async def test_new_outputs_for_a_new_keyset(
    tmp_path: Path, relay_url: str, mint_process: Child, hasty: None
) -> None:
    url = mint_process.url
    async with both(tmp_path, relay_url, url, stale=True) as (client, bird):
        bird.manners.before_result = lambda: rotate(mint_process)
        result = await client.ask("?", provider=bird.pubkey, pay="locked").done()
        assert (result.text, result.breaches) == (TEXT, ())
        await client.resume()  # the mint's keysets may have been too young to be asked for again
        async with asyncio.timeout(20):
            while (await row(client))["locked"]:
                await client._world.square.clock.sleep(0.2)
                await client.resume()
        assert (await row(client))["breaches"] == ""
        assert len(bird.news) >= 1
        assert {one.id for one in bird.news[0].outputs} != {
            one.id
            for one in bird.orders[0][1].payment.outputs  # type: ignore[union-attr]
        }
        assert await held(client) >= FUND - 4
        assert await client._world.purse.pending() == []


async def test_credit_for_outputs_that_nobody_can_sign_is_no_breach(
    tmp_path: Path, relay_url: str, mint_process: Child
) -> None:
    async with both(tmp_path, relay_url, mint_process.url, credits=True) as (client, bird):

        def before_result() -> None:
            rotate(mint_process)
            bird.purse._till.mints._mints.clear()  # type: ignore[attr-defined]

        bird.manners.before_result = before_result
        answer = client.ask("?", provider=bird.pubkey, pay="locked")
        await answer.done()
        client._world.mints._mints.clear()  # type: ignore[attr-defined]  # as after a restart
        result = await answer.settled(20)
        assert (result.breaches, result.pending_msat) == ((), 0)
        balance = await client.last_balance(bird.pubkey)
        assert balance is not None
        assert balance.balance_msat >= result.change_msat


# dying at any moment

#: Before or after which commit of an order the process dies; none has as many.
KILLS = [(1 + n // 2, n % 2 == n // 2 % 2) for n in range(22)]
#: What a provider may do with an order.
LIVES: dict[str, dict[str, Any]] = {
    "honest": {},
    "tells nothing": {"tells_nothing": True},
    "never settles": {"never_settles": True},
    "fails": {"fail": "generation-failed"},
    "refuses": {"refuse": "busy"},
    "silent": {"silent": True},
}
#: Those that are killed on both sides of every commit; others on one, in turn.
EVERY = ("honest", "never settles")


@dataclass(frozen=True)
class Life:
    """A client that was killed, or came to its end."""

    world: World
    ended: bool


@pytest.mark.parametrize("life", LIVES)
async def test_death_at_any_write_loses_nothing(
    life: str, tmp_path: Path, relay_url: str, mint: ClockedMint, hasty: None
) -> None:
    own = {key: value for key, value in LIVES[life].items() if hasattr(Locksmithing, key)}
    rest = {key: value for key, value in LIVES[life].items() if key not in own}
    smith = Locksmithing(**own)
    async with (
        counterpart(tmp_path / "bird", relay_url, mint.url, locked=smith, **rest) as bird,
        AsyncExitStack() as stack,
    ):
        lives: list[Life] = []
        for last, after in KILLS if life in EVERY else KILLS[::2] + KILLS[-1:]:
            folder = tmp_path / f"client-{last}-{after}"
            world = await stack.enter_async_context(customer(folder, relay_url, mint.url))
            lives.append(Life(world, await _killed(world, bird, last, after)))
        assert any(one.ended for one in lives)
        assert not any(one.ended for one in lives[:4])
        before = sum(bird.balances.values())
        for ahead_s in (0, LOCKED_S, LOCKED_S + DAY_S, LOCKED_S + DAY_S):
            await mint.ahead(ahead_s)
            async with asyncio.TaskGroup() as group:
                for one in lives:
                    group.create_task(_recover(one.world, mint))
        costs = [await _check(one.world) for one in lives]
        paid_msat = sum(bird.balances.values()) - before
        held = [await world_held(one.world) for one in lives]
        assert min(held) >= FUND - 8
        assert sum(held) >= len(lives) * (FUND - 3) - (sum(costs) + paid_msat) // 1_000


async def _killed(living: World, bird: Counterpart, last: int, after: bool) -> bool:
    """Kill an order at one write; True when it ended before that."""
    world, store = mortal(living, last, after)
    question = Question("?", provider=bird.pubkey, pay="locked", deadline_s=1.0)
    with suppress(NostrllmError, Dead):
        await buyer_of(world).ask(question, Answer())
    return store.count < last


async def _recover(living: World, mint: ClockedMint) -> None:
    """What a restart does."""
    await what_time(living, mint)
    again = restarted(living)
    await Wallet(again).resume()
    await resume(again, buyer_of(again), wait_s=0.4)


async def _check(world: World) -> int:
    """Nothing is open, nobody was wronged; what was paid for answers, in msat."""
    bought = await Keepsakes(world).purchases()
    assert not any(one.open or one.locked or one.breaches for one in bought), bought
    assert await world.purse.pending() == []
    assert await world.purse.locked() == {}
    return sum(one.cost_msat for one in bought)


# and the true provider


async def test_the_true_provider_settles_with_us(
    tmp_path: Path, relay_url: str, mint_url: str, engine_url: str
) -> None:
    text = config_text(tmp_path / "stall", [relay_url], mint_url, engine_url)
    async with (
        selling(text) as stall,
        Client(state=tmp_path / "client", relays=[relay_url], mint=mint_url) as client,
    ):
        quote = await client.wallet.fund(1_000, mint=mint_url)
        assert await client.wallet.claim(quote.quote, wait_s=10) is not None
        wishes: dict[str, Any] = {"provider": stall.pubkey, "max_tokens": 16, "pay": "locked"}
        spent = 0
        for _ in range(3):
            answers = [client.ask("Say hi.", model=MODEL, **wishes) for _ in range(2)]
            results = [await answer.settled(20) for answer in answers]
            assert [one.breaches for one in results] == [()] * 2
            assert [one.pending_msat for one in results] == [0] * 2
            assert all(one.accepted is not None for one in results)
            spent += sum(one.cost_msat + one.fee_msat + one.credit_msat for one in results)
        assert "receive" not in [one["kind"] for one in await client.wallet.history(4)]  # settled
        free = await client.ask("Say hi.", model="free", **wishes).done()
        credited = await client.ask("Say hi.", model=MODEL, change="account", **wishes).done()
        assert (free.breaches, credited.breaches) == ((), ())
        spent += credited.cost_msat + credited.fee_msat + credited.credit_msat
        with pytest.raises(NostrllmError):
            await client.ask("x " * 9_000, model=MODEL, **wishes).done()
        async with asyncio.timeout(20):
            while await client._world.store.read("purchase_owed"):
                await client.resume()
        made = 9 + 9  # what the mint took for making tokens, and for taking the released ones back
        assert 1_000_000 - spent - made * 1_000 <= await held(client) * 1_000 <= 1_000_000 - spent
        assert await client.wallet.locked() == []
        assert await client._world.purse.pending() == []
        assert await client._world.store.read("dispute_list") == []
