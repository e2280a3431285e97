"""How an answer that one server began is gone on with by another: the request for the rest.

Only a text can be carried on: a tool call or a schema is a whole or nothing, and what a model
thought before it wrote is not seen by the next one. The servers differ in how they are told that
the last message is unfinished (`Prefix`); one that is not known to understand it would begin a new
answer in the middle of the old one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from nostrllm.wire.order import Usage

#: `none`: it cannot. `message`: it goes on with a last message of the assistant by itself, as
#: llama.cpp's server does. `flag`: it is told to, by vLLM's and SGLang's `continue_final_message`.
Prefix = Literal["none", "message", "flag"]

#: What makes an answer more than a text.
WHOLE: Final = ("tools", "response_format", "logprobs")


def can_go_on(body: Mapping[str, Any], task: str) -> bool:
    """Is what is asked for a text that can be written in two pieces?"""
    return task in ("chat", "completion") and not any(body.get(name) for name in WHOLE)


def rest_of(
    body: Mapping[str, Any], task: str, text: str, spent: int, prefix: Prefix
) -> dict[str, Any] | None:
    """The request for what follows `text`, of which `spent` tokens are written; None: the server
    cannot be asked for that."""
    rest = dict(body)
    for name in ("max_tokens", "max_completion_tokens"):
        if name in rest:
            rest[name] -= spent
            if rest[name] < 1:
                return None
    if task == "completion":
        return rest | {"prompt": body["prompt"] + text}
    if prefix == "none":
        return None
    rest["messages"] = [*body["messages"], {"role": "assistant", "content": text}]
    if prefix == "flag":
        rest |= {"continue_final_message": True, "add_generation_prompt": False}
    return rest


def usage_of(told: Usage, spent: int, prompt_most: int) -> Usage:
    """What both pieces took together, each token once: the second server read what the first wrote
    as a part of its prompt. The prompt is no longer than was estimated before (`prompt_most`)."""
    prompt = min(max(0, told.prompt - spent), prompt_most)
    return Usage(
        prompt=prompt,
        completion=spent + told.completion,
        cached=min(told.cached, prompt),
        reasoning=told.reasoning,
    )
