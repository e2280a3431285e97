"""Buy and sell LLM inference over Nostr, paid in Cashu ecash.

    async with nostrllm.Client() as client:
        async for text in client.ask("What is a relay?"):
            print(text, end="")

Importing this package loads nothing heavy: `Client` and what belongs to it come when first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from nostrllm.errors import (
    ConfigError,
    LocalError,
    NostrllmError,
    RemoteError,
    WorldError,
)

if TYPE_CHECKING:
    from nostrllm.client.answer import Answer
    from nostrllm.client.quote import Quote
    from nostrllm.client.settle import Outcome
    from nostrllm.service.client import Client

__all__ = [
    "Answer",
    "Client",
    "ConfigError",
    "LocalError",
    "NostrllmError",
    "Outcome",
    "Quote",
    "RemoteError",
    "WorldError",
]

_HOMES: Final = {
    "Answer": "nostrllm.client.answer",
    "Client": "nostrllm.service.client",
    "Outcome": "nostrllm.client.settle",
    "Quote": "nostrllm.client.quote",
}


def __getattr__(name: str) -> Any:
    """Load what is named when it is first named (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
