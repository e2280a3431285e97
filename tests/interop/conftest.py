"""People and wallets made of other software, the relays they meet at, and a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.adapters.relay_pypi import nostr_relay
from tests.interop.peers import Peer, node_peer, nutshell, relay_core
from tests.roles.market import Buyer, Stall, buying, config_text, selling


@pytest.fixture(scope="session")
def pypi_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """PyPI's nostr-relay."""
    pytest.importorskip("nostr_relay", reason="needs nostr-relay, which the test group brings")
    with nostr_relay(tmp_path_factory.mktemp("nostr-relay")) as url:
        yield url


@pytest.fixture(scope="session")
def core_url() -> Iterator[str]:
    """npm's @nostr-relay/core."""
    with relay_core() as url:
        yield url


@pytest.fixture(params=["relay_url", "pypi_url", "core_url"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Each relay in turn."""
    url = request.getfixturevalue(request.param)
    assert isinstance(url, str)
    return url


@pytest.fixture
async def stall(
    relay_url: str, mint_url: str, engine_url: str, tmp_path: Path
) -> AsyncIterator[Stall]:
    """A provider with the real model."""
    async with selling(config_text(tmp_path / "stall", [relay_url], mint_url, engine_url)) as it:
        yield it


@pytest.fixture
async def ours(relay_url: str, mint_url: str, tmp_path: Path) -> AsyncIterator[Buyer]:
    """Somebody with 500 sat in our own wallet."""
    async with buying(relay_url, mint_url, tmp_path) as it:
        yield it


@pytest.fixture
async def tools(mint_url: str, tmp_path: Path) -> AsyncIterator[Peer]:
    """Somebody with nostr-tools, and 200 sat in cashu-ts."""
    async with node_peer("nostr-tools", tmp_path / "tools") as it:
        yield await funded(it, mint_url)


@pytest.fixture
async def ndk(mint_url: str, tmp_path: Path) -> AsyncIterator[Peer]:
    """Somebody with NDK, and 200 sat in cashu-ts."""
    async with node_peer("ndk", tmp_path / "ndk") as it:
        yield await funded(it, mint_url)


@pytest.fixture(params=[pytest.param("cashu-ts", marks=pytest.mark.interop), "nutshell"])
async def wallet(
    request: pytest.FixtureRequest, mint_url: str, tmp_path: Path
) -> AsyncIterator[Peer]:
    """Each foreign wallet in turn, with 200 sat."""
    folder = tmp_path / "wallet"
    opened = nutshell(folder) if request.param == "nutshell" else node_peer("nostr-tools", folder)
    async with opened as it:
        yield await funded(it, mint_url)


async def funded(peer: Peer, mint: str) -> Peer:
    """With 200 sat of this mint."""
    await peer.do("open", mint=mint)
    assert await peer.do("fund", amount=200) == 200
    return peer
