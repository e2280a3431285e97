"""The library's front door: defaults, folders, locks, names, and what importing costs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import nostrllm
from nostrllm.adapters.keys_sdk import to_npub as npub
from nostrllm.errors import ConfigError, LocalError
from nostrllm.service.client import Client
from nostrllm.service.market import market, provider_key
from nostrllm.service.place import place
from tests.roles.counterpart import counterpart

KEY = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


def test_importing_the_package_is_cheap() -> None:
    heavy = {"asyncio", "aiohttp", "pydantic", "nostr_sdk", "structlog", "aiosqlite", "coincurve"}
    code = "import sys, nostrllm; print(*sys.modules); assert nostrllm.NostrllmError"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_the_package_names_what_it_promises() -> None:
    assert nostrllm.Client is Client
    for name in nostrllm.__all__:
        assert getattr(nostrllm, name)
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = nostrllm.Nonsense


@pytest.mark.parametrize("stated", [True, False])
def test_a_place_has_defaults(stated: bool, tmp_path: Path) -> None:
    code = (
        "import json; from nostrllm.service.place import place; found = place()\n"
        "print(json.dumps([str(found.state), found.relays, found.mint]))"
    )
    environment = {**os.environ, "HOME": str(tmp_path)} | {"XDG_DATA_HOME": str(tmp_path / "x")}
    if not stated:
        del environment["XDG_DATA_HOME"]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    state, relays, mint = json.loads(done.stdout)
    home = tmp_path / "x" if stated else tmp_path / ".local" / "share"
    assert (state, mint) == (str(home / "nostrllm" / "client"), None)
    assert len(relays) == len(set(relays)) > 2
    assert all(url.startswith("wss://") for url in relays)


def test_a_place_takes_what_is_said(tmp_path: Path) -> None:
    said = place(
        state=tmp_path, relays=["ws://a", "ws://b", "ws://a"], mint="HTTPS://Mint.Example/x/"
    )
    assert said.relays == ("ws://a", "ws://b")
    assert said.mint == "https://mint.example/x"
    assert place(relays=["WSS://Relay.Example:443/"]).relays == ("wss://relay.example",)
    for wrong in ({"relays": ["https://relay.example"]}, {"mint": "foo"}, {"relays": ["wss://"]}):
        with pytest.raises(ConfigError) as caught:
            place(**wrong)
        assert caught.value.code == "config-invalid"


def test_a_devnet_file_gives_relays_mint_and_a_folder_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "devnet.json"
    file.write_text(json.dumps({"relays": ["ws://a"], "mint": "http://m:1", "providers": []}))
    for devnet in (file, tmp_path):
        found = place(devnet=devnet)
        assert (found.relays, found.mint) == (("ws://a",), "http://m:1")
        assert found.state == tmp_path / "client"
    assert place(devnet=file, relays=["ws://b"], mint="http://n").relays == ("ws://b",)
    for wrong in ("", "[]", "{}", '{"relays": 5, "mint": "x"}'):
        file.write_text(wrong)
        with pytest.raises(ConfigError):
            place(devnet=file)


def test_a_provider_is_named_by_key_or_name() -> None:
    assert provider_key(npub(KEY)) == KEY
    assert provider_key(f"nostr:{npub(KEY)}") == KEY
    assert provider_key(KEY) == KEY
    assert provider_key("Alba") == "Alba"
    for damaged in ("npub1x", "nsec1x", "z" * 64):
        with pytest.raises(ConfigError):
            provider_key(damaged)


async def test_the_state_folder_is_private_and_lasts(tmp_path: Path, relay_url: str) -> None:
    folder = tmp_path / "deep" / "state"
    async with Client(state=folder, relays=[relay_url]) as client:
        me = client.pubkey
        with pytest.raises(LocalError) as busy:
            async with Client(state=folder, relays=[relay_url]):
                raise AssertionError("two clients in one folder")
        assert busy.value.code == "busy"
        with pytest.raises(ConfigError, match="--mint"):
            await client.wallet.preferred_mint()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("identity", "seed", "client.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert len(bytes.fromhex((folder / "seed").read_text())) == 64
    async with Client(state=folder, relays=[relay_url]) as again:
        assert again.pubkey == me


async def test_an_error_in_the_block_comes_out_as_it_is(tmp_path: Path, relay_url: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Client(state=tmp_path, relays=[relay_url]):
            raise KeyError("mine")


async def test_a_key_others_can_read_is_refused(tmp_path: Path, relay_url: str) -> None:
    async with Client(state=tmp_path, relays=[relay_url]):
        pass
    (tmp_path / "identity").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod"):
        async with Client(state=tmp_path, relays=[relay_url]):
            raise AssertionError("the key was read")


async def test_the_market_finds_providers_by_key_and_name(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with (
        counterpart(tmp_path / "a", relay_url, mint_url) as bird,
        counterpart(tmp_path / "b", relay_url, mint_url) as twin,
        market(place(relays=[relay_url])) as seen,
    ):
        assert (await seen.listing(bird.name)).announcement.pubkey == bird.pubkey
        assert (await seen.offer(npub(bird.pubkey))).model.id == "parrot"
        assert await seen.pubkey(bird.name) == bird.pubkey
        assert await seen.pubkey(npub(KEY)) == KEY
        with pytest.raises(LocalError, match="offers nothing"):
            await seen.listing("Nobody")
        twin.name = bird.name
        await twin.announce(late_s=1)
        await seen.catalogue.listings(refresh=True)
        with pytest.raises(LocalError, match="several"):
            await seen.listing(bird.name)
        await bird.announce(late_s=2, promises_s=0)
        await seen.catalogue.listings(refresh=True)
        assert (await seen.listing(bird.pubkey)).announcement.pubkey == bird.pubkey
