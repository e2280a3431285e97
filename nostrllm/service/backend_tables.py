"""[[backend]]: the model servers that write the answers, one table each, by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from nostrllm.adapters import anthropic_request
from nostrllm.adapters.engine_http import Limits
from nostrllm.core.carry_on import Prefix
from nostrllm.ports import Task

#: Parameters of a chat request that every OpenAI-compatible server takes.
PARAMETERS = (
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "tools",
    "tool_choice",
)

#: Connections beyond the slots: for probes, and for answers that are just ending.
SPARE_CONNECTIONS = 4

#: How often a server is asked for its models; see _Remote.watched_every_s.
NEAR_S = 2.0
FAR_S = 30.0

Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1_000)]
Seconds = Annotated[float, Field(gt=0, le=3_600)]


class _Backend(BaseModel):
    """What every kind has. `models`: what it calls the models that it serves; `adaptive`: `slots`
    are the most it is given, and how many it bears is found by its latency; `prefix`: how it is
    made to go on with an answer that another began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]{0,64}$")
    models: list[Annotated[str, Field(min_length=1, max_length=256)]] = []
    slots: int = Field(default=4, ge=1, le=10_000)
    adaptive: bool = False
    first_token_s: Seconds = 60.0
    idle_s: Seconds = 60.0
    watch_s: float | None = Field(default=None, ge=1.0, le=3_600)
    prefix: Prefix = "none"

    @property
    def watched_every_s(self) -> float:
        """How often it is asked for its models: a server of one's own every two seconds."""
        return NEAR_S if self.watch_s is None else self.watch_s

    @property
    def parameters(self) -> tuple[str, ...]:
        """What a request to it may set."""
        return PARAMETERS

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can be asked for."""
        return ("chat", "completion", "embedding")


class _Remote(_Backend):
    """A server at an address. Its key is in a file, or in the environment variable `key_env`."""

    url: Url
    key_file: Path | None = None
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    connect_s: Seconds = 5.0

    @property
    def watched_every_s(self) -> float:
        """See _Backend; a stranger's server every half minute."""
        far = FAR_S if urlsplit(self.url).scheme == "https" else NEAR_S
        return far if self.watch_s is None else self.watch_s

    @property
    def limits(self) -> Limits:
        """As the engines know them."""
        return Limits(
            connect_s=self.connect_s,
            first_s=self.first_token_s,
            idle_s=self.idle_s,
            connections=self.slots + SPARE_CONNECTIONS,
        )


class OpenAIBackend(_Remote):
    """A server that speaks the OpenAI API, and how it departs from it."""

    kind: Literal["openai"]
    include_usage: bool = True
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    one_system: bool = False
    lists_models: bool = True
    key_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")


class AnthropicBackend(_Remote):
    """A server that speaks Anthropic's Messages API."""

    kind: Literal["anthropic"]
    version: anthropic_request.Version = "2026-10-21"

    @property
    def parameters(self) -> tuple[str, ...]:
        """What that version of the API has a word for."""
        return anthropic_request.PARAMETERS[self.version]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """See _Backend."""
        return ("chat",)


class LlamaBackend(_Backend):
    """llama.cpp as a child of the provider. `context` in tokens of one answer with its prompt.

    `keep_alive_s` without a request unload the model; 0 keeps it for ever.
    """

    kind: Literal["llamacpp"]
    gguf: Path
    context: int = Field(default=2_048, ge=128, le=1 << 24)
    threads: int | None = Field(default=None, ge=1, le=1_024)
    keep_alive_s: float = Field(default=300.0, ge=0, le=1e9)
    load_s: Seconds = 120.0
    embeddings: bool = False
    pooling: Literal["mean", "cls", "last"] | None = None

    @property
    def limits(self) -> Limits:
        """As the engines know them."""
        return Limits(first_s=self.first_token_s, idle_s=self.idle_s)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """See _Backend."""
        return ("embedding",) if self.embeddings else ("chat", "completion")

    @property
    def alias(self) -> str:
        """What the model is called."""
        return self.models[0] if self.models else self.gguf.stem


BackendTable = Annotated[
    OpenAIBackend | AnthropicBackend | LlamaBackend, Field(discriminator="kind")
]
