"""A client that pays as clients did before there were locked coins, unless it is told otherwise."""

from __future__ import annotations

from typing import Any

from nostrllm.client.answer import Answer
from nostrllm.service.client import Client


class TokenClient(Client):
    """Its orders are paid by a plain token (payment A)."""

    def ask(self, *prompt: Any, **wishes: Any) -> Answer:
        """See Client.ask."""
        return super().ask(*prompt, **{"pay": "token", **wishes})
