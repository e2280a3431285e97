"""Tokens to and from nutshell's wallet: a second implementation agrees with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nostrllm.wire.token import encode_token, parse_token
from tests.purse.world import Wallet

SCRIPT = Path(__file__).with_name("nutshell_wallet.py")


def nutshell(mint: str, folder: Path, text: str) -> Any:
    """What its wallet prints after it has taken the token."""
    folder.mkdir()
    kept = ("PATH", "LANG", "VIRTUAL_ENV", "PYTHONHASHSEED")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    own = {"HOME": str(folder), "CASHU_DIR": str(folder), "TOR": "FALSE"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), mint, str(folder), text],
        cwd=folder,
        env=environment | own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("version", [pytest.param(3, marks=pytest.mark.nightly), 4])
async def test_tokens_pass_both_ways(alice: Wallet, tmp_path: Path, version: int) -> None:
    await alice.fund(128)
    token = await alice.purse.send("s", alice.mint, "sat", 64)
    theirs = nutshell(alice.mint, tmp_path / "nutshell", encode_token(token, version))
    v3, v4 = map(parse_token, theirs["tokens"])
    assert v3.proofs[0].dleq is None
    assert v4.proofs[0].dleq is not None
    before = await alice.worth()
    for name, back in (("v3", v3), ("v4", v4)):
        outcome = await alice.purse.receive(name, back)
        assert outcome.state == "DONE"
        assert outcome.net == back.amount - 1 >= 9
    assert await alice.worth() == before + v3.amount + v4.amount - 2
    assert await alice.purse.watch_sent() == ["s"]
