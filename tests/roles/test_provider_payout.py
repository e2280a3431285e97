"""Earnings taken out while mints fail, orders are open and processes die: clients lose nothing."""

from __future__ import annotations

import asyncio
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
from nostrllm.errors import ConfigError, LocalError, OutcomeUnknown, RemoteError
from nostrllm.provider.books import read_books
from nostrllm.provider.payout import Paid, PayOrder, Wish, Withdrawal, room, uncovered_msat
from nostrllm.purse import Purse
from nostrllm.service.audit import (
    Audit,
    audit_provider,
    pay,
    stopped,
    withdraw,
    withdraw_again,
)
from nostrllm.service.config import ProviderConfig, SweepTable
from nostrllm.service.sweep import sweep, sweep_for_ever, sweep_stopped
from nostrllm.wire import order as wire
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.scripted import scripted
from tests.faultymint import FaultyMint
from tests.invoices import invoice
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


async def buy(who: Customer, mint: str) -> wire.Result:
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
            assert (await buy(who, mint.url)).cost_msat == 25_200
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
    taken = await withdraw_again(shop.config, NAME)
    assert isinstance(taken, Withdrawal)
    assert (taken.amount, taken.fee, taken.token.amount) == (3, 1, 3)
    assert await withdraw_again(shop.config, NAME) == taken
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
        await withdraw_again(shop.config, NAME)


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
        await withdraw_again(shop.config, NAME)


async def test_an_owner_has_no_more_than_is_left(shop: Stopped) -> None:
    """26 sat are free; one may go to the mint, and 0.8 are a client's."""
    with pytest.raises(LocalError, match="at most 24 sat"):
        await withdraw(shop.config, NAME, Wish(25))
    with pytest.raises(LocalError, match="at most 24 sat"):
        await withdraw(shop.config, NAME, Wish(25, mint=shop.mint.url + "/"))
    with pytest.raises(LocalError, match="no free coins"):
        await withdraw(shop.config, NAME, Wish(1, "msat"))
    for wish in (Wish(1, "eur"), Wish(1, mint="nowhere")):
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
        " deadline, created_at, updated_at, 1000 FROM orders"
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
    assert f"lost in coins:sat:{shop.mint.url}: 8000 msat" in notes(found)
    with pytest.raises(LocalError, match="signed wrongly"):
        await withdraw_again(shop.config, NAME)


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


# by Lightning


MELT = "/v1/melt/bolt11"


async def test_an_invoice_is_paid_from_what_is_the_owners(shop: Stopped) -> None:
    before = (await shop.clean()).summary
    told: list[Paid] = []
    order = PayOrder(invoice(10_000), Wish(0), told.append)
    paid = await pay(shop.config, NAME, order)
    assert paid == Paid(NAME, shop.mint.url, "sat", 10, 2)
    assert [(price.amount, price.fee) for price in told] == [(10, 3)]
    after = (await shop.clean()).summary
    assert (after.withdrawn_msat, after.fees_msat) == (10_000, 2_000)
    assert after.owed_msat == before.owed_msat
    assert await withdraw_again(shop.config, NAME) == paid


async def test_no_invoice_is_paid_with_what_others_own(shop: Stopped) -> None:
    with pytest.raises(LocalError, match="yours to take") as caught:
        await pay(shop.config, NAME, PayOrder(invoice(22_000), Wish(0)))
    assert caught.value.code == "wallet-empty"

    def no(price: Paid) -> None:
        raise LocalError("too dear")

    with pytest.raises(LocalError, match="too dear"):
        await pay(shop.config, NAME, PayOrder(invoice(10_000), Wish(0), no))
    assert MELT not in [path for path, _ in shop.mint.calls]
    with pytest.raises(RemoteError):
        await pay(shop.config, NAME, PayOrder("lnbc", Wish(0)))
    assert (await shop.clean()).summary.withdrawn_msat == 0


async def test_a_payment_that_was_cut_is_taken_up_by_its_name(shop: Stopped) -> None:
    shop.mint.faults = ["", *["lost"] * 100]  # "": the quote
    with pytest.raises(OutcomeUnknown):
        await pay(shop.config, NAME, PayOrder(invoice(10_000), Wish(0)))
    shop.mint.faults.clear()
    found = await shop.clean()
    assert found.summary.open_operations == (NAME,)
    paid = await withdraw_again(shop.config, NAME)
    assert isinstance(paid, Paid)
    assert (paid.amount, paid.fee) == (10, 2)
    assert (await shop.clean()).summary.withdrawn_msat == 10_000


async def test_a_payment_that_failed_leaves_the_coins(shop: Stopped) -> None:
    before = (await shop.clean()).summary
    shop.mint.says[MELT] = (400, '{"detail": "no route", "code": 20004}')
    with pytest.raises(LocalError, match="free again") as caught:
        await pay(shop.config, NAME, PayOrder(invoice(10_000), Wish(0)))
    assert caught.value.code == "payment-lightning-failed"
    assert (await shop.clean()).summary.coins == before.coins


