"""What an order asks of a model: an answer to a conversation, a text to go on with, or vectors.

In the form of OpenAI's /chat/completions, /completions and /embeddings, without `model` and
`stream`. A parameter that is not listed is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from nostrllm.wire.image import read_image
from nostrllm.wire.message import Wire

INPUTS_MAX: Final = 256
Text = Annotated[str, Field(min_length=1)]

#: What token estimates take a token for.
BYTES_PER_TOKEN: Final = 3


class ChatMessage(Wire):
    """One message of a conversation, in OpenAI's form."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = Field(default=None, max_length=128)
    tool_calls: list[dict[str, Any]] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = Field(default=None, max_length=128)


class ChatRequest(Wire):
    """The body of an OpenAI chat completion; a parameter that is not listed here is refused."""

    model_config = ConfigDict(extra="forbid")
    task: ClassVar[Literal["chat"]] = "chat"

    messages: list[ChatMessage] = Field(min_length=1, max_length=512)
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(1 << 53), le=1 << 53)
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None

    def as_body(self) -> dict[str, Any]:
        """The body as a JSON object, only what was set."""
        return self.model_dump(exclude_none=True)

    @property
    def size_bytes(self) -> int:
        """UTF-8 bytes of all that the model will read: what token estimates start from.

        Texts count as they are; tools, schemas and whatever else is no text, as JSON; an image as
        three bytes for each token it is about. Raises RemoteError for an image that is none.
        """
        body = self.model_dump(exclude_none=True, exclude={"messages"})
        size = _json_size_bytes(body)
        for message in self.messages:
            rest = message.model_dump(exclude_none=True, exclude={"role"})
            if isinstance(message.content, list):
                rest["content"] = [part for part in rest["content"] if image_url(part) is None]
            if isinstance(message.content, str):
                size += len(rest.pop("content").encode(errors="replace"))
            size += _json_size_bytes(rest)
        return size + sum(BYTES_PER_TOKEN * read_image(url).tokens for url in self.images)

    @property
    def frames(self) -> int:
        """How many texts a few tokens are put around."""
        return len(self.messages)

    @property
    def images(self) -> tuple[str, ...]:
        """The URLs of all images."""
        parts = (part for each in self.messages for part in _parts(each))
        return tuple(url for part in parts if (url := image_url(part)) is not None)


def image_url(part: Mapping[str, Any]) -> str | None:
    """The URL in an image part of OpenAI's form; None for any other part."""
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return url
    return None


def _parts(message: ChatMessage) -> list[dict[str, Any]]:
    return message.content if isinstance(message.content, list) else []


def _json_size_bytes(value: dict[str, Any]) -> int:
    """Without the outer braces."""
    if not value:
        return 0
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode(errors="replace")) - len(b"{}")


class CompletionRequest(Wire):
    """Go on with `prompt`, without a conversation's frame around it."""

    model_config = ConfigDict(extra="forbid")
    task: ClassVar[Literal["completion"]] = "completion"
    response_format: ClassVar[None] = None

    prompt: Text
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(1 << 53), le=1 << 53)
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)

    def as_body(self) -> dict[str, Any]:
        """The body as a JSON object, only what was set."""
        return self.model_dump(exclude_none=True)

    @property
    def size_bytes(self) -> int:
        """UTF-8 bytes of all that the model will read."""
        return len(self.prompt.encode(errors="replace"))

    @property
    def frames(self) -> int:
        """How many texts a few tokens are put around."""
        return 1

    @property
    def images(self) -> tuple[str, ...]:
        """None."""
        return ()


class EmbeddingRequest(Wire):
    """A vector for each text of `input`, of so many `dimensions` where the model has a choice."""

    model_config = ConfigDict(extra="forbid")
    task: ClassVar[Literal["embedding"]] = "embedding"
    max_tokens: ClassVar[None] = None
    stop: ClassVar[None] = None
    response_format: ClassVar[None] = None

    input: list[Text] = Field(min_length=1, max_length=INPUTS_MAX)
    dimensions: int | None = Field(default=None, ge=1, le=1 << 16)

    def as_body(self) -> dict[str, Any]:
        """The body as a JSON object, only what was set."""
        return self.model_dump(exclude_none=True)

    @property
    def size_bytes(self) -> int:
        """UTF-8 bytes of all that the model will read."""
        return sum(len(text.encode(errors="replace")) for text in self.input)

    @property
    def frames(self) -> int:
        """How many texts a few tokens are put around."""
        return len(self.input)

    @property
    def images(self) -> tuple[str, ...]:
        """None."""
        return ()


def _task(body: object) -> str:
    """Which request it is, by the field that only this one has."""
    if isinstance(body, Mapping):
        return "prompt" if "prompt" in body else "input" if "input" in body else "messages"
    return {"completion": "prompt", "embedding": "input"}.get(
        getattr(body, "task", "chat"), "messages"
    )


#: The three requests; old providers refuse the two that are no chat with `message-invalid`.
Body = Annotated[
    Annotated[ChatRequest, Tag("messages")]
    | Annotated[CompletionRequest, Tag("prompt")]
    | Annotated[EmbeddingRequest, Tag("input")],
    Discriminator(_task),
]
AnyRequest = ChatRequest | CompletionRequest | EmbeddingRequest
