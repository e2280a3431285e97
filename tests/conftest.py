"""Fixtures every test may use: a real relay, mint and model, started when first asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from nostrllm.devnet import weights
from nostrllm.devnet.children import Child, start_mint, start_model, start_relay


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Every async test runs on the loop the daemon runs on."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
def tmp_state(tmp_path: Path) -> Path:
    """An empty state directory of a daemon, private like a real one."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def relay_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Nostr relay for the whole run, shared by all tests: use fresh keys in each."""
    with start_relay(tmp_path_factory.mktemp("relay")) as relay:
        yield relay.url


@pytest.fixture(scope="session")
def mint_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Cashu mint for the whole run: sat, msat and usd, 100 ppk, invoices pay themselves."""
    _needs("cashu")
    with start_mint(tmp_path_factory.mktemp("mint")) as mint:
        yield mint.url


@pytest.fixture(scope="session")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's own server with SmolLM2-135M as `smollm2`; 4 slots of 2,048 tokens; ends in /v1.

    Send an explicit system message, and assert on usage and shape: greedy answers differ between
    runs as soon as two requests share the server.
    """
    _needs("xllamacpp")
    with start_model(tmp_path_factory.mktemp("model"), weights.fetch()) as model:
        yield model.url


@pytest.fixture
def relay_process(tmp_path: Path) -> Iterator[Child]:
    """A relay of the test's own, to kill() and start(); its events die with it."""
    with start_relay(tmp_path / "relay") as relay:
        yield relay


@pytest.fixture
def mint_process(tmp_path: Path) -> Iterator[Child]:
    """A mint of the test's own, to kill() and start(); its database survives."""
    _needs("cashu")
    with start_mint(tmp_path / "mint") as mint:
        yield mint


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}, which comes with the devnet extra")
