"""What hostile keys try is counted and bounded, and the operator sees it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nostrllm.adapters.keys_sdk import to_npub
from nostrllm.adapters.store_reading import reading
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core.conduct import ATTACKS_MAX, CAUTION_MAX, KINDS, STRANGERS_MAX, Kind
from nostrllm.errors import ConfigError, LocalError, RemoteError, StoreError
from nostrllm.ports import Row, Write
from nostrllm.provider.clients import read_clients
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.shop import STORE_PARTS
from nostrllm.service.blocks import change_blocks, read_blocks
from nostrllm.wire import order as wire
from nostrllm.wire.token import Dleq, Token, encode_token, parse_token
from tests.adapters.scripted import scripted
from tests.roles.market import CLOCK, Stall, config_text, selling
from tests.roles.test_provider_audit import Customer, cli, customer, model
from tests.roles.test_provider_process import key_of, provider

ME, OTHER = "ab" * 32, "cd" * 32


@asynccontextmanager
async def market(
    relay: str, mint: str, tmp: Path, provider: str = ""
) -> AsyncIterator[tuple[Stall, Customer]]:
    async with scripted(model) as engine:
        text = config_text(tmp / "stall", [relay], mint, engine.url, provider)
        async with (
            selling(text) as stall,
            customer(relay, mint, tmp, stall.pubkey) as who,
        ):
            yield stall, who


async def ended(
    who: Customer, text: str = "Hello?", *, token: str | None = None
) -> wire.Result | wire.Refused:
    """How an order ends."""
    await who.order(text, token=token, c=secrets.token_hex(32))
    while not isinstance(message := await who.replies.next(), wire.Result | wire.Refused):
        continue
    return message


async def refused(who: Customer, token: str) -> str:
    found = await ended(who, token=token)
    assert isinstance(found, wire.Refused)
    return found.problem.code


async def topped_up(who: Customer, token: str) -> wire.Answer | wire.Refused:
    await who.send(wire.TopUp(reply=who.reply, token=token))
    message = await who.replies.next()
    assert isinstance(message, wire.Answer | wire.Refused)
    return message


async def counted(stall: Stall, who: Customer) -> dict[Kind, int]:
    """What stands against a key, in memory and in the store alike."""
    [client] = [
        one
        for one in await read_clients(stall.world.store, (), int(CLOCK.now()))
        if one.pubkey == who.buyer.me.pubkey
    ]
    free: dict[Kind, int] = {"free-failure": client.free_failures} if client.free_failures else {}
    return {**client.attacks, **free}


async def counts(stall: Stall, who: Customer, wanted: dict[Kind, int]) -> None:
    """Wait until this stands against a key: it is written down after the answer went out."""
    async with asyncio.timeout(20):
        while await counted(stall, who) != wanted:  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.01)


async def test_coins_spent_elsewhere_and_coins_used_twice(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """The first of an unknown key is let pass: it may be a wallet out of step."""
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        for _ in range(2):
            spent = await who.buyer.token(64)
            await who.buyer.worth(spent)
            assert await refused(who, spent) == "payment-token-spent"
        await counts(stall, who, {"double-spend": 1})
        good = await who.buyer.token(64)
        assert isinstance(await ended(who, token=good), wire.Result)
        assert await refused(who, good) == "payment-token-spent"
        await counts(stall, who, {"double-spend": 1, "replay": 1})
        assert await stall.daemon.conduct.of(who.buyer.me.pubkey) == "allowed"
        spent = await who.buyer.token(16)
        await who.buyer.worth(spent)
        await topped_up(who, spent)
        await counts(stall, who, {"double-spend": 2, "replay": 1})
        income = (await stall.books())["income"]
        assert income == -25_200  # once


async def test_coins_that_no_mint_signed_shut_the_door_and_leave_the_balance(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        me, conduct = who.buyer.me.pubkey, stall.daemon.conduct
        assert (await who.top_up(100)).balance_msat == 99_000
        token = parse_token(await who.buyer.token(64))
        forged = replace(token.proofs[0], dleq=Dleq("11" * 32, "22" * 32, "33" * 32))
        fake = encode_token(Token(token.mint, token.unit, (forged, *token.proofs[1:])))
        for n in range(ATTACKS_MAX + 1):
            assert await conduct.of(me) == ("allowed" if n <= CAUTION_MAX else "swap_first")
            assert await refused(who, fake) == "payment-token-invalid"
        await counts(stall, who, {"forged-dleq": ATTACKS_MAX + 1})
        assert await refused(who, fake) == "client-blocked"
        await who.order("Hello?")  # told once: there is no answer to this
        answer = await who.refund()
        assert answer.change is not None
        assert await who.buyer.worth(answer.change.token) > 90
        await counts(stall, who, {"forged-dleq": ATTACKS_MAX + 1})
        assert await stall.orders() == []


async def test_a_flood_of_dust_is_counted_and_ends(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        for _ in range(3):
            answer = await topped_up(who, await who.buyer.token(3))
            assert isinstance(answer, wire.Answer)
            assert answer.state == "done"  # it is theirs, however little
        for _ in range(ATTACKS_MAX - 2):
            answer = await topped_up(who, await who.buyer.token(1))
            assert isinstance(answer, wire.Refused)
            assert answer.problem.code == "payment-amount-low"
        await counts(stall, who, {"dust": ATTACKS_MAX + 1})
        answer = await topped_up(who, await who.buyer.token(16))
        assert isinstance(answer, wire.Refused)
        assert answer.problem.code == "client-blocked"
        assert -(await stall.books())[f"account:{who.buyer.me.pubkey}"] == 6_000


async def test_top_ups_that_race(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    """The same coins at once, and different ones that together pass what an account may hold."""
    limit = "balance_sat_max = 100"
    async with scripted(model) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        text = text.replace("balance_sat_max = 5000", limit)
        async with (
            selling(text) as stall,
            customer(relay_url, mint_url, tmp_path, stall.pubkey) as who,
        ):
            assert (await who.top_up(5)).state == "done"
            token = await who.buyer.token(20)
            key, urls = who.reply.key, who.reply.relays
            others = [  # other messages, so other ids
                who.buyer.message(
                    wire.TopUp(reply=wire.ReplyTo(key=key, relays=urls * n), token=token)
                )
                for n in (1, 2, 3)
            ]
            async with asyncio.TaskGroup() as group:
                for letter in others:
                    group.create_task(who.buyer.send(letter, who.to))
            answers = [await who.replies.next() for _ in others]
            codes = [one.problem.code for one in answers if isinstance(one, wire.Refused)]
            assert codes == ["payment-token-spent"] * 2
            await counts(stall, who, {"topup-race": 2})
            tokens = [await who.buyer.token(30) for _ in range(4)]
            async with asyncio.TaskGroup() as group:
                for one in tokens:
                    group.create_task(who.send(wire.TopUp(reply=who.reply, token=one)))
            answers = [await who.replies.next() for _ in tokens]
            codes = [one.problem.code for one in answers if isinstance(one, wire.Refused)]
            assert codes == ["payment-amount-high"] * 2
            balance = -(await stall.books())[f"account:{who.buyer.me.pubkey}"]
            assert balance <= 100_000


async def test_free_answers_end_streaming_until_one_is_paid(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        me, conduct = who.buyer.me.pubkey, stall.daemon.conduct
        await who.top_up(200)
        for n in range(CAUTION_MAX + 1):
            assert await conduct.of(me) == "allowed"
            failed = await ended(who, "fail")
            await counts(stall, who, {"free-failure": n + 1})
            assert isinstance(failed, wire.Result)
            assert failed.cost_msat == 0
        await counts(stall, who, {"free-failure": CAUTION_MAX + 1})
        assert await conduct.of(me) == "swap_first"
        paid = await ended(who)
        assert isinstance(paid, wire.Result)
        assert paid.cost_msat > 0
        async with asyncio.timeout(20):
            while await conduct.of(me) != "allowed":  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        await counts(stall, who, {"free-failure": CAUTION_MAX + 1})


async def test_a_key_with_free_failures_gets_no_chunks(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with market(relay_url, mint_url, tmp_path) as (stall, who):
        for _ in range(CAUTION_MAX + 1):
            await stall.daemon.conduct.note(who.buyer.me.pubkey, "free-failure")
        first = await ended(who, token="")
        second = await ended(who, token="")
        assert isinstance(first, wire.Result)
        assert isinstance(second, wire.Result)
        async with asyncio.timeout(30):
            event = await anext(aiter(who.replies.chunks))
        assert second.accepted is not None
        assert event.pubkey == json.loads(second.accepted["content"])["session"]


# the counts themselves


class BrokenStore:
    """A store that reads and does not write."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def commit(self, *writes: Write) -> list[list[Row]]:
        raise StoreError

    async def read(self, name: str, /, **values: object) -> list[Row]:
        return await self._store.read(name, **values)


