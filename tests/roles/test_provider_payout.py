"""Earnings taken out while mints fail, orders are open and processes die: clients lose nothing."""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import ConfigError, LocalError, OutcomeUnknown
from nostrllm.provider.books import read_books
from nostrllm.provider.payout import Wish, room, uncovered_msat
from nostrllm.purse import Purse
from nostrllm.service.audit import Audit, audit_provider, stopped, withdraw
from nostrllm.service.config import ProviderConfig
from nostrllm.wire import order as wire
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.scripted import scripted
from tests.faultymint import FaultyMint
from tests.roles.market import CLOCK, config_text, selling
from tests.roles.test_provider_audit import Customer, cli, customer, model

pytestmark = pytest.mark.usefixtures("mint_url")

NAME = "withdraw-0123456789abcdef"


@dataclass(frozen=True)
class Stopped:
    """A provider that earned 25.2 sat, keeps 2, 8 and 16 sat, and owes 0.8 sat; at a mint that
    does what a test wants."""

    config: ProviderConfig
    mint: FaultyMint

    async def audit(self, *, offline: bool = False) -> Audit:
        return await audit_provider(self.config, offline=offline)

    async def clean(self) -> Audit:
        """The audit, in which nothing may differ."""
        found = await self.audit()
        assert [check for check in found.checks if not check.ok] == []
        return found

    def change(self, sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.config.provider.state / "provider.db")) as db:
            db.execute(sql, values)
            db.commit()


async def pay(who: Customer, mint: str) -> wire.Result:
    token = replace(parse_token(await who.buyer.token(64)), mint=mint)
    return await who.answered("Hello?", token=encode_token(token))


@pytest.fixture
async def shop(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Stopped]:
    """A provider that has sold one answer."""
    async with scripted(model) as engine, FaultyMint(mint_url) as mint:
        text = config_text(tmp_path / "stall", [relay_url], mint.url, engine.url)
        async with (
            selling(text) as stall,
            customer(relay_url, mint_url, tmp_path, stall.pubkey) as who,
        ):
            assert (await pay(who, mint.url)).cost_msat == 25_200
        (tmp_path / "stall" / "provider.toml").write_text(text)
        yield Stopped(ProviderConfig.model_validate(tomllib.loads(text)), mint)


def notes(found: Audit) -> list[str]:
    return [note for check in found.checks for note in check.notes]


async def interrupted(shop: Stopped) -> None:
    """A withdrawal of 3 sat whose swap the mint did, without anybody hearing of it."""
    shop.mint.faults += ["lost"] * 100
    with pytest.raises(OutcomeUnknown):
        await withdraw(shop.config, NAME, Wish(3))
    shop.mint.faults.clear()


async def test_a_withdrawal_that_was_cut_is_taken_up_by_its_name(shop: Stopped) -> None:
    before = (await shop.clean()).summary
    await interrupted(shop)
    found = await shop.clean()
    assert found.summary.open_operations == (NAME,)
    assert found.summary.withdrawn_msat == 0
    assert any(note.startswith("reserved SPENT") for note in notes(found))
    taken = await withdraw(shop.config, NAME, None)
    assert (taken.amount, taken.fee, taken.token.amount) == (3, 1, 3)
    assert await withdraw(shop.config, NAME, None) == taken
    after = (await shop.clean()).summary
    assert (after.withdrawn_msat, after.fees_msat) == (3_000, 1_000)
    assert after.owed_msat == before.owed_msat
    assert after.earned_msat == before.earned_msat


