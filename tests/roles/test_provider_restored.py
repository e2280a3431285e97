"""A provider whose store was put back to an old copy, and two that run on copies of one store.

Relays still have what was written since the copy was made, and deliver it again.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from nostrllm.cli.provider import provider
from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.wire import order as wire
from tests.adapters.relay_scripted import until
from tests.adapters.scripted import Scripted, scripted
from tests.roles.market import Buyer, Replies, Stall, buying, config_text, selling
from tests.roles.test_provider_orders import writes

#: A restored store can be short of what it owes; what must hold is that every row agrees.
MAY_FAIL = "everybody can be paid"


@dataclass
class Scene:
    """A stall that can be stopped, and whose store can be put back."""

    folder: Path
    text: str
    engine: Scripted
    buyer: Buyer

    @property
    def copy(self) -> Path:
        """The backup."""
        return self.folder.parent / "copy"

    def back_up(self) -> None:
        """Of a stall that does not run."""
        shutil.copytree(self.folder, self.copy)

    def restore(self) -> None:
        """As `cp -a` would."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copy, self.folder)

    def selling(self) -> Any:
        """The stall runs."""
        return selling(self.text)


@asynccontextmanager
async def scene(relay: str, mint: str, tmp: Path, provider: str = "") -> AsyncIterator[Scene]:
    async with (
        scripted(writes) as engine,
        buying(relay, mint, tmp, amount=600) as buyer,
    ):
        folder = tmp / "stall"
        yield Scene(folder, config_text(folder, [relay], mint, engine.url, provider), engine, buyer)


async def answered(stall: Stall, buyer: Buyer, replies: Replies, message: Any) -> Any:
    """The reply that ends a message."""
    letter = buyer.message(message)
    await buyer.send(letter, stall.pubkey)
    return await ended(replies, letter.id)


async def ended(replies: Replies, letter_id: str) -> Any:
    while True:
        message = await replies.next()
        named = message.to if isinstance(message, wire.Answer) else message.order
        if named == letter_id and not isinstance(message, wire.Accepted):
            return message


async def ordered(stall: Stall, buyer: Buyer, replies: Replies, **fields: Any) -> Any:
    """How an order from the account, or with a token, ends."""
    payment: Any = wire.AccountPayment()
    if "amount" in fields:
        payment = wire.TokenPayment(token=await buyer.token(fields.pop("amount")))
    order = await buyer.order(stall.pubkey, payment, reply=replies.key, **fields)
    return await answered(stall, buyer, replies, order)


def reply_to(buyer: Buyer, replies: Replies) -> wire.ReplyTo:
    return wire.ReplyTo(key=replies.key.pubkey, relays=[buyer.relays.status()[0].url])


async def balance(stall: Stall, buyer: Buyer, replies: Replies, **shown: Any) -> wire.Answer:
    query = wire.Query(reply=reply_to(buyer, replies), what="balance", **shown)
    found = await answered(stall, buyer, replies, query)
    assert isinstance(found, wire.Answer)
    return found


async def proven(stall: Stall) -> None:
    found = audit(await read_books(stall.world.store))
    assert not [check for check in found if not check.ok and check.name != MAY_FAIL]


async def topped_up(stall: Stall, buyer: Buyer, replies: Replies, amount: int) -> wire.Answer:
    top_up = wire.TopUp(reply=reply_to(buyer, replies), token=await buyer.token(amount))
    found = await answered(stall, buyer, replies, top_up)
    assert isinstance(found, wire.Answer)
    return found