async def test_counts_survive_a_restart_and_a_disk_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "provider.db"
    async with SqliteStore.open(path, STORE_PARTS) as store:
        conduct = Conduct(store, CLOCK)
        for kind in KINDS:
            await conduct.note(ME, kind)
        for _ in range(CAUTION_MAX):
            await conduct.note(ME, "ladder")
        assert await conduct.of(ME) == "swap_first"
    async with SqliteStore.open(path, STORE_PARTS) as store:
        conduct = Conduct(store, CLOCK)
        await conduct.open()
        assert await conduct.of(ME) == "swap_first"
        await conduct.paid(ME)
        await conduct.paid(OTHER)
        assert await conduct.of(ME) == "allowed"
        broken = Conduct(BrokenStore(store), CLOCK)
        for _ in range(CAUTION_MAX + 1):
            await broken.note(OTHER, "dust")
        assert await broken.of(OTHER) == "swap_first"
        await conduct.open()
        assert await conduct.of(ME) == "allowed"


async def test_no_more_keys_are_remembered_than_there_is_room_for(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "provider.db", STORE_PARTS) as store:
        conduct = Conduct(store, CLOCK, keys_max=4)
        for n in range(8):
            await conduct.note(f"{n:064}", "dust")
        rows = await store.read("conduct_all")
        assert [row["author"] for row in rows] == [f"{n:064}" for n in range(4, 8)]


