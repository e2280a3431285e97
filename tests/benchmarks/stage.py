"""A market on this machine for one benchmark: every part a process of its own, real but the model.

The provider is the daemon as it is installed, so that its processor time is that of its process.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nostrllm.adapters.keys_sdk import to_nsec
from nostrllm.crypto.keys import public_key
from nostrllm.devnet.children import (
    Child,
    Part,
    module_part,
    start,
    start_mint,
    start_model,
    start_relay,
)
from nostrllm.devnet.probes import first_model

ROOT: Final = Path(__file__).parents[2]

CONFIG: Final = """
[provider]
name = "Benchmark"
state = "{state}"
key_file = "{state}/nsec"
relays = ["{relay}"]
mints = ["{mint}"]
queue_max = 1_000
letters_per_minute_max = 100_000
drain_s = 1.0

[[backend]]
kind = "openai"
url = "{engine}"
slots = {slots}

[[model]]
id = "model"
upstream = "{upstream}"
context = 2048
max_tokens = 256
input_msat_per_mtok = 20_000_000
output_msat_per_mtok = 60_000_000
request_msat = 1_000
"""


@dataclass(frozen=True, slots=True)
class Mock:
    """What the mock engine answers: so many chunks, with a pause between two."""

    chunks: int = 20
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """The running parts; `provider_pubkey` is whom to buy from, `upstream` the engine's model."""

    relay: Child
    mint: Child
    provider: Child
    provider_pubkey: str
    engine_url: str
    upstream: str


@contextmanager
def staged(
    folder: Path, engine: Mock | Path | str, *, slots: int = 8, mint: Child | None = None
) -> Iterator[Stage]:
    """All parts in `folder`; the engine is a mock, weights for llama.cpp, or a server's URL.

    `mint`: one that runs already.
    """
    with ExitStack() as stack:
        relay = stack.enter_context(start_relay(folder / "relay"))
        if mint is None:
            mint = stack.enter_context(start_mint(folder / "mint"))
        engine_url = _engine(stack, folder, engine)
        upstream = first_model(engine_url)
        state = folder / "provider"
        state.mkdir(mode=0o700)
        secret = secrets.token_bytes(32)
        key = state / "nsec"
        key.touch(mode=0o600)
        key.write_text(to_nsec(secret))
        config = state / "provider.toml"
        config.write_text(
            CONFIG.format(
                state=state,
                relay=relay.url,
                mint=mint.url,
                engine=engine_url,
                slots=slots,
                upstream=json.dumps(upstream)[1:-1],
            )
        )
        words = ("provider", "run", "--config", str(config))
        part = module_part("provider", state, "nostrllm", *words, ready_file=state / "status.json")
        provider = stack.enter_context(start(part))
        yield Stage(relay, mint, provider, public_key(secret), engine_url, upstream)


def _engine(stack: ExitStack, folder: Path, engine: Mock | Path | str) -> str:
    if isinstance(engine, str):
        return engine
    if isinstance(engine, Path):
        return stack.enter_context(start_model(folder / "engine", engine)).url
    part = Part(
        "engine",
        "module",
        folder / "engine",
        ("tests.benchmarks.mockengine", "{port}", str(engine.chunks), str(engine.pause_ms)),
        scheme="http",
        path="/v1",
        answers=first_model_answers,
        environment={"PYTHONPATH": str(ROOT)},
    )
    return stack.enter_context(start(part)).url


def first_model_answers(url: str) -> None:
    """The mock lists its model. Raises OSError."""
    first_model(url)
