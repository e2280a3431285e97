"""Tokens to and from cashu-ts and nutshell's wallet: three implementations agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.core.money import MSAT_PER_SAT
from nostrllm.errors import RemoteError
from nostrllm.purse.receive import checked
from nostrllm.wire.token import Token, encode_token, parse_token
from tests.interop.peers import Peer, PeerError
from tests.roles.market import Buyer, Stall, as_token

VERSIONS = pytest.mark.parametrize("version", [3, 4], ids=["v3", "v4"])


async def assert_signed(token: Token) -> None:
    """Every coin carries the mint's proof, and by our own check it is good (NUT-12)."""
    async with CashuMints() as mints:
        keysets = await mints.at(token.mint).keysets()
    for proof in token.proofs:
        assert proof.dleq is not None
        assert proof.dleq.r is not None
        assert checked(proof, token.unit, keysets).id.startswith(proof.id)
        for swapped in (replace(proof.dleq, s=proof.dleq.e), replace(proof.dleq, r="11" * 32)):
            with pytest.raises(RemoteError, match="did not sign"):
                checked(replace(proof, dleq=swapped), token.unit, keysets)


@VERSIONS
async def test_we_take_their_tokens(wallet: Peer, ours: Buyer, version: int) -> None:
    text = await wallet.do("token", amount=37, version=version, dleq=True)
    assert text.startswith({3: "cashuA", 4: "cashuB"}[version])
    token = parse_token(text)
    assert (token.mint, token.unit, token.amount) == (ours.mint, "sat", 37)
    await assert_signed(token)
    assert await ours.worth(f"for you: {text}") == 36
    bare = await wallet.do("token", amount=37, version=version)
    assert all(proof.dleq is None for proof in parse_token(bare).proofs)
    assert await ours.worth(bare) == 36


@VERSIONS
async def test_they_take_our_tokens(wallet: Peer, ours: Buyer, version: int) -> None:
    token = as_token(await ours.token(37))
    await assert_signed(token)
    if version == 3:  # which has full keyset ids
        async with CashuMints() as mints:
            keysets = await mints.at(token.mint).keysets()
        token = replace(
            token, proofs=tuple(checked(proof, "sat", keysets) for proof in token.proofs)
        )
    text = encode_token(token, version)
    assert await wallet.do("receive", token=text) == 36
    assert await wallet.do("balance") == 236
    with pytest.raises(PeerError, match=r"(?i)11001|spent"):
        await wallet.do("receive", token=text)


@pytest.mark.interop
@VERSIONS
async def test_cashu_ts_reads_every_field_of_ours(tools: Peer, ours: Buyer, version: int) -> None:
    token = as_token(await ours.token(37))
    read = await tools.do("read", token=encode_token(token, version))
    assert read == {"mint": ours.mint, "unit": "sat", "amount": 37, "dleq": [True] * 3}
    first, *rest = token.proofs
    assert first.dleq is not None
    forged = replace(first, dleq=replace(first.dleq, r="11" * 32))
    text = encode_token(replace(token, proofs=(forged, *rest)), version)
    assert (await tools.do("read", token=text))["dleq"] == [False, True, True]


@VERSIONS
async def test_their_token_pays_and_they_take_the_change(
    stall: Stall, ours: Buyer, wallet: Peer, version: int
) -> None:
    token = await wallet.do("token", amount=64, version=version)
    left = await wallet.do("balance")
    await ours.say(stall.pubkey, f"What is the capital of France?\n\n{token}")
    said = await ours.heard_until(stall.pubkey, "cashuB")
    [order] = await stall.orders()
    assert order["net_msat"] == 63 * MSAT_PER_SAT
    change = as_token(said[-1])
    assert change.amount == order["change_units"]
    await assert_signed(change)
    assert await wallet.do("receive", token=said[-1]) == change.amount - 1
    assert await wallet.do("balance") == left + change.amount - 1
    assert await stall.daemon.recovery.book_spent_change() == 1


async def test_their_token_fills_an_account_and_they_take_the_refund(
    stall: Stall, ours: Buyer, wallet: Peer
) -> None:
    token = await wallet.do("token", amount=100, version=4)
    await ours.say(stall.pubkey, f"/topup {token}")
    assert "99 sat added" in await ours.heard(stall.pubkey)
    await ours.say(stall.pubkey, "/refund")
    said = await ours.heard_until(stall.pubkey, "cashuB")
    assert await wallet.do("receive", token=said[-1]) == as_token(said[-1]).amount - 1
