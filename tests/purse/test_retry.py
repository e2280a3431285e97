"""A receive that the mint refused may be tried again, and ends once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrllm.errors import RemoteError
from tests.faultymint import FaultyMint
from tests.purse.world import wallet


async def test_a_refused_receive_is_tried_again_under_its_name(
    tmp_path: Path, mint_url: str
) -> None:
    async with (
        FaultyMint(mint_url) as mint,
        wallet(tmp_path, mint.url) as alice,
        wallet(tmp_path, mint.url) as bob,
    ):
        await alice.fund(30)
        token = await alice.purse.send("s", alice.mint, "sat", 16)
        mint.faults.append("400 11005")
        assert (await bob.purse.receive("r", token)).state == "REJECTED"
        with pytest.raises(RemoteError):  # its coins are that one's, whatever another is called
            await bob.purse.receive("other", token)
        assert await bob.purse.state_of("r") == "REJECTED"
        assert (await bob.purse.receive("r", token)).state == "DONE"
        assert await bob.worth() == 15
        assert (await bob.purse.receive("r", token)).state == "DONE"
        assert await bob.worth() == 15
        assert await bob.purse.state_of("none") is None
        assert await alice.purse.mints("receive:") == {mint.url}
        assert await bob.purse.mints("receive:") == set()
        assert await bob.purse.mints("r") == {mint.url}


async def test_what_was_refused_and_then_spent_stays_refused(tmp_path: Path, mint_url: str) -> None:
    async with (
        FaultyMint(mint_url) as mint,
        wallet(tmp_path, mint.url) as alice,
        wallet(tmp_path, mint.url) as bob,
    ):
        await alice.fund(30)
        token = await alice.purse.send("s", alice.mint, "sat", 16)
        mint.faults.append("400 11005")
        assert (await bob.purse.receive("r", token)).state == "REJECTED"
        assert (await alice.purse.reclaim("s")).state == "DONE"
        for _ in range(2):
            outcome = await bob.purse.receive("r", token)
            assert (outcome.state, outcome.code) == ("REJECTED", "payment-token-spent")
        assert await bob.worth() == 0