async def test_what_was_taken_leaves_the_books_while_selling_goes_on(
    shop: Stopped, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """The daemon sees the owner's token and a client's change spent; only the change is booked."""
    taken = await withdraw(shop.config, NAME, Wish(3))
    before = (await shop.clean()).summary
    text = (shop.config.provider.state / "provider.toml").read_text()
    async with (
        selling(text) as stall,
        customer(relay_url, mint_url, tmp_path, stall.pubkey) as who,
    ):
        await who.buyer.worth(encode_token(replace(taken.token, mint=mint_url)))
        [order] = await stall.orders()
        change = await stall.world.purse.token_of(order["id"])
        assert change is not None
        await who.buyer.worth(encode_token(replace(change, mint=mint_url)))
        assert await stall.daemon.recovery.book_spent_change() == 2
    after = (await shop.clean()).summary
    assert before.owed_msat["change"] == 37_000
    assert after.owed_msat["change"] == 0
    assert after.withdrawn_msat == before.withdrawn_msat == 3_000
    with pytest.raises(LocalError, match="was taken"):
        await withdraw(shop.config, NAME, None)


async def test_nothing_but_the_token_is_printed(shop: Stopped) -> None:
    """Not even while the mint gives cause for a line in the log."""
    folder = shop.config.provider.state
    shop.mint.faults += ["lost"] * 100
    called = await cli(folder, "withdraw", "3")
    assert (called.code, called.out) == (1, "")
    assert "error: payment-mint-unreachable" in called.err
    name = called.err.split("--again ")[1].split()[0]
    audited = await cli(folder, "audit", "--offline")
    assert audited.code == 0
    assert f"open       {name}\n" in audited.out
    shop.mint.faults[:] = ["lost"]
    called = await cli(folder, "withdraw", "--again", name)
    assert called.code == 0
    assert parse_token(called.out.removesuffix("\n")).amount == 3
    assert "3 sat at" in called.err


async def test_what_the_mint_refuses_stays(shop: Stopped) -> None:
    shop.mint.says["/v1/swap"] = (400, '{"detail": "no", "code": 11005}')
    with pytest.raises(LocalError, match="refused"):
        await withdraw(shop.config, NAME, Wish(3))
    assert (await shop.clean()).summary.withdrawn_msat == 0
    del shop.mint.says["/v1/swap"]
    with pytest.raises(LocalError, match="refused"):
        await withdraw(shop.config, NAME, None)


async def test_an_owner_has_no_more_than_is_left(shop: Stopped) -> None:
    """26 sat are free; one may go to the mint, and 0.8 are a client's."""
    with pytest.raises(LocalError, match="at most 24 sat"):
        await withdraw(shop.config, NAME, Wish(25))
    with pytest.raises(LocalError, match="at most 24 sat"):
        await withdraw(shop.config, NAME, Wish(25, mint=shop.mint.url + "/"))
    with pytest.raises(LocalError, match="no free coins"):
        await withdraw(shop.config, NAME, Wish(1, "msat"))
    for wish in (Wish(1, "usd"), Wish(1, mint="nowhere")):
        with pytest.raises(ConfigError):
            await withdraw(shop.config, NAME, wish)
    assert (await withdraw(shop.config, NAME, Wish(24))).fee == 0
    assert (await shop.clean()).summary.withdrawn_msat == 24_000


async def test_what_an_account_put_aside_is_not_the_owners(shop: Stopped) -> None:
    """An account paid 10 sat for an order that has not ended: the owner has 10 sat less to take."""
    shop.change(
        "INSERT INTO entry SELECT 'held:o', 0, 'account:' || pubkey, 'order:o', 10000, 0"
        " FROM account"
        " UNION SELECT 'topup:t', 0, 'coins:sat:' || mint, 'account:' || pubkey, 10000, 0"
        " FROM orders, account"
    )
    shop.change(
        "INSERT INTO orders SELECT 'o', wrap, author, dialect, reply_key, reply_relays, 'account',"
        " 'paid', model, price, '', '', 10000, 0, 0, 0, 10000, 0, 0, 0, commitment, '', '', '',"
        " deadline, created_at, updated_at FROM orders"
    )
    async with stopped(shop.config) as store, CashuMints() as mints:
        books = await read_books(store)
        assert uncovered_msat(books) == 10_800
        purse = Purse(store, mints, CLOCK, bytes(64))
        assert await room(books, purse, shop.mint.url, "sat") == 26 - 1 - 11


async def test_coins_of_a_suspect_swap_are_in_the_books_and_counted_as_lost(shop: Stopped) -> None:
    await interrupted(shop)
    shop.change("UPDATE operation SET state = 'SUSPECT' WHERE id = ?", NAME)
    found = await shop.clean()
    assert f"lost at {shop.mint.url}: 8000 msat" in notes(found)
    with pytest.raises(LocalError, match="signed wrongly"):
        await withdraw(shop.config, NAME, None)


async def test_coins_found_in_a_lost_past_need_no_posting(shop: Stopped) -> None:
    shop.change(
        "INSERT INTO proof SELECT ?, mint, unit, keyset_id, 4, 'found', c, dleq_e, dleq_s, dleq_r,"
        " 'free', '', 'found:' || operation FROM proof WHERE state = 'free' LIMIT 1",
        y_of("found"),
    )
    found = await shop.audit(offline=True)
    assert found.ok
    assert f"found in coins:sat:{shop.mint.url}: 4000 msat" in notes(found)
    shop.change("UPDATE proof SET state = 'spent' WHERE secret = 'found'")
    assert not (await shop.audit(offline=True)).ok


async def test_a_mint_that_is_silent_proves_nothing(shop: Stopped) -> None:
    shop.mint.says["/v1/checkstate"] = (500, "")
    found = await shop.audit()
    assert not found.ok
    assert found.checks[-1].faults[0].startswith("not proven: ")
    assert (await shop.audit(offline=True)).ok


async def test_pending_coins_and_strange_keysets_are_told(shop: Stopped) -> None:
    def pending(answer: Any) -> Any:
        return {"states": [{**row, "state": "PENDING"} for row in answer["states"]]}

    shop.mint.changes["/v1/checkstate"] = pending
    found = await shop.clean()
    assert sum(note.startswith("PENDING: ") for note in notes(found)) > 3
    shop.change("UPDATE proof SET keyset_id = '00'")
    found = await shop.audit()
    assert any("shows no key" in fault for fault in found.checks[-1].faults)


async def test_a_folder_without_a_provider_is_left_alone(shop: Stopped, tmp_path: Path) -> None:
    table = shop.config.provider.model_copy(update={"state": tmp_path / "none"})
    config = shop.config.model_copy(update={"provider": table})
    with pytest.raises(ConfigError, match="no provider has run"):
        await audit_provider(config)
    assert not (tmp_path / "none").exists()
    (shop.config.provider.state / "seed").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        await withdraw(shop.config, NAME, Wish(1))
