"""The books of a provider: clean after whatever happens to it, and every lie in them found."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import sqlite3
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nostrllm.errors import LocalError
from nostrllm.provider.payout import Wish
from nostrllm.service.audit import Audit, audit_provider, withdraw
from nostrllm.service.config import ProviderConfig
from nostrllm.wire import order as wire
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.scripted import Wire, scripted
from tests.roles.market import Buyer, Replies, buying, config_text, question, selling
from tests.roles.test_provider_process import key_of, provider

pytestmark = pytest.mark.usefixtures("mint_url")


async def model(asked: Wire) -> None:
    """Fails, never ends, or answers, whatever the question asks for."""
    wanted = json.dumps(asked.body["messages"])
    if "fail" in wanted:
        await asked.status(500, {"error": {"message": "out of memory"}})
        return
    await asked.open()
    while "for ever" in wanted:
        await asked.text("again ")
        await asyncio.sleep(0.01)
    await asked.text("Hello.")
    await asked.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 10, "completion_tokens": 400}
    await asked.event({"choices": [], "usage": usage})
    await asked.end()


@dataclass
class Customer:
    """A buyer at one provider, and where its answers come."""

    buyer: Buyer
    to: str
    replies: Replies

    async def send(self, content: wire.ClientMessage) -> str:
        letter = self.buyer.message(content)
        await self.buyer.send(letter, self.to)
        return letter.id

    async def order(self, text: str, *, token: str | None = None, **fields: Any) -> str:
        """An order, paid by this token; by a new one of 64 sat if it is ""; or by the account."""
        payment: wire.TokenPayment | wire.AccountPayment = wire.AccountPayment()
        if token is not None:
            payment = wire.TokenPayment(token=token or await self.buyer.token(64))
        fields = {"body": question(text), **fields}
        return await self.send(
            await self.buyer.order(self.to, payment, reply=self.replies.key, **fields)
        )

    async def answered(self, text: str, **fields: Any) -> wire.Result:
        await self.order(text, **fields)
        return await self.replies.result()

    @property
    def reply(self) -> wire.ReplyTo:
        url = self.buyer.relays.status()[0].url
        return wire.ReplyTo(key=self.replies.key.pubkey, relays=[url])

    async def answer(self) -> wire.Answer:
        while not isinstance(message := await self.replies.next(), wire.Answer):
            continue
        return message

    async def top_up(self, amount: int) -> wire.Answer:
        await self.send(wire.TopUp(reply=self.reply, token=await self.buyer.token(amount)))
        return await self.answer()

    async def refund(self) -> wire.Answer:
        await self.send(wire.Refund(reply=self.reply))
        return await self.answer()


@asynccontextmanager
async def customer(relay: str, mint: str, tmp: Path, to: str) -> AsyncIterator[Customer]:
    async with (
        buying(relay, mint, tmp, 2_000) as buyer,
        buyer.listening() as replies,
    ):
        yield Customer(buyer, to, replies)


async def trade(who: Customer) -> None:
    """Token and account orders, answered and failed; change taken and not; top-ups, refunds."""
    await who.answered("Hello?", token="")
    result = await who.answered("Hello?", token="")
    assert result.change is not None
    await who.buyer.purse.receive("change", parse_token(result.change.token))
    assert (await who.answered("fail", token="")).problem is not None
    await who.top_up(200)
    assert (await who.answered("Hello?")).problem is None
    assert (await who.answered("fail")).problem is not None
    assert (await who.refund()).change is not None
    await who.top_up(300)
    quote = await who.buyer.purse.fund(who.buyer.mint, 90_000, "msat")
    await who.buyer.purse.claim_quote(quote.quote, wait_s=10)
    coins = await who.buyer.purse.send("m", who.buyer.mint, "msat", 64_000)
    assert (await who.answered("Hello?", token=encode_token(coins))).problem is None


@dataclass(frozen=True)
class Called:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


async def cli(folder: Path, command: str, *words: str) -> Called:
    """`nostrllm provider COMMAND` on the provider in a folder."""
    line = ("provider", command, "--config", str(folder / "provider.toml"), *words)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nostrllm", *line,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return Called(process.returncode, out.decode(), err.decode())


async def clean(folder: Path) -> Any:
    """The audit's JSON, after making sure that nothing differs."""
    called = await cli(folder, "audit", "--json")
    found = json.loads(called.out)
    wrong = [check for check in found["checks"] if not check["ok"]]
    assert (called.code, wrong, found["ok"]) == (0, [], True)
    return found["summary"]


