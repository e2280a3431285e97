"""A live status tick (kind 24424, ephemeral): what models cost now, and how long one waits.

Never required, and no promise: an order pays by the price list that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field, TypeAdapter

from nostrllm.errors import RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.announcement import LABEL, REASONS_MAX, Price, Reason
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.message import ModelId, Wire, parse

#: One tick names no more models; those of a longer list are told in turn.
MODELS_MAX: Final = 100


class LiveModel(Wire):
    """One model now: the price that the next list or quote would have, and the wait in seconds."""

    id: ModelId
    price: Price
    wait_s: int = Field(ge=0, le=86_400)


class Tick(Wire):
    """The content of kind 24424. `seq` is that of the provider's newest price list."""

    v: Literal[1] = 1
    seq: int = Field(ge=0, le=1 << 53)
    models: list[LiveModel] = Field(max_length=MODELS_MAX)
    reasons: list[Reason] | None = Field(default=None, max_length=REASONS_MAX)


_TICK: Final = TypeAdapter(Tick)


def tick_drafts(
    models: Sequence[LiveModel], *, d: str, seq: int, reasons: Sequence[str], at: int
) -> list[Draft]:
    """The events that tell of all these models; `d` is the announcement's."""
    tags = (("d", d), ("t", LABEL))
    return [
        Draft(
            kinds.TICK,
            Tick(
                seq=seq,
                models=list(models[n : n + MODELS_MAX]),
                reasons=list(reasons) or None,
            ).as_json(),
            at,
            tags,
        )
        for n in range(0, len(models), MODELS_MAX)
    ]


def parse_tick(event: Event) -> Tick:
    """An event of kind 24424 that is ours. Raises RemoteError for every other."""
    if event.kind != kinds.TICK or LABEL not in event.values("t"):
        raise RemoteError("not a tick of this market")
    return parse(_TICK, event.content)
