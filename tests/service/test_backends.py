"""[[backend]]: which model is whose, what a kind takes, and where keys come from."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from nostrllm.errors import ConfigError
from nostrllm.service.backend_tables import LlamaBackend, OpenAIBackend
from nostrllm.service.backends import engine_of
from nostrllm.service.config import ProviderConfig, read_provider_config

HEAD = """
[provider]
name = "Finch"
state = "state"
relays = ["wss://relay.example/"]
mints = ["https://mint.example/"]
"""
THREE = """
[[backend]]
kind = "openai"
name = "gpu"
url = "http://127.0.0.1:1/v1"
models = ["a"]
slots = 3

[[backend]]
kind = "anthropic"
url = "https://api.example/v1"
models = ["c"]

[[backend]]
kind = "llamacpp"
gguf = "small.gguf"
embeddings = true
"""
ONE = """
[[backend]]
kind = "openai"
url = "http://127.0.0.1:1/v1"
"""


def model(upstream: str, more: str = "") -> str:
    return f"""
[[model]]
id = "{upstream}"
upstream = "{upstream}"
context = 100
input_msat_per_mtok = 1
output_msat_per_mtok = 2
{more}
"""


def parsed(text: str) -> ProviderConfig:
    return ProviderConfig.model_validate(tomllib.loads(HEAD + text))


def test_a_model_belongs_to_the_backend_that_lists_it_or_that_it_names() -> None:
    vectors = 'backend = "llamacpp"\ntasks = ["embedding"]'
    config = parsed(THREE + model("a") + model("c") + model("small", vectors))
    shop = config.shop("1")
    assert [each.backend for each in shop.models] == ["gpu", "anthropic", "llamacpp"]
    assert shop.backends == {"gpu": 3, "anthropic": 4, "llamacpp": 4}
    assert shop.slots == 11
    a, c, small = (each.offer for each in shop.models)
    assert "temperature" in a.parameters
    assert "temperature" not in c.parameters
    assert (a.tasks, small.tasks) == (None, ["embedding"])
    assert parsed(ONE + model("any")).shop("1").models[0].backend == "openai"


def test_a_model_has_the_routes_of_all_who_list_it_and_of_its_own_tables() -> None:
    twice = THREE.replace('models = ["c"]', 'models = ["a", "c"]')
    more = """
aliases = ["small-a"]
weight = 3
[[model.route]]
backend = "anthropic"
upstream = "claude-a"
cost_output_msat_per_mtok = 7
version = "2"
weight = 0
"""
    [found] = parsed(THREE + model("a", more)).shop("1").models
    assert [(way.backend, way.upstream, way.weight, way.version) for way in found.ways] == [
        ("gpu", "a", 3, ""),
        ("anthropic", "claude-a", 0, "2"),
    ]
    assert found.ways[1].cost.output == 7
    assert found.aliases == ("small-a",)
    # What every route takes.
    assert "max_tokens" in found.offer.parameters
    assert "seed" not in found.offer.parameters
    [both] = parsed(twice + model("a")).shop("1").models
    assert [way.backend for way in both.ways] == ["gpu", "anthropic"]
    alone = '[[model.route]]\nbackend = "anthropic"'
    [away] = parsed(THREE + model("x", alone)).shop("1").models
    assert [way.backend for way in away.ways] == ["anthropic"]


def test_how_often_a_server_is_looked_after() -> None:
    config = parsed(THREE + model("a"))
    assert config.shop("1").watch_s == {"gpu": 2.0, "anthropic": 30.0, "llamacpp": 2.0}
    often = parsed(THREE.replace("slots = 3", "watch_s = 9") + model("a"))
    assert often.shop("1").watch_s["gpu"] == 9.0


@pytest.mark.parametrize(
    "text",
    [
        THREE + model("a", '[[model.route]]\nbackend = "nobody"'),
        THREE + model("a", '[[model.route]]\nbackend = "gpu"\n[[model.route]]\nbackend = "gpu"'),
        THREE + model("a", 'aliases = ["a"]'),
        THREE + model("unlisted"),
        THREE + model("a", 'backend = "nobody"'),
        THREE + model("c", 'tasks = ["embedding"]'),
        THREE + model("small", 'backend = "llamacpp"'),
        ONE + ONE + model("a"),
    ],
)
def test_what_does_not_fit_together(text: str) -> None:
    with pytest.raises(ConfigError):
        parsed(text).shop("1")


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "provider.toml"
    text = THREE.replace("slots = 3", 'key_file = "key"')
    path.write_text(HEAD + text + model("a"))
    gpu, _, llama = read_provider_config(path).backend
    assert isinstance(gpu, OpenAIBackend)
    assert isinstance(llama, LlamaBackend)
    assert gpu.key_file == tmp_path / "key"
    assert llama.gguf == tmp_path / "small.gguf"
    assert llama.alias == "small"


def test_keys_come_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("sk-1\n")
    made = OpenAIBackend(kind="openai", url="http://127.0.0.1:1/v1")
    engine_of("b", made, tmp_path)
    engine_of("b", made.model_copy(update={"key_file": key}), tmp_path)
    by_name = made.model_copy(update={"key_env": "NOSTRLLM_TEST_KEY"})
    with pytest.raises(ConfigError, match="NOSTRLLM_TEST_KEY"):
        engine_of("b", by_name, tmp_path)
    monkeypatch.setenv("NOSTRLLM_TEST_KEY", "sk-2")
    engine_of("b", by_name, tmp_path)
    with pytest.raises(ConfigError):
        engine_of("b", by_name.model_copy(update={"key_file": key}), tmp_path)
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod"):
        engine_of("b", made.model_copy(update={"key_file": key}), tmp_path)