async def test_a_market_with_a_kill_is_clean_before_and_after_recovery(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    state = tmp_path / "stall"
    async with scripted(model) as engine:
        text = config_text(state, [relay_url], mint_url, engine.url)
        assert (await cli(state, "audit")).code == 1
        async with customer(relay_url, mint_url, tmp_path, key_of(state)) as who:
            with provider(state, text) as child:
                await trade(who)
                for paid_by in ("", None):
                    await who.order("for ever", token=paid_by)
                    await anext(aiter(who.replies.chunks))
                for command in (("audit",), ("ledger",), ("withdraw", "1")):
                    called = await cli(state, *command)
                    assert (called.code, called.out) == (1, "")
                    assert "error: busy: the provider is running" in called.err
                child.kill()
            before = await clean(state)
            assert before["orders"]["paid"] == 2
            await open_orders_are_left_alone(state, before)
            with provider(state, text):
                for _ in range(2):
                    result = await who.replies.result()
                    assert result.problem is not None
            after = await clean(state)
            assert "paid" not in after["orders"]
            assert after["earned_msat"] == before["earned_msat"] > 0
            await the_ledger_is_exported(state, after)
            await the_owner_takes_what_is_his(state, who, after)
            with provider(state, text):
                await asyncio.wait_for(paid_out(who), 60)
            await clean(state)


async def paid_out(who: Customer) -> None:
    """A whole balance, a part of which may have to wait for coins that try the mint."""
    while True:
        await who.send(wire.Refund(reply=who.reply))
        message = await who.replies.next()
        if isinstance(message, wire.Answer):
            if (message.balance_msat or 0) < 3_000:
                return
        elif isinstance(message, wire.Refused):
            assert message.problem.code in ("busy", "account-insufficient")
        await asyncio.sleep(1.1)  # another message than the one before


async def open_orders_are_left_alone(state: Path, summary: Any) -> None:
    """What a withdrawal may take, while orders of a token and of an account are open."""
    coins = next(row["msat"] for row in summary["coins"] if row["unit"] == "sat")
    owed = summary["owed_msat"]
    assert coins["held"] > 0
    assert owed["order"] > coins["held"]
    free = coins["free"] - owed["account"] - (owed["order"] - coins["held"])
    called = await cli(state, "withdraw", "100000")
    assert (called.code, called.out) == (1, "")
    assert 0 < int(called.err.split("at most ")[1].split()[0]) * 1_000 <= free


async def the_ledger_is_exported(state: Path, summary: Any) -> None:
    called = await cli(state, "ledger", "--csv", str(state / "ledger.csv"))
    text = (state / "ledger.csv").read_bytes()
    assert text.startswith(b"time,set,account,amount,currency,kind\r\n")
    assert text.count(b"\n") == text.count(b"\r\n")
    assert (await cli(state, "ledger", "--csv", "-")).out.replace("\r", "") == (
        text.decode().replace("\r", "")
    )
    rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    assert called.err == f"{len(rows)} postings in {state / 'ledger.csv'}\n"
    assert {row["kind"] for row in rows} >= {"paid", "held", "settled", "topup", "refund"}
    assert all(row["set"].startswith(row["kind"] + ":") for row in rows)
    assert sum(int(row["amount"]) for row in rows) == 0
    income = sum(int(row["amount"]) for row in rows if row["account"] == "income")
    assert -income == summary["earned_msat"]
    assert all(datetime.fromisoformat(row["time"]).tzinfo for row in rows)
    balances = (await cli(state, "ledger")).out
    assert f"income\t{income}\tmsat\n" in balances


async def the_owner_takes_what_is_his(state: Path, who: Customer, summary: Any) -> None:
    """To the last sat that is his, and not one more."""
    coins = sum(sum(row["msat"].values()) for row in summary["coins"])
    free = coins - summary["owed_msat"]["change"] - summary["owed_msat"]["account"]
    called = await cli(state, "withdraw", "100000")
    assert (called.code, called.out) == (1, "")
    most = int(called.err.split("at most ")[1].split()[0])
    assert 0 < most * 1_000 <= free
    assert (await cli(state, "withdraw", str(most + 1))).code == 1
    called = await cli(state, "withdraw", str(most))
    assert called.code == 0
    assert called.out.startswith("cashuB")
    assert called.out.count("\n") == 1
    assert f"{most} sat" in called.err
    name = called.err.split("--again ")[1].split()[0]
    once_more = await cli(state, "withdraw", "--again", name)
    assert parse_token(once_more.out.strip()) == parse_token(called.out.strip())
    after = await clean(state)
    assert after["withdrawn_msat"] == most * 1_000
    assert after["owed_msat"] == summary["owed_msat"]
    assert 0 < await who.buyer.worth(called.out) <= most
    assert (await cli(state, "withdraw", "4")).code == 1  # what swapping fewer coins saved is less
    assert (await cli(state, "withdraw", "--again", "ab" * 32)).code == 1
    assert (await cli(state, "withdraw")).code == 2


#: What somebody, or a disk, does to the rows, and the check that tells.
TAMPERED = [
    ("UPDATE entry SET msat = msat + 1 WHERE credit = 'income'", "booked as they ended"),
    ("UPDATE entry SET msat = 'much' WHERE credit = 'income'", "can be read"),
    ("UPDATE entry SET debit = 'fees' WHERE debit LIKE 'coins:sat:%'", "what the ledger says"),
    ("DELETE FROM entry WHERE set_id LIKE 'settled:%'", "booked as they ended"),
    ("DELETE FROM entry WHERE set_id LIKE 'settled:%'", "posted or void"),
    ("DELETE FROM entry WHERE set_id LIKE 'refund:%'", "top-ups and refunds are booked"),
    (
        "UPDATE entry SET set_id = 'refund:' || substr(set_id, 9) WHERE set_id LIKE 'settled:%'",
        "belongs to something",
    ),
    ("INSERT INTO entry VALUES ('gift', 0, 'fees', 'income', 5, 0)", "belongs to"),
    ("INSERT INTO entry SELECT 'refund:' || id, 0, 'fees', 'owner', 5, 0 FROM orders", "or void"),
    ("UPDATE account SET balance_msat = balance_msat + 1", "accounts hold"),
    ("DELETE FROM account", "accounts hold"),
    ("UPDATE orders SET cost_msat = cost_msat + 1 WHERE state = 'closed'", "orders add up"),
    (
        "UPDATE orders SET cost_msat = cost_msat - 1, credit_msat = credit_msat + 1"
        " WHERE cost_msat > 0",
        "orders are booked",
    ),
    ("UPDATE orders SET state = 'paid' WHERE state = 'closed'", "belongs to something"),
    ("UPDATE orders SET state = 'dancing'", "orders add up"),
    ("UPDATE orders SET mint = 'https://mint.example' WHERE mint <> ''", "orders are booked"),
    ("DELETE FROM orders", "belongs to something"),
    ("UPDATE transfer SET msat = msat + 1000", "top-ups and refunds are booked"),
    ("UPDATE transfer SET state = 'refused'", "top-ups and refunds are booked"),
    ("DELETE FROM transfer", "belongs to something"),
    ("UPDATE proof SET state = 'spent' WHERE state = 'free'", "what the ledger says"),
    ("DELETE FROM proof WHERE state = 'free'", "what the ledger says"),
    ("UPDATE proof SET amount = amount * 2 WHERE state = 'free'", "what the ledger says"),
    ("UPDATE proof SET unit = 'eur'", "can be read"),
    ("UPDATE proof SET unit = 'usd'", "what the ledger says"),
    ("UPDATE orders SET unit_msat = 7 WHERE change_units > 0", "orders add up"),
    ("UPDATE proof SET state = 'free', owner = '' WHERE state = 'sent'", "change given"),
    ("UPDATE proof SET state = 'held' WHERE state = 'free'", "coins are held"),
    ("UPDATE proof SET state = 'reserved' WHERE state = 'free'", "reserved coins"),
    ("UPDATE proof SET secret = '00'", "name of their secret"),
    ("DELETE FROM claim", "claimed"),
    ("UPDATE claim SET owner = 'somebody'", "claimed"),
    ("UPDATE operation SET amount = amount + 1", "payment has its operation"),
    ("UPDATE operation SET state = 'REJECTED'", "payment has its operation"),
    ("UPDATE operation SET body = '{}' WHERE kind = 'receive'", "can be read"),
    ("UPDATE operation SET body = '' WHERE kind = 'receive'", "claimed"),
    ("DELETE FROM operation", "payment has its operation"),
]

#: Tables with money in them, and values that their columns never have.
TABLES = ("orders", "transfer", "account", "entry", "proof", "operation", "claim")
ODD = ("x", -1, b"\x00\xff", 1e300, 1 << 62)


@dataclass(frozen=True)
class Copies:
    """A stopped provider's state, to be copied and spoiled."""

    config: ProviderConfig
    folder: Path

    def copy(self, name: str, sql: str = "", values: tuple[Any, ...] = ()) -> ProviderConfig | None:
        """A copy after this statement; None if the database itself refuses it."""
        folder = self.folder / name
        shutil.copytree(self.config.provider.state, folder)
        if sql:
            with closing(sqlite3.connect(folder / "provider.db")) as db:
                try:
                    db.execute(sql, values)
                except sqlite3.IntegrityError:
                    return None
                db.commit()
        table = self.config.provider.model_copy(update={"state": folder})
        return self.config.model_copy(update={"provider": table})

    def columns(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.config.provider.state / "provider.db")) as db:
            return [
                (table, row[1])
                for table in TABLES
                for row in db.execute(f"PRAGMA table_info({table})")
            ]