async def test_invoices_from_the_command_line(shop: Stopped) -> None:
    state = shop.config.provider.state
    called = await cli(state, "withdraw", "--invoice", invoice(10_000))
    assert (called.code, called.out) == (0, "")
    assert "pays 10 sat" in called.err
    assert "at most 3 on top" in called.err
    assert "paid 10 sat" in called.err
    assert (await cli(state, "withdraw", "5", "--invoice", invoice(10_000))).code == 2
    assert (await cli(state, "sweep", "--invoice", "lnbc")).code == 1
    await shop.clean()


# by themselves


async def test_a_sweep_takes_all_that_is_the_owners_and_no_more(shop: Stopped) -> None:
    before = (await shop.clean()).summary
    assert await sweep_stopped(shop.config, SweepTable(threshold_sat=25)) == []
    [swept] = await sweep_stopped(shop.config, SweepTable(threshold_sat=5, keep_sat=4))
    assert swept.path.parent == shop.config.provider.state / "sweeps"
    assert swept.path.stat().st_mode & 0o777 == 0o600
    token = parse_token(swept.path.read_text().strip())
    assert (token.mint, token.amount) == (shop.mint.url, swept.amount)
    after = (await shop.clean()).summary
    assert after.withdrawn_msat == swept.amount * 1_000
    assert after.owed_msat == before.owed_msat
    assert await sweep_stopped(shop.config, SweepTable(threshold_sat=5)) == []


async def test_a_sweep_that_was_cut_gets_its_file(shop: Stopped) -> None:
    shop.mint.faults += ["lost"] * 100
    with pytest.raises(OutcomeUnknown):
        await sweep_stopped(shop.config, SweepTable(threshold_sat=1, keep_sat=1))
    shop.mint.faults.clear()
    table = SweepTable(threshold_sat=15)
    [swept] = await sweep_stopped(shop.config, table)
    text = swept.path.read_text()
    # as if the process had died before the store knew of the file
    shop.change("DELETE FROM meta WHERE name LIKE 'swept:%'")
    swept.path.unlink()
    assert await sweep_stopped(shop.config, table) == [swept]
    assert swept.path.read_text() == text
    # and one that was taken meanwhile has none
    shop.change("DELETE FROM meta WHERE name LIKE 'swept:%'")
    shop.change("UPDATE proof SET state = 'spent' WHERE owner LIKE 'withdraw-sweep-%'")
    swept.path.unlink()
    assert await sweep_stopped(shop.config, table) == []


async def test_nothing_is_swept_out_of_books_that_do_not_agree(shop: Stopped) -> None:
    shop.change("UPDATE account SET balance_msat = balance_msat + 1")
    with pytest.raises(LocalError, match="do not agree"):
        await sweep_stopped(shop.config, SweepTable(threshold_sat=1))
    assert (await cli(shop.config.provider.state, "sweep")).code == 1


async def test_a_running_provider_sweeps_and_stays_whole(
    shop: Stopped, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """Orders, top-ups and sweeps at once; whatever is swept, everybody can be paid after."""
    state = shop.config.provider.state
    async with (
        selling((state / "provider.toml").read_text()) as stall,
        customer(relay_url, mint_url, tmp_path, stall.pubkey) as who,
    ):
        world, table = stall.world, SweepTable(threshold_sat=1)
        for _ in range(3):
            async with asyncio.TaskGroup() as group:
                group.create_task(buy(who, shop.mint.url))
                for _ in range(3):
                    await sweep(world.store, world.purse, state, table, world.now_s)
            token = replace(parse_token(await who.buyer.token(20)), mint=shop.mint.url)
            async with asyncio.TaskGroup() as group:
                filled = wire.TopUp(reply=who.reply, token=encode_token(token))
                group.create_task(who.send(filled))
                for _ in range(3):
                    await sweep(world.store, world.purse, state, table, world.now_s)
            await who.answer()
        assert len(list((state / "sweeps").glob("*.token"))) >= 3
    await shop.clean()


async def test_a_sweep_from_the_command_line(shop: Stopped) -> None:
    called = await cli(shop.config.provider.state, "sweep", "--keep", "5")
    assert called.code == 0
    [path] = (shop.config.provider.state / "sweeps").glob("*")
    assert called.out == f"{path}\n"
    assert "the mint's fee" in called.err


async def test_the_daemon_sweeps_by_its_file(shop: Stopped) -> None:
    """As the process does: at the start, and then as often as the file says."""
    state = shop.config.provider.state
    async with selling((state / "provider.toml").read_text()) as stall:
        world, table = stall.world, SweepTable(threshold_sat=1, every_s=10)
        running = asyncio.create_task(
            sweep_for_ever(world.store, world.purse, state, table, world.now_s)
        )
        for _ in range(600):
            if list((state / "sweeps").glob("*.token")):
                break
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(list((state / "sweeps").glob("*.token"))) == 1
    await shop.clean()
