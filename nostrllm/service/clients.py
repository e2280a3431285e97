"""A provider's clients, read beside the running daemon or after it."""

from __future__ import annotations

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.store_reading import reading
from nostrllm.errors import ConfigError
from nostrllm.provider.clients import Client, read_clients
from nostrllm.provider.shop import STORE_PARTS
from nostrllm.service.blocks import read_blocks
from nostrllm.service.config import ProviderConfig


async def clients(config: ProviderConfig) -> list[Client]:
    """Every key that ever bought or was counted. Raises ConfigError if no provider ever ran."""
    state = config.provider.state
    path = state / "provider.db"
    if not path.is_file():
        raise ConfigError(f"no provider has run on {state} yet")
    blocked = config.block.pubkeys() | read_blocks(state)
    async with reading(path, STORE_PARTS) as store:
        return await read_clients(store, blocked, int(SystemClock().now()))