@pytest.fixture
async def copies(relay_url: str, mint_url: str, tmp_path: Path) -> Copies:
    """The state of a provider that traded and stopped in good order."""
    state = tmp_path / "stall"
    async with scripted(model) as engine:
        text = config_text(state, [relay_url], mint_url, engine.url)
        async with (
            selling(text) as stall,
            customer(relay_url, mint_url, tmp_path, stall.pubkey) as who,
        ):
            await trade(who)
    return Copies(ProviderConfig.model_validate(tomllib.loads(text)), tmp_path)


def failed(found: Audit) -> str:
    return "; ".join(check.name for check in found.checks if not check.ok)


async def test_every_tampered_row_is_found(copies: Copies) -> None:
    whole = await audit_provider(copies.config, offline=True)
    assert failed(whole) == ""
    for number, (sql, told) in enumerate(TAMPERED):
        config = copies.copy(f"tampered-{number}", sql)
        assert config is not None
        found = await audit_provider(config, offline=True)
        assert told in failed(found), sql


async def test_odd_rows_crash_nothing(copies: Copies) -> None:
    number = 0
    for table, column in copies.columns():
        for value in ODD:
            number += 1
            sql = f"UPDATE OR IGNORE {table} SET {column} = ?"
            config = copies.copy("odd", sql, (value,))
            if config is not None:
                found = await audit_provider(config, offline=True)
                assert found.summary.earned_msat >= 0 or not found.ok
            shutil.rmtree(copies.folder / "odd")


async def test_the_mint_is_asked_whether_the_coins_are_there(
    copies: Copies, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    spent = copies.copy("spent")
    assert spent is not None
    taken = await withdraw(spent, "withdraw-1", Wish(3))
    async with buying(relay_url, mint_url, tmp_path, 0) as thief:
        await thief.worth(encode_token(taken.token))
    found = await audit_provider(copies.config)
    assert failed(found) == f"{copies.config.provider.mints[0]} has the coins"
    assert any("SPENT there" in fault for fault in found.checks[-1].faults)
    assert failed(await audit_provider(copies.config, offline=True)) == ""
    forged = copies.copy("forged", "UPDATE proof SET dleq_e = dleq_s WHERE state = 'free'")
    assert forged is not None
    found = await audit_provider(forged)
    assert any("did not sign" in fault for fault in found.checks[-1].faults)


async def test_nothing_is_taken_out_of_books_that_do_not_agree(copies: Copies) -> None:
    config = copies.copy("wrong", "UPDATE account SET balance_msat = 0")
    assert config is not None
    with pytest.raises(LocalError, match="do not agree"):
        await withdraw(config, "withdraw-1", Wish(1))
    called = await cli(copies.folder / "wrong", "audit", "--offline")
    assert called.code == 1
