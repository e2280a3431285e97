"""The engines that the file names: made, opened, and tried once by `provider check`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from nostrllm.adapters.engine_anthropic import AnthropicEngine
from nostrllm.adapters.engine_llama import LlamaEngine, Weights, spare_threads
from nostrllm.adapters.engine_openai import OpenAIEngine, Quirks
from nostrllm.errors import ConfigError, NostrllmError
from nostrllm.ports import Engine
from nostrllm.provider.shop import Model
from nostrllm.service.backend_tables import (
    AnthropicBackend,
    BackendTable,
    LlamaBackend,
    OpenAIBackend,
)
from nostrllm.service.secrets import read_private


@asynccontextmanager
async def opened_engines(
    backends: dict[str, BackendTable], folder: Path
) -> AsyncIterator[dict[str, Engine]]:
    """Every engine by its back-end's name; children write their logs into `folder`."""
    async with AsyncExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name, table in backends.items():
            engine = engine_of(name, table, folder)
            engines[name] = await stack.enter_async_context(engine)
        yield engines


def engine_of(
    name: str, table: BackendTable, folder: Path
) -> OpenAIEngine | AnthropicEngine | LlamaEngine:
    """The engine for one table. Raises ConfigError."""
    match table:
        case OpenAIBackend():
            quirks = Quirks(
                include_usage=table.include_usage,
                limit_field=table.limit_field,
                one_system=table.one_system,
                lists_models=table.lists_models,
                key_header=table.key_header,
            )
            key = _key(table)
            return OpenAIEngine(table.url, api_key=key, quirks=quirks, limits=table.limits)
        case AnthropicBackend():
            key = _key(table)
            return AnthropicEngine(
                table.url, api_key=key, limits=table.limits, version=table.version
            )
        case LlamaBackend():
            weights = Weights(
                gguf=table.gguf,
                alias=table.alias,
                context=table.context,
                slots=table.slots,
                threads=table.threads or spare_threads(),
                embeddings=table.embeddings,
                pooling=table.pooling,
            )
            return LlamaEngine(
                weights,
                folder / f"{name}.log",
                keep_alive_s=table.keep_alive_s or None,
                load_s=table.load_s,
                limits=table.limits,
            )


def _key(table: OpenAIBackend | AnthropicBackend) -> str | None:
    if table.key_file is not None and table.key_env is not None:
        raise ConfigError("a backend has a key_file or a key_env, not both")
    if table.key_file is not None:
        return read_private(table.key_file)
    if table.key_env is not None:
        key = os.environ.get(table.key_env, "").strip()
        if not key:
            raise ConfigError(f"the environment has no {table.key_env}")
        return key
    return None


async def check_backends(
    backends: dict[str, BackendTable], models: Sequence[Model], folder: Path
) -> list[tuple[str, str | None]]:
    """Each back-end, and each model that it shall serve: (what, None if well, else what is wrong).

    Nothing is generated, and no model loaded.
    """
    found: list[tuple[str, str | None]] = []
    for name, table in backends.items():
        what = f"backend {name}" + (f" {table.url}" if not isinstance(table, LlamaBackend) else "")
        try:
            async with engine_of(name, table, folder) as engine:
                await engine.health()
                served = await engine.models()
        except NostrllmError as error:
            found.append((what, f"{error.code}: {error.message}"))
            continue
        found.append((what, None))
        for model in models:
            if model.backend == name and served:
                missing = None if model.upstream in served else "it serves no such model"
                found.append((f"model {model.offer.id}", missing))
    return found