async def test_a_restored_copy_executes_nothing_again_and_pays_nothing_twice(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scene(relay_url, mint_url, tmp_path) as at:
        buyer = at.buyer
        async with buyer.listening() as replies:
            async with at.selling() as stall:
                await topped_up(stall, buyer, replies, 100)
            at.back_up()
            async with at.selling() as stall:
                assert not stall.daemon.quarantine.is_on
                by_account = await ordered(stall, buyer, replies)
                by_token = await ordered(stall, buyer, replies, amount=64)
                more = await topped_up(stall, buyer, replies, 50)
                assert min(by_account.cost_msat, by_token.cost_msat) > 0
                truth = await balance(stall, buyer, replies)
            asked = len(at.engine.asked)
            at.restore()
            async with at.selling() as stall:
                assert stall.daemon.quarantine.is_on
                # The relay delivers all three again: each is refused, and none is acted on.
                wanted = {by_account.order, by_token.order, more.to}
                stale: dict[str, str] = {}
                while wanted - stale.keys():
                    message = await replies.next()
                    if isinstance(message, wire.Refused):
                        assert message.problem.code == "message-stale"
                        stale[message.order] = message.problem.message
                assert "Its coins were spent" in stale[by_token.order]
                assert len(at.engine.asked) == asked
                assert len(await stall.orders()) == 0
                before = await balance(stall, buyer, replies)
                assert before.balance_msat == 99_000
                # His own signature says what the account was: it is believed, once.
                shown = await balance(stall, buyer, replies, statement=truth.statement)
                assert shown.balance_msat == truth.balance_msat != 99_000
                again = await balance(stall, buyer, replies, statement=truth.statement)
                assert again.balance_msat == truth.balance_msat
                await proven(stall)
                await asyncio.sleep(1.1)  # created_at counts whole seconds: be newer
                new = await ordered(stall, buyer, replies)
                assert new.cost_msat > 0
                assert len(at.engine.asked) == asked + 1
                await proven(stall)


async def test_statements_are_honoured_up_to_the_cap_and_only_our_own(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scene(relay_url, mint_url, tmp_path, "restored_sat_max = 20") as at:
        buyer = at.buyer
        async with buyer.listening() as replies:
            async with at.selling() as stall:
                await topped_up(stall, buyer, replies, 50)
            at.back_up()
            async with at.selling() as stall:
                truth = await topped_up(stall, buyer, replies, 50)
            at.restore()
            async with at.selling() as stall:
                forged = dict(truth.statement or {}, content="{}")
                query = wire.Query(reply=reply_to(buyer, replies), what="balance", statement=forged)
                refused = await answered(stall, buyer, replies, query)
                assert isinstance(refused, wire.Refused)
                assert (await balance(stall, buyer, replies)).balance_msat == 49_000
                capped = await balance(stall, buyer, replies, statement=truth.statement)
                assert capped.balance_msat == 69_000
                await proven(stall)


async def test_a_statement_that_is_newer_than_the_store_begins_the_quarantine(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """When the relays have forgotten the announcements that would have told."""
    async with scene(relay_url, mint_url, tmp_path) as at:
        buyer = at.buyer
        async with buyer.listening() as replies:
            async with at.selling() as stall:
                await topped_up(stall, buyer, replies, 50)
            at.back_up()
            async with at.selling() as stall:
                truth = await topped_up(stall, buyer, replies, 50)
            at.restore()
            with closing(sqlite3.connect(at.folder / "provider.db")) as db, db:
                db.execute("UPDATE meta SET value = '9999999999' WHERE name LIKE 'at:%'")
            async with at.selling() as stall:
                assert not stall.daemon.quarantine.is_on
                await balance(stall, buyer, replies, statement=truth.statement)
                assert stall.daemon.quarantine.is_on


async def test_prices_after_a_restore_come_after_those_that_relays_have(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """Else the relays would refuse them, and every order would name a list that is not known."""
    async with scene(relay_url, mint_url, tmp_path) as at:
        buyer = at.buyer
        async with buyer.listening() as replies:
            async with at.selling() as stall:
                await topped_up(stall, buyer, replies, 100)
            at.back_up()
            with closing(sqlite3.connect(at.folder / "provider.db")) as db, db:
                db.execute("UPDATE meta SET value = value + 60 WHERE name LIKE 'at:%'")
            async with at.selling():
                pass
            at.restore()
            async with at.selling() as stall:
                assert stall.daemon.quarantine.is_on
                await asyncio.sleep(1.1)  # created_at counts whole seconds: be newer
                assert (await ordered(stall, buyer, replies)).cost_msat > 0


async def test_the_operator_can_say_so(relay_url: str, mint_url: str, tmp_path: Path) -> None:
    async with scene(relay_url, mint_url, tmp_path) as at:
        async with at.selling():
            pass
        config = tmp_path / "provider.toml"
        config.write_text(at.text)
        done = await asyncio.to_thread(
            CliRunner().invoke, provider, ["restored", "--config", str(config)]
        )
        assert done.exit_code == 0, done.output
        assert done.output.startswith("quarantined until ")
        async with at.selling() as stall:
            assert stall.daemon.quarantine.is_on
            assert await stall.daemon.conduct.of(at.buyer.me.pubkey) == "swap_first"


async def test_of_two_daemons_on_one_store_only_the_newer_sells(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scene(relay_url, mint_url, tmp_path) as at:
        buyer = at.buyer
        async with buyer.listening() as replies, AsyncExitStack() as stack:
            async with at.selling() as first:
                await topped_up(first, buyer, replies, 100)
            at.back_up()
            text = at.text.replace(str(at.folder), str(at.copy))
            first = await stack.enter_async_context(at.selling())
            second = await stack.enter_async_context(selling(text))
            await until(lambda: first.daemon.announcer.usurped)
            assert second.daemon.quarantine.is_on
            assert not second.daemon.announcer.usurped
            await asyncio.sleep(1.1)
            result = await ordered(second, buyer, replies)
            assert result.cost_msat > 0
            refund = wire.Refund(reply=reply_to(buyer, replies))
            paid = await answered(second, buyer, replies, refund)
            assert await buyer.worth(paid.change.token) > 0
            assert len(at.engine.asked) == 1
            assert [len(await stall.orders()) for stall in (first, second)] == [0, 1]
            refunds = [await stall.world.store.read("transfers_all") for stall in (first, second)]
            assert [len(rows) for rows in refunds] == [1, 2]  # the top-up was before the copy
