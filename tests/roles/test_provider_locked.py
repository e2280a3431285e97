"""Locked tokens: taken at once, swapped afterwards, given back whole; and every way to cheat."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.core.lock import Lock, locked_secret
from nostrllm.crypto.bdhke import public_key_of, verify_secret, witness
from nostrllm.ports import Filter
from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.provider.payout import deposit
from nostrllm.provider.reconcile import reconcile
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_announcement
from nostrllm.wire.event import Rumor
from nostrllm.wire.token import (
    BlindedMessage,
    BlindSignature,
    Dleq,
    Token,
    encode_token,
    parse_token,
)
from tests.adapters.scripted import Script, Wire, scripted
from tests.roles.market import CLOCK, Buyer, Replies, Stall, buying, config_text, selling
from tests.roles.test_provider_orders import writes

WORTH = 64
ORDER_S = 30


async def fails(asked: Wire) -> None:
    await asked.status(500, {"error": {"message": "broken"}})


@dataclass
class Market:
    """A provider whose mint was tried, and a buyer."""

    stall: Stall
    buyer: Buyer
    key: str

    async def pay(self, **change: Any) -> Paid:
        """A locked token and outputs for its change; `change` replaces parts of the lock."""
        n = secrets.token_hex(6)
        lock = {"key": self.key, "locktime": int(CLOCK.now()) + ORDER_S + 3_900, **change}
        token = await self.buyer.purse.send(
            f"pay-{n}", self.buyer.mint, "sat", WORTH, lock=(lock["key"], lock["locktime"])
        )
        write, outputs = await self.buyer.purse.plan_ladder(
            f"ladder-{n}", self.buyer.mint, "sat", WORTH
        )
        await self.buyer.store.commit(write)
        return Paid(n, token, outputs)

    async def order(self, paid: Paid, replies: Replies, **fields: Any) -> Rumor:
        payment = wire.LockedPayment(
            token=encode_token(paid.token),
            outputs=[wire.Output(**output.as_dict()) for output in paid.outputs],
        )
        values = {"deadline": int(CLOCK.now()) + ORDER_S, **fields}
        order = await self.buyer.order(self.stall.pubkey, payment, reply=replies.key, **values)
        letter = self.buyer.message(order)
        await self.buyer.send(letter, self.stall.pubkey)
        return letter

    async def ended(self, replies: Replies) -> wire.Result | wire.Refused:
        while True:
            message = await replies.next()
            if isinstance(message, wire.Result | wire.Refused):
                return message

    async def buys(self, paid: Paid, **fields: Any) -> wire.Result | wire.Refused:
        async with self.buyer.listening() as replies:
            await self.order(paid, replies, **fields)
            return await self.ended(replies)

    async def audited(self) -> None:
        books = await read_books(self.stall.world.store)
        checks = audit(books) + await reconcile(books, self.stall.world.mints)
        assert [check for check in checks if not check.ok] == []

    async def settled(self) -> None:
        """Wait until nothing is due any more."""
        while await self.stall.daemon.redeemer.sweep():  # noqa: ASYNC110  as long as it takes
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Paid:
    """What a buyer has locked, and his outputs."""

    n: str
    token: Token
    outputs: tuple[BlindedMessage, ...]


async def until_tried(stall: Stall, mint: str) -> None:
    async with asyncio.timeout(30):
        while not await stall.daemon.trials.passed(mint):  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.05)


@asynccontextmanager
async def market(
    script: Script, relay: str, mint: str, tmp: Path, provider: str = ""
) -> AsyncIterator[Market]:
    """A market whose provider has sold once, and so had a coin to try his mint with."""
    async with (
        scripted(script) as engine,
        selling(config_text(tmp / "stall", [relay], mint, engine.url, provider)) as stall,
        buying(relay, mint, tmp, amount=1_000) as buyer,
    ):
        purse, gift = stall.world.purse, parse_token(await buyer.token(200))
        await deposit(purse, gift, stall.world.now_s)
        await until_tried(stall, mint)
        wanted = Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(stall.pubkey,))
        [event] = await buyer.relays.fetch([wanted])
        yield Market(stall, buyer, parse_announcement(event).payment_key)


Open = Callable[..., Any]


@pytest.fixture
def opened(relay_url: str, mint_url: str, tmp_path: Path) -> Open:
    def open_(script: Script = writes, provider: str = "") -> Any:
        return market(script, relay_url, mint_url, tmp_path, provider)

    return open_


def signatures(change: wire.SignedChange) -> dict[str, BlindSignature]:
    return {
        one.B_: BlindSignature(one.amount, one.id, one.C_, Dleq(one.e, one.s))
        for one in change.signatures
    }


async def test_an_order_is_answered_before_the_mint_is_asked(opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        async with it.buyer.listening() as replies:
            await it.order(paid, replies)
            result = await replies.result()
            settled = await replies.next()
        assert result.problem is None
        assert result.cost_msat > 0
        assert result.change is result.release is None
        assert result.signed is not None
        assert result.signed.signatures == []
        parts = result.cost_msat + result.fee_msat + result.credit_msat
        assert parts + result.signed.amount * 1_000 == WORTH * 1_000
        assert isinstance(settled, wire.Settled)
        assert settled.signed is not None
        assert settled.signed.amount == result.signed.amount
        before = await it.buyer.purse.balance()
        taken = await it.buyer.purse.take_signed(f"ladder-{paid.n}", signatures(settled.signed))
        assert (taken.state, taken.amount) == ("DONE", result.signed.amount)
        after = await it.buyer.purse.balance()
        assert sum(after.values()) - sum(before.values()) == result.signed.amount
        await it.audited()
        books = await it.stall.books()
        assert not [name for name in books if name.split(":")[0] in ("locked", "order", "change")]
        assert books["fees"] == 2_000  # of the trial; the swap's own was the order's


async def test_the_change_is_at_the_mint_if_no_letter_comes(opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        result = await it.buys(paid)
        await it.settled()
        found = await it.buyer.purse.run(f"ladder-{paid.n}")
        assert (found.state, found.amount) == ("DONE", result.signed.amount)


async def comes_back(it: Market, paid: Paid, release: list[str] | None) -> int:
    assert release is not None
    by_secret = dict(zip((proof.secret for proof in paid.token.proofs), release, strict=True))
    for secret, signature in by_secret.items():
        assert verify_secret(secret, signature, it.key)
    back = await it.buyer.purse.reclaim(
        f"pay-{paid.n}", unlock=lambda secret: witness(by_secret[secret])
    )
    assert back.state == "DONE"
    return back.net


async def test_what_failed_is_given_back_whole_without_the_mint(opened: Open) -> None:
    async with opened(fails) as it:
        paid = await it.pay()
        result = await it.buys(paid)
        assert result.problem is not None
        assert (result.cost_msat, result.fee_msat, result.credit_msat) == (0, 0, 0)
        assert await comes_back(it, paid, result.release) == WORTH - 1
        again = await it.buys(paid)
        assert isinstance(again, wire.Refused)
        assert again.problem.code == "payment-token-spent"
        assert again.release is None
        await it.audited()
        assert not [name for name in await it.stall.books() if name.startswith("locked")]


async def test_a_refusal_gives_back_too_and_only_once(opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        refused = await it.buys(paid, model="unheard-of")
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "model-unknown"
        again = await it.buys(paid)
        assert isinstance(again, wire.Refused)
        assert (again.problem.code, again.release) == ("payment-token-spent", None)
        assert await comes_back(it, paid, refused.release) == WORTH - 1
        await it.audited()


async def test_the_coin_of_a_running_order_is_not_released(opened: Open) -> None:
    go_on = asyncio.Event()

    async def waits(asked: Wire) -> None:
        await go_on.wait()
        await writes(asked)

    async with opened(waits) as it:
        paid = await it.pay()
        async with it.buyer.listening() as replies:
            await it.order(paid, replies)
            accepted = await replies.next()
            assert isinstance(accepted, wire.Accepted)
            for fields in ({"model": "unheard-of"}, {}, {"ceiling_msat": 10**9}):
                refused = await it.buys(paid, **fields)
                assert isinstance(refused, wire.Refused)
                assert refused.release is None
            go_on.set()
            result = await replies.result()
        assert result.cost_msat > 0
        await it.settled()
        await it.audited()


async def test_many_orders_are_one_swap(opened: Open) -> None:
    go_on = asyncio.Event()

    async def waits(asked: Wire) -> None:
        await go_on.wait()
        await writes(asked)

    provider = "queue_max = 20"
    async with opened(waits, provider) as it:
        every = [await it.pay() for _ in range(6)]
        async with it.buyer.listening() as replies:
            letters = {(await it.order(paid, replies)).id: paid for paid in every}
            go_on.set()
            results: dict[str, wire.Result] = {}
            handed: dict[str, wire.Settled] = {}
            while len(results) < 6 or len(handed) < 6:
                message = await replies.next()
                if isinstance(message, wire.Result):
                    results[message.order] = message
                elif isinstance(message, wire.Settled):
                    handed[message.order] = message
        for order_id, paid in letters.items():
            change = handed[order_id].signed
            promised = results[order_id].signed
            assert change is not None
            assert promised is not None
            taken = await it.buyer.purse.take_signed(f"ladder-{paid.n}", signatures(change))
            assert taken.amount == promised.amount
        history = await it.stall.world.purse.history()
        swaps = [row for row in history if row["kind"] == "settle"]
        assert 1 <= len(swaps) < 6
        await it.audited()


async def test_an_output_that_was_used_costs_only_its_owner(opened: Open) -> None:
    """He had the mint sign an output of his before: his change is credited, nobody waits."""
    async with opened() as it:
        good, bad = await it.pay(), await it.pay()
        poison = bad.outputs[-1]
        [coin] = (await it.buyer.purse.send("p", it.buyer.mint, "sat", poison.amount)).proofs
        dear = (await it.buyer.purse.send("q", it.buyer.mint, "sat", 1)).proofs
        mint = it.stall.world.mints.at(it.buyer.mint)
        await mint.swap([coin, *dear], [poison])
        async with it.buyer.listening() as replies:
            first = await it.order(bad, replies)
            second = await it.order(good, replies)
            results: dict[str, wire.Result] = {}
            handed: dict[str, wire.Settled] = {}
            while len(results) < 2 or len(handed) < 2:
                message = await replies.next()
                if isinstance(message, wire.Result):
                    results[message.order] = message
                elif isinstance(message, wire.Settled):
                    handed[message.order] = message
        spoiled, well = handed[first.id], handed[second.id]
        assert well.signed is not None
        assert spoiled.signed is None
        promised = results[first.id].signed
        assert promised is not None
        assert spoiled.credit_msat == promised.amount * 1_000
        assert spoiled.statement is not None
        await it.settled()
        await it.audited()


async def test_an_output_is_taken_once(opened: Open) -> None:
    async with opened() as it:
        one, other = await it.pay(), await it.pay()
        await it.buys(one)
        refused = await it.buys(replace(other, outputs=one.outputs))
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "payment-outputs-wrong"
        assert await comes_back(it, other, refused.release) == WORTH - 1
        await it.settled()
        await it.audited()


def other_outputs(paid: Paid, **fields: Any) -> Paid:
    return replace(paid, outputs=(replace(paid.outputs[0], **fields), *paid.outputs[1:]))


async def test_outputs_that_no_mint_signs_are_refused(opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        wrong = [
            other_outputs(paid, amount=3),
            other_outputs(paid, id="00" * 8),
            other_outputs(paid, B_="02" + "ff" * 32),
            other_outputs(paid, B_=paid.outputs[1].B_),
        ]
        for each in wrong:
            with_new_coins = replace(each, token=(await it.pay()).token)
            refused = await it.buys(with_new_coins)
            assert isinstance(refused, wire.Refused)
            assert refused.problem.code == "payment-outputs-wrong"
        await it.audited()


LENIENT: list[Callable[[str], str]] = [
    lambda secret: secret.replace(",", ", "),
    lambda secret: secret.replace('"tags":[', '"tags":[["pubkeys","02' + "ab" * 32 + '"],'),
    lambda secret: secret.replace("SIG_INPUTS", "SIG_ALL"),
    lambda secret: secret.replace("]]}]", '],["n_sigs","1"]]}]'),
]


@pytest.mark.parametrize("lenient", LENIENT)
async def test_lenient_locks_are_refused(lenient: Callable[[str], str], opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        proofs = tuple(replace(one, secret=lenient(one.secret)) for one in paid.token.proofs)
        refused = await it.buys(replace(paid, token=replace(paid.token, proofs=proofs)))
        assert isinstance(refused, wire.Refused)
        assert refused.problem.code == "payment-token-locked-wrong"
        assert refused.release is None


async def test_locks_to_others_or_for_too_short_are_refused(opened: Open) -> None:
    async with opened() as it:
        stranger = public_key_of(b"\x07" * 32)
        now = int(CLOCK.now())
        for change, released in (
            ({"key": stranger}, False),
            ({"locktime": now + 3_600}, True),
            ({"locktime": now + 90_000}, True),
        ):
            refused = await it.buys(await it.pay(**change))
            assert isinstance(refused, wire.Refused)
            assert refused.problem.code == "payment-token-locked-wrong"
            assert (refused.release is not None) == released
        await it.audited()


async def test_coins_the_mint_did_not_sign_are_refused(opened: Open) -> None:
    async with opened() as it:
        paid = await it.pay()
        first, *rest = paid.token.proofs
        assert first.dleq is not None
        forged = replace(first, dleq=replace(first.dleq, e="11" * 32))
        made_up = replace(
            first,
            secret=locked_secret(
                "ab" * 32, Lock(it.key, int(CLOCK.now()) + 4_000, public_key_of(b"\x09" * 32))
            ),
        )
        for wrong in (forged, replace(first, dleq=None), made_up):
            token = replace(paid.token, proofs=(wrong, *rest))
            refused = await it.buys(replace(paid, token=token))
            assert isinstance(refused, wire.Refused)
            assert refused.problem.code == "payment-token-invalid"
            assert refused.release is None
        result = await it.buys(paid)
        assert isinstance(result, wire.Result)


async def test_what_is_too_much_to_believe_is_swapped_first(opened: Open) -> None:
    async with opened(provider="[locked]\nclient_sat_max = 32\n") as it:
        paid = await it.pay()
        result = await it.buys(paid)
        assert isinstance(result, wire.Result)
        assert result.signed is None
        assert result.change is not None
        assert result.fee_msat == 1_000
        await it.audited()


async def test_a_failed_order_whose_token_was_swapped_first_is_paid_back(opened: Open) -> None:
    async with opened(fails, "[locked]\nswap_first_sat = 32\n") as it:
        result = await it.buys(await it.pay())
        assert isinstance(result, wire.Result)
        assert result.change is not None
        assert result.change.amount == WORTH - 1
        await it.audited()


@pytest.mark.parametrize("kept", [(), (1, 2, 4), (2, 4, 8, 16, 32)])
async def test_what_would_be_credit_is_swapped_first(kept: tuple[int, ...], opened: Open) -> None:
    """Credit is cash: it must not be given for a token that is not ours yet."""
    async with opened() as it:
        paid = await it.pay()
        outputs = tuple(output for output in paid.outputs if output.amount in kept)
        result = await it.buys(replace(paid, outputs=outputs))
        assert isinstance(result, wire.Result)
        assert result.signed is None
        assert result.change is not None
        account = await it.buys(await it.pay(), change="account")
        assert isinstance(account, wire.Result)
        assert account.credit_msat == WORTH * 1_000 - account.cost_msat - account.fee_msat
        assert [row["state"] for row in await it.stall.world.store.read("locked_rows")] == []
        await it.audited()