async def test_keys_that_never_paid_share_one_count(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "provider.db", STORE_PARTS) as store:
        conduct = Conduct(store, CLOCK)
        await conduct.paid(ME)
        for n in range(STRANGERS_MAX + 1):
            assert await conduct.of(OTHER) == "allowed"
            await conduct.note(f"{n:064}", "free-failure")
        assert await conduct.of(OTHER) == "swap_first"
        assert await conduct.of(ME) == "allowed"
        assert OTHER not in {one.pubkey for one in await read_clients(store, (), 0)}


async def test_what_came_too_late_says_nothing(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "provider.db", STORE_PARTS) as store:
        conduct = Conduct(store, CLOCK)
        for _ in range(3):
            await conduct.note(ME, "replay", said_at=int(CLOCK.now()) - 1_000)
        assert await store.read("conduct_all") == []


async def test_the_block_list(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "provider.db", STORE_PARTS) as store:
        conduct = Conduct(store, CLOCK, [ME])
        conduct.block([OTHER])
        for key in (ME, OTHER):
            with pytest.raises(RemoteError) as caught:
                await conduct.check(key)
            assert caught.value.code == "client-blocked"
        conduct.block([])
        assert (await conduct.of(ME), await conduct.of(OTHER)) == ("blocked", "allowed")
        assert (conduct.is_told(ME), conduct.is_told(ME)) == (False, True)


def test_the_list_is_a_file(tmp_path: Path) -> None:
    real = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    assert read_blocks(tmp_path) == frozenset()
    assert change_blocks(tmp_path, real, blocked=True)
    assert not change_blocks(tmp_path, real, blocked=True)
    (tmp_path / "blocked").write_text(f"{real}\nnonsense\n")
    assert read_blocks(tmp_path) == {real}
    assert change_blocks(tmp_path, real, blocked=False)
    assert read_blocks(tmp_path) == frozenset()
    (tmp_path / "blocked").unlink()
    (tmp_path / "blocked").mkdir()
    for state in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError):
            change_blocks(state, real, blocked=True)


async def test_a_store_is_looked_at_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "provider.db"
    with pytest.raises(StoreError, match="opened"):
        async with reading(path, STORE_PARTS):
            pass
    async with (
        SqliteStore.open(path, STORE_PARTS) as store,
        reading(path, STORE_PARTS) as other,
    ):
        await Conduct(store, CLOCK).note(ME, "dust")
        assert [row["author"] for row in await other.read("conduct_all")] == [ME]
        with pytest.raises(LocalError):
            await other.commit()
        with pytest.raises(LocalError):
            await other.read("nothing")
        with pytest.raises(StoreError):
            await other.read("order_get")


# the operator


async def test_an_operator_sees_his_clients_and_shuts_one_out(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    state = tmp_path / "stall"
    async with scripted(model) as engine:
        text = config_text(state, [relay_url], mint_url, engine.url)
        (state / "provider.toml").write_text(text)
        assert (await cli(state, "clients")).code == 1
        with provider(state, text):
            async with customer(relay_url, mint_url, tmp_path, key_of(state)) as who:
                assert isinstance(await ended(who, token=""), wire.Result)
                npub = to_npub(who.buyer.me.pubkey)
                told = await cli(state, "clients")
                assert told.out == f"{npub}\t1\t1\t25200\t0\t-\t800\tallowed\n"
                assert (await cli(state, "block", npub)).out == f"{npub} is blocked\n"
                assert (await cli(state, "block", npub)).out == f"{npub} is blocked, as before\n"
                answers = 1 + await asyncio.wait_for(until_blocked(who), 30)
                told = await cli(state, "clients", "--json")
                [row] = json.loads(told.out)["clients"]
                assert (row["npub"], row["standing"]) == (npub, "blocked")
                assert row["balance_msat"] == 800 * answers  # change worth less than a coin
                assert (await cli(state, "unblock", npub)).out == f"{npub} is not blocked\n"
        assert (await cli(state, "block", "nobody")).code == 1
        (state / "provider.toml").write_text(f'{text}\n[block]\nkeys = ["{npub}"]\n')
        called = await cli(state, "unblock", npub)
        assert (called.code, called.out) == (1, "")
        assert "names this key" in called.err
        assert (await cli(state, "clients")).out.endswith("blocked\n")


async def until_blocked(who: Customer) -> int:
    """How many answers were bought before the block was in force."""
    answers = 0
    while isinstance(found := await ended(who, token=""), wire.Result):
        answers += 1
        await asyncio.sleep(0.3)
    assert found.problem.code == "client-blocked"
    return answers
