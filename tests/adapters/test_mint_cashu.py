"""The Cashu mint over HTTP: a real mint, and every answer that is not what it should be."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from nostrllm.adapters.mint_cashu import CashuMint, CashuMints, MintLimits
from nostrllm.core.coins import split
from nostrllm.crypto import bdhke
from nostrllm.errors import LocalError, MintRefused, OutcomeUnknown, RemoteError
from nostrllm.ports import Keyset, Melt, MeltQuote
from nostrllm.wire.token import BlindedMessage, Dleq, Proof
from tests.faultymint import FaultyMint
from tests.invoices import invoice

LIMITS = MintLimits(busy_wait_s=0.01, refresh_wait_s=0.0, request_bytes_max=100_000)
POINT = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
OUTPUT = BlindedMessage(1, "00" * 8, POINT)


class Outputs:
    """Random outputs for one keyset, and the coins they become."""

    def __init__(self, keyset: Keyset, amounts: list[int]) -> None:
        self.keyset = keyset
        self.secrets = [(secrets.token_hex(32), secrets.token_bytes(32)) for _ in amounts]
        self.messages = [
            BlindedMessage(amount, keyset.id, bdhke.blind(secret, r))
            for amount, (secret, r) in zip(amounts, self.secrets, strict=True)
        ]

    def proofs(self, signatures: list[Any]) -> list[Proof]:
        coins = []
        for message, signature, (secret, r) in zip(
            self.messages, signatures, self.secrets, strict=True
        ):
            key = self.keyset.keys[message.amount]
            assert bdhke.verify_dleq(message.B_, signature.C_, signature.dleq, key)
            C = bdhke.unblind(signature.C_, r, key)
            dleq = Dleq(signature.dleq.e, signature.dleq.s, r.hex())
            coins.append(Proof(message.id, message.amount, secret, C, dleq))
        return coins


async def active(mint: CashuMint, unit: str = "sat") -> Keyset:
    keysets = (await mint.keysets()).values()
    return next(keyset for keyset in keysets if keyset.active and keyset.unit == unit)


async def funded(mint: CashuMint, amount: int) -> list[Proof]:
    quote = await mint.quote_mint(amount, "sat")
    while quote.state != "PAID":
        quote = await mint.mint_quote(quote.quote)
    outputs = Outputs(await active(mint), split(amount))
    return outputs.proofs(await mint.mint(quote.quote, outputs.messages))


@pytest.fixture
async def mints() -> AsyncIterator[CashuMints]:
    async with CashuMints(LIMITS) as mints:
        yield mints


@pytest.fixture
async def faulty() -> AsyncIterator[FaultyMint]:
    async with FaultyMint() as faulty:
        yield faulty


async def test_a_real_mint(mints: CashuMints, mint_url: str) -> None:
    mint = mints.at(mint_url + "/")
    assert mints.at(mint_url.replace("http", "HTTP")) is mint
    assert mint.url == mint_url
    assert "nuts" in await mint.info()
    keyset = await active(mint)
    assert keyset.fee_ppk == 100
    assert list(keyset.keys) == [1 << bit for bit in range(64)]
    assert {found.unit for found in (await mint.keysets(refresh=True)).values()} >= {"sat", "msat"}
    coins = await funded(mint, 20)
    assert all(bdhke.verify_proof_dleq(coin, keyset.keys[coin.amount]) for coin in coins)
    outputs, unused = Outputs(keyset, [1, 2, 16]), Outputs(keyset, [4] * 150)
    swapped = outputs.proofs(await mint.swap(coins, outputs.messages))
    assert sum(coin.amount for coin in swapped) == 19
    ys = [bdhke.y_of(coin.secret) for coin in [*coins, *swapped]]
    assert await mint.states(ys) == ["SPENT"] * 2 + ["UNSPENT"] * 3
    restored = await mint.restore([*unused.messages, *outputs.messages])
    assert [message for message, _ in restored] == outputs.messages
    assert outputs.proofs([signature for _, signature in restored]) == swapped


async def test_refusals_of_a_real_mint(mints: CashuMints, mint_url: str) -> None:
    mint = mints.at(mint_url)
    coins, keyset = await funded(mint, 4), await active(mint)
    outputs = Outputs(keyset, [1, 2])
    with pytest.raises(MintRefused) as unbalanced:
        await mint.swap(coins, Outputs(keyset, [4]).messages)
    assert unbalanced.value.mint_code in (11000, 11005)
    await mint.swap(coins, outputs.messages)
    with pytest.raises(MintRefused) as spent:
        await mint.swap(coins, Outputs(keyset, [1, 2]).messages)
    assert (spent.value.mint_code, spent.value.code) == (11001, "payment-token-spent")
    assert coins[0].secret not in str(spent.value)
    again = await funded(mint, 4)
    with pytest.raises(MintRefused) as signed:
        await mint.swap(again, outputs.messages)
    assert signed.value.mint_code in (11003, 10002)
    quote = await mint.quote_mint(4, "sat")
    while quote.state != "PAID":
        quote = await mint.mint_quote(quote.quote)
    await mint.mint(quote.quote, Outputs(keyset, [4]).messages)
    with pytest.raises(MintRefused) as issued:
        await mint.mint(quote.quote, Outputs(keyset, [4]).messages)
    assert issued.value.mint_code == 20002


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, '{"detail":"locks","code":0}', None),
        (400, '{"detail":"new","code":99999}', None),
        (400, '{"detail":"old"}', None),
        (400, '{"detail":"odd","code":"11001"}', None),
        (400, '["code"]', None),
        (404, "<html>", None),
        (500, '{"detail":"spent","code":11001}', None),
        (429, '{"detail":"spent","code":11001}', None),
        (302, "{}", None),
        (200, "<html>", None),
        (200, "[" * 5_000, None),
        (200, "{}", None),
        (200, '{"signatures":[]}', None),
        (200, '{"signatures":[7]}', None),
        (200, json.dumps({"signatures": [{"amount": 2, "id": "00" * 8, "C_": POINT}]}), None),
        (400, '{"detail":"a secret","code":11001}', 11001),
        (403, '{"detail":"a secret","code":12002}', 12002),
    ],
)
async def test_only_a_known_code_is_a_no(
    mints: CashuMints, faulty: FaultyMint, status: int, body: str, code: int | None
) -> None:
    faulty.says["/v1/swap"] = (status, body)
    with pytest.raises(MintRefused if code else OutcomeUnknown) as caught:
        await mints.at(faulty.url).swap([], [OUTPUT])
    assert "secret" not in str(caught.value)
    if isinstance(caught.value, MintRefused):
        assert caught.value.mint_code == code


@pytest.mark.parametrize("fault", ["refuse", "503"])
async def test_no_answer_is_unknown(mints: CashuMints, faulty: FaultyMint, fault: str) -> None:
    faulty.faults = [fault]
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).swap([], [OUTPUT])
    with pytest.raises(OutcomeUnknown):
        await mints.at("http://127.0.0.1:9").swap([], [OUTPUT])


async def test_a_silent_mint_is_given_up() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with silent, CashuMints(MintLimits(total_s=0.2)) as mints:
        with pytest.raises(OutcomeUnknown, match="in time"):
            await mints.at(url).info()


async def test_a_busy_mint_is_asked_again_for_what_changes_nothing(
    mints: CashuMints, faulty: FaultyMint
) -> None:
    faulty.says["/v1/info"] = (429, "slower")
    with pytest.raises(OutcomeUnknown, match="busy"):
        await mints.at(faulty.url).info()
    assert len(faulty.calls) == LIMITS.busy_tries
    faulty.faults = ["429"]
    with pytest.raises(OutcomeUnknown, match="busy"):
        await mints.at(faulty.url).swap([], [OUTPUT])
    assert len(faulty.calls) == LIMITS.busy_tries + 1


async def test_sizes_are_bounded_both_ways(faulty: FaultyMint) -> None:
    faulty.says["/v1/info"] = (200, json.dumps({"motd": "x" * 200_000}))
    async with CashuMints(MintLimits(answer_bytes_max=100_000, request_bytes_max=50)) as mints:
        with pytest.raises(OutcomeUnknown, match="too large"):
            await mints.at(faulty.url).info()
        with pytest.raises(LocalError, match="too large"):
            await mints.at(faulty.url).swap([], [OUTPUT])


async def test_two_spending_calls_at_a_time(faulty: FaultyMint) -> None:
    at_once = most = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        await reader.readuntil(b"\r\n\r\n")
        at_once += 1
        most = max(most, at_once)
        for _ in range(50):
            await asyncio.sleep(0)
        at_once -= 1
        writer.write(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, CashuMints(LIMITS) as mints:
        calls = (mints.at(url).swap([], [OUTPUT]) for _ in range(8))
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {OutcomeUnknown}
    assert most <= 2


def keyset_says(faulty: FaultyMint, row: dict[str, Any], keys: dict[str, str]) -> None:
    faulty.says["/v1/keysets"] = (200, json.dumps({"keysets": [row]}))
    body = {"keysets": [{"id": row["id"], "unit": row["unit"], "keys": keys}]}
    faulty.says[f"/v1/keys/{row['id']}"] = (200, json.dumps(body))


async def test_keyset_ids_are_recomputed(mints: CashuMints, faulty: FaultyMint) -> None:
    keys = {"1": POINT, "2": POINT}
    old = bdhke.keyset_id_v0({1: POINT, 2: POINT})
    new = bdhke.keyset_id_v1({1: POINT, 2: POINT}, "sat", 5, 2_000_000_000)
    row = {"id": new, "unit": "sat", "active": True, "input_fee_ppk": 5}
    row["final_expiry"] = 2_000_000_000
    mint = mints.at(faulty.url)
    keyset_says(faulty, row, keys)
    found = await mint.keysets()
    assert found[new] == Keyset(new, "sat", True, 5, {1: POINT, 2: POINT}, 2_000_000_000)
    keyset_says(faulty, {"id": old, "unit": "sat", "active": False, "input_fee_ppk": 7}, keys)
    assert (await mint.keysets(refresh=True))[old].fee_ppk == 7
    asked = len(faulty.calls)
    keyset_says(faulty, {"id": old, "unit": "sat", "active": True, "input_fee_ppk": None}, keys)
    assert (await mint.keysets(refresh=True))[old].fee_ppk == 0
    assert len(faulty.calls) == asked + 1
    lie = "00" + "11" * 7
    keyset_says(faulty, {"id": lie, "unit": "sat", "active": True}, keys)
    with pytest.raises(RemoteError) as caught:
        await mint.keysets(refresh=True)
    assert caught.value.code == "payment-mint-unaccepted"
    keyset_says(faulty, {"id": "I2yN+iRYfkzT", "unit": "sat", "active": True}, keys)
    assert await mint.keysets(refresh=True) == {}


async def test_a_keyset_that_is_newer_than_the_list_is_waited_for(faulty: FaultyMint) -> None:
    limits = MintLimits(refresh_wait_s=0.5, waiting_max=2)
    keys = {"1": POINT}
    old = bdhke.keyset_id_v1({1: POINT}, "sat", 0)
    new = bdhke.keyset_id_v1({1: POINT}, "sat", 5)
    async with CashuMints(limits) as mints:
        mint = mints.at(faulty.url)
        keyset_says(faulty, {"id": old, "unit": "sat", "active": True}, keys)
        assert (await mint.keysets()).keys() == {old}
        row = {"id": new, "unit": "sat", "active": True, "input_fee_ppk": 5}
        keyset_says(faulty, row, keys)
        asked = len(faulty.calls)
        assert (await mint.keysets(refresh=True)).keys() == {old}
        found = await asyncio.gather(
            *(mint.keysets(wait=True) for _ in range(3)), return_exceptions=True
        )
        assert [type(one) for one in found] == [dict, dict, OutcomeUnknown]
        assert isinstance(found[0], dict)
        assert found[0].keys() == {new}
        assert len(faulty.calls) == asked + 2  # the list and the new keys, once


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"1": "03a40f20667ed53513075dc51e715ff2046cad64eb68960632269ba7f0210e38"},
        {"1": "02" + "ff" * 32},
        {"1": 7},
        {"0": POINT},
        {"one": POINT},
    ],
)
async def test_unreadable_keys(mints: CashuMints, faulty: FaultyMint, keys: Any) -> None:
    keyset_says(faulty, {"id": "00" * 8, "unit": "sat", "active": True}, keys)
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).keysets()


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [7],
        [{"id": 1, "unit": "sat", "active": True}],
        [{"id": "00" * 8, "unit": "sat", "active": True, "input_fee_ppk": -1}],
        [{"id": "00" * 8, "unit": "sat", "active": True, "final_expiry": "x"}],
        [{}] * 1_000,
    ],
)
async def test_unreadable_keysets(mints: CashuMints, faulty: FaultyMint, rows: Any) -> None:
    faulty.says["/v1/keysets"] = (200, json.dumps({"keysets": rows}))
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).keysets()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outputs": [], "signatures": [7]},
        {"outputs": [7], "signatures": [7]},
        {"outputs": [{"B_": "other"}], "signatures": [7]},
        {"outputs": [OUTPUT.as_dict()], "signatures": [7]},
        {
            "outputs": [OUTPUT.as_dict()] * 2,
            "signatures": [{"amount": 1, "id": "00" * 8, "C_": POINT}] * 2,
        },
    ],
)
async def test_unreadable_restores(mints: CashuMints, faulty: FaultyMint, body: Any) -> None:
    faulty.says["/v1/restore"] = (200, json.dumps(body))
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).restore([OUTPUT])


@pytest.mark.parametrize(
    "states", [None, [], [7], [{"Y": "y", "state": "GONE"}], [{"Y": "other", "state": "SPENT"}]]
)
async def test_unreadable_states(mints: CashuMints, faulty: FaultyMint, states: Any) -> None:
    faulty.says["/v1/checkstate"] = (200, json.dumps({"states": states}))
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).states(["y"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"quote": "../keys", "request": "ln", "state": "UNPAID"},
        {"quote": "q", "request": "ln", "state": "ODD"},
        {"quote": "q", "request": 7, "state": "PAID"},
        {"quote": "q", "request": "ln", "state": "PAID", "amount": 6},
    ],
)
async def test_unreadable_quotes(mints: CashuMints, faulty: FaultyMint, body: Any) -> None:
    faulty.says["/v1/mint/quote/bolt11"] = (200, json.dumps(body))
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).quote_mint(5, "sat")
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).mint_quote("a/b")


async def test_a_real_mint_pays_an_invoice(mints: CashuMints, mint_url: str) -> None:
    mint, text = mints.at(mint_url), invoice(5_000)
    coins, keyset = await funded(mint, 8), await active(mint)
    quote = await mint.quote_melt(text, "sat")
    assert (quote.request, quote.unit, quote.amount, quote.fee_reserve) == (text, "sat", 5, 2)
    assert quote.expiry is not None
    assert await mint.melt_quote(quote.quote) == Melt("UNPAID")
    blank = Outputs(keyset, [1])
    done = await mint.melt(quote.quote, coins, blank.messages)
    assert done.state == "PAID"
    assert len(done.preimage) == 64
    [change] = done.change
    key = keyset.keys[change.amount]
    assert bdhke.verify_dleq(blank.messages[0].B_, change.C_, change.dleq, key)
    assert await mint.melt_quote(quote.quote) == done
    assert await mint.restore(blank.messages) == [(blank.messages[0], change)]
    with pytest.raises(MintRefused):
        await mint.melt(quote.quote, await funded(mint, 8), Outputs(keyset, [1]).messages)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"quote": "../keys", "amount": 5, "fee_reserve": 2},
        {"quote": "q", "amount": 0, "fee_reserve": 2},
        {"quote": "q", "amount": 5, "fee_reserve": -1},
        {"quote": "q", "amount": 5.0, "fee_reserve": 2},
        {"quote": "q", "amount": 5, "fee_reserve": None},
        {"quote": "q", "amount": 5, "fee_reserve": 2, "unit": "msat"},
    ],
)
async def test_unreadable_melt_quotes(mints: CashuMints, faulty: FaultyMint, body: Any) -> None:
    faulty.says["/v1/melt/quote/bolt11"] = (200, json.dumps(body))
    with pytest.raises(OutcomeUnknown):
        await mints.at(faulty.url).quote_melt("lnbc1", "sat")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"state": "ISSUED"},
        {"state": 1},
        {"paid": 1},
        {"state": "PAID", "change": {}},
        {"state": "PAID", "change": [7]},
    ],
)
async def test_unreadable_melts(mints: CashuMints, faulty: FaultyMint, body: Any) -> None:
    faulty.says["/v1/melt/bolt11"] = faulty.says["/v1/melt/quote/bolt11/q"] = (
        200,
        json.dumps(body),
    )
    for call in (
        mints.at(faulty.url).melt("q", [], [OUTPUT]),
        mints.at(faulty.url).melt_quote("q"),
    ):
        with pytest.raises(OutcomeUnknown):
            await call


async def test_melts_of_older_mints(mints: CashuMints, faulty: FaultyMint) -> None:
    body: dict[str, Any] = {"quote": "q", "amount": 5, "fee_reserve": 0, "expiry": 0}
    faulty.says["/v1/melt/quote/bolt11"] = (200, json.dumps(body))
    assert await mints.at(faulty.url).quote_melt("ln", "sat") == MeltQuote(
        "q", "ln", 5, "sat", 0, None
    )
    body = {"paid": True, "payment_preimage": "odd \n", "change": None}
    faulty.says["/v1/melt/bolt11"] = (200, json.dumps(body))
    assert await mints.at(faulty.url).melt("q", [], [OUTPUT]) == Melt("PAID")


async def test_a_payment_may_take_longer_than_a_swap() -> None:
    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.json_response({"state": "PAID"})

    app = web.Application()
    app.router.add_post("/v1/melt/bolt11", slowly)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with CashuMints(MintLimits(total_s=0.2, melt_s=10)) as mints:
        assert (await mints.at(url).melt("q", [], [OUTPUT])).state == "PAID"
    await runner.cleanup()


async def test_quotes_of_older_mints(mints: CashuMints, faulty: FaultyMint) -> None:
    body = {"quote": "q-1", "request": "ln", "paid": False, "expiry": 0}
    faulty.says["/v1/mint/quote/bolt11"] = (200, json.dumps(body))
    quote = await mints.at(faulty.url).quote_mint(5, "sat")
    assert (quote.amount, quote.unit, quote.state, quote.expiry) == (5, "sat", "UNPAID", None)


async def test_mints_are_known_only_inside_and_not_without_end() -> None:
    mints = CashuMints(MintLimits(mints_max=2))
    with pytest.raises(LocalError):
        mints.at("https://a.example")
    async with mints:
        mints.at("https://a.example")
        mints.at("https://b.example")
        with pytest.raises(RemoteError):
            mints.at("https://c.example")
        with pytest.raises(RemoteError):
            mints.at("file:///etc/passwd")
