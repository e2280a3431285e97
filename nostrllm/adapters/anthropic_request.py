"""An OpenAI chat request as a request of Anthropic's Messages API.

Pure. What that API has no word for (`seed`, the penalties, schemas of other forms; with version
2026-10-21 also `temperature` and `top_p`) is refused, not dropped: an operator keeps it out of the
`parameters` that he announces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson

from nostrllm.errors import EngineError

#: The API demands a limit.
MAX_TOKENS: Final = 4_096

Version = Literal["2026-10-21", "2023-06-01"]

#: What can be mapped, by version of the API.
PARAMETERS: Final[dict[Version, tuple[str, ...]]] = {
    "2026-10-21": ("max_tokens", "stop", "tools", "tool_choice", "response_format"),
    "2023-06-01": (
        *("max_tokens", "stop", "tools", "tool_choice", "response_format"),
        *("temperature", "top_p"),
    ),
}

_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}


def messages_body(body: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """The request to send. Raises EngineError `message-invalid`."""
    if unknown := sorted({*body} - {"model", "messages", *PARAMETERS[version]}):
        raise _refused(f"it takes no {', '.join(unknown)}")
    systems = [each for each in body["messages"] if each["role"] in {"system", "developer"}]
    others = [each for each in body["messages"] if each["role"] not in {"system", "developer"}]
    sent: dict[str, Any] = {
        "model": body["model"],
        "max_tokens": body.get("max_tokens", MAX_TOKENS),
        "messages": _turns(others),
        "stream": True,
    }
    if systems:
        sent["system"] = [part for each in systems for part in _system(each.get("content"))]
    if "temperature" in body:
        sent["temperature"] = min(float(body["temperature"]), 1.0)  # theirs ends at 1
    if "top_p" in body:
        sent["top_p"] = body["top_p"]
    if "stop" in body:
        sent["stop_sequences"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    if body.get("tools"):
        sent["tools"] = [_tool(each) for each in body["tools"]]
        if "tool_choice" in body:
            sent["tool_choice"] = _choice(body["tool_choice"])
    if (form := body.get("response_format")) is not None and form.get("type") != "text":
        sent["output_config"] = {"format": _format(form)}
    return sent


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """User and assistant in turn, as the API wants them; the first is the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = _blocks(message)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] != "user":
        raise _refused("a conversation begins with the user")
    return turns


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    if message["role"] == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": message.get("tool_call_id") or "",
            "content": _content(message.get("content")),
        }
        return [result]
    blocks = _content(message.get("content"))
    return [*blocks, *(_use(call) for call in message.get("tool_calls") or ())]


def _content(content: Any) -> list[dict[str, Any]]:
    """Text and image blocks; the API refuses empty ones."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return [_part(part) for part in content or () if part.get("text") != ""]


def _system(content: Any) -> list[dict[str, Any]]:
    """A system prompt is text alone."""
    blocks = _content(content)
    if any(block["type"] != "text" for block in blocks):
        raise _refused("a system message is text")
    return blocks


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:"):
            kind, _, packed = url.removeprefix("data:").partition(";base64,")
            source = {"type": "base64", "media_type": kind, "data": packed}
            return {"type": "image", "source": source}
    raise _refused("it takes text and images in data: URLs")


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    try:
        given = orjson.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        given = None
    if not isinstance(given, dict):
        raise _refused("the arguments of a tool call are a JSON object")
    return {
        "type": "tool_use",
        "id": call.get("id") or "",
        "name": function.get("name") or "",
        "input": given,
    }


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        raise _refused("tools are functions")
    sent = {
        "name": function.get("name") or "",
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        sent["description"] = function["description"]
    return sent


def _choice(choice: Any) -> dict[str, Any]:
    match choice:
        case str() if choice in _CHOICES:
            return {"type": _CHOICES[choice]}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "tool", "name": name}
    raise _refused("it does not know this tool_choice")


def _format(form: Mapping[str, Any]) -> dict[str, Any]:
    match form:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": schema}
    raise _refused("a response_format needs a json_schema")


def _refused(why: str) -> EngineError:
    return EngineError(f"the model server cannot be asked this: {why}", code="message-invalid")
