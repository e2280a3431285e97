"""The provider as its own process: killed, stopped, restarted; and what it never opens."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.keys_sdk import parse_secret
from nostrllm.crypto.keys import public_key
from nostrllm.devnet.children import Child, module_part, start
from nostrllm.ports import Signer
from nostrllm.wire import order as wire
from nostrllm.wire.token import encode_token, parse_token
from tests.adapters.relay_scripted import until
from tests.adapters.scripted import Wire, scripted
from tests.faultymint import FaultyMint
from tests.roles.market import CLOCK, Buyer, buying, config_text

pytestmark = pytest.mark.usefixtures("mint_url")


@contextmanager
def provider(folder: Path, text: str) -> Iterator[Child]:
    """`nostrllm provider run` on this configuration, ready."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "provider.toml"
    config.write_text(text)
    part = module_part(
        "provider", folder, "nostrllm", "provider", "run", "--config", str(config),
        ready_file=folder / "status.json",
    )  # fmt: skip
    child = start(part)
    try:
        yield child
    finally:
        child.stop(timeout_s=10.0)


def key_of(folder: Path) -> str:
    return public_key(parse_secret((folder / "nsec").read_text()))


def books(folder: Path) -> dict[str, int]:
    """The ledger of a provider that is not running."""
    with sqlite3.connect(folder / "provider.db") as db:
        rows = db.execute("select account, sum(msat) from posting group by account").fetchall()
    assert sum(msat for _, msat in rows) == 0
    return {name: msat for name, msat in rows if msat}


async def never_ends(asked: Wire) -> None:
    await asked.open()
    while True:
        await asked.text("again ")
        await asyncio.sleep(0.01)


async def ordered(buyer: Buyer, to: str, reply: Signer, **fields: Any) -> str:
    payment = wire.TokenPayment(token=await buyer.token(64))
    order = await buyer.order(to, payment, reply=reply, **fields)
    letter = buyer.message(order)
    await buyer.send(letter, to)
    return letter.id


def listening_sockets(pid: int) -> set[str]:
    """Local addresses on which a process listens (TCP), from the kernel's own table."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink()) if link.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.add(fields[1])
    return listening


async def test_the_process_listens_on_nothing(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(never_ends) as engine:
        state = tmp_path / "stall"
        with provider(state, config_text(state, [relay_url], mint_url, engine.url)) as child:
            assert listening_sockets(child.pid) == set()
            assert listening_sockets(os.getpid())  # the table is read right: this process listens


@pytest.mark.parametrize("fault", ["kill", "stop"])
async def test_an_answer_that_a_kill_cut_is_paid_back(
    fault: str, relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    """kill -9 mid-answer: the money comes back whole. SIGTERM: the answer is finished first."""
    async with (
        scripted(never_ends) as engine,
        buying(relay_url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        state = tmp_path / "stall"
        text = config_text(state, [relay_url], mint_url, engine.url)
        with provider(state, text) as child:
            to = key_of(state)
            end = {} if fault == "kill" else {"end_by": int(CLOCK.now()) + 4}
            order_id = await ordered(buyer, to, replies.key, **end)
            accepted = await replies.next()
            assert isinstance(accepted, wire.Accepted)
            await anext(aiter(replies.chunks))
            if fault == "kill":
                child.kill()
        with provider(state, text):
            result = await replies.result()
            assert result.order == order_id
            assert result.change is not None
            outcome = await buyer.purse.receive("back", parse_token(result.change.token))
            assert outcome.state == "DONE"
            if fault == "kill":
                assert result.problem is not None
                assert result.problem.code == "generation-failed"
                assert (result.text, result.cost_msat, result.change.amount) == ("", 0, 63)
            else:
                assert result.problem is None
                assert result.text.startswith("again")
        assert books(state).get("income", 0) == -result.cost_msat


async def test_msat_coins_come_back_as_msat_after_a_kill(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        scripted(never_ends) as engine,
        buying(relay_url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        quote = await buyer.purse.fund(mint_url, 40_000, "msat")
        await buyer.purse.claim_quote(quote.quote, wait_s=10)
        token = await buyer.purse.send("m", mint_url, "msat", 30_000)
        state = tmp_path / "stall"
        text = config_text(state, [relay_url], mint_url, engine.url)
        with provider(state, text) as child:
            payment = wire.TokenPayment(token=encode_token(token))
            order = await buyer.order(
                key_of(state), payment, reply=replies.key, ceiling_msat=29_000
            )
            await buyer.send(buyer.message(order), key_of(state))
            assert isinstance(await replies.next(), wire.Accepted)
            await anext(aiter(replies.chunks))
            child.kill()
        with provider(state, text):
            result = await replies.result()
        assert result.change is not None
        assert result.change.unit == "msat"
        assert result.change.amount + result.fee_msat == 30_000
        assert books(state).get("income", 0) == 0


async def test_a_swap_whose_answer_was_lost_is_finished_after_a_kill(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with (
        scripted(never_ends) as engine,
        FaultyMint(mint_url) as faulty,
        buying(relay_url, mint_url, tmp_path) as buyer,
        buyer.listening() as replies,
    ):
        state = tmp_path / "stall"
        text = config_text(state, [relay_url], faulty.url, engine.url)
        with provider(state, text) as child:
            to = key_of(state)
            faulty.faults += ["lost"] * 1_000
            token = replace(parse_token(await buyer.token(64)), mint=faulty.url)
            payment = wire.TokenPayment(token=encode_token(token))
            order = await buyer.order(to, payment, reply=replies.key)
            await buyer.send(buyer.message(order), to)
            await until(lambda: any(path == "/v1/swap" for path, _ in faulty.calls))
            child.kill()
        faulty.faults.clear()
        with provider(state, text):
            result = await replies.result()
            assert result.problem is not None
            assert result.change is not None
            assert result.change.amount == 63
        assert books(state).get("income", 0) == 0
