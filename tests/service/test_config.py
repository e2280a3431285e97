"""A provider's file: read whole, each mistake at its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nostrllm.adapters.clock import SystemClock
from nostrllm.cli.provider import provider
from nostrllm.errors import ConfigError
from nostrllm.service.config import read_provider_config
from nostrllm.service.rates import rates_of

TEXT = """\
[provider]  # who
name = "Finch"
state = "state"
relays = ["wss://relay.example/"]
mints = ["https://mint.example/"]

[[backend]]
kind = "openai"
url = "http://127.0.0.1:1/v1"

[[model]]
id = "a"
upstream = "a"
context = 100
max_tokens = 500
input_msat_per_mtok = 1
output_msat_per_mtok = 2

[[model]]  # second
id = "b"
upstream = "b"
context = 100
input_msat_per_mtok = 1
output_msat_per_mtok = 2
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "provider.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = read_provider_config(written(tmp_path, TEXT))
    shop = config.shop("1.2.3")
    assert config.provider.state == tmp_path / "state"
    assert shop.relays == ("wss://relay.example",)
    assert shop.mints == ("https://mint.example",)
    assert [model.offer.id for model in shop.models] == ["a", "b"]
    assert shop.models[0].offer.max_tokens == 100


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('name = "Finch"', 'nam = "Finch"', 2, "provider.nam"),
        ("\nurl =", "\nurll =", 9, "backend.0.openai.urll"),
        ('state = "state"', "", 1, "provider.state"),
        ("context = 100\ninput", "context = -1\ninput", 22, "model.1.context"),
        ('url = "http://127.0.0.1:1/v1"', 'url = "ftp://x"', 9, "backend.0.openai.url"),
        ('kind = "openai"', 'kind = "ollama"', 7, "backend.0"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        read_provider_config(written(tmp_path, TEXT.replace(old, new)))
    assert f"provider.toml:{line}: {words}" in caught.value.message


@pytest.mark.parametrize("text", ["[provider", "", "\x00"])
def test_what_is_no_file_of_ours(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read_provider_config(written(tmp_path, text))
    with pytest.raises(ConfigError):
        read_provider_config(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [('id = "b"', 'id = "a"'), ("https://mint.example/", "https://user@mint.example")],
)
def test_what_only_the_whole_can_tell(tmp_path: Path, old: str, new: str) -> None:
    config = read_provider_config(written(tmp_path, TEXT.replace(old, new)))
    with pytest.raises(ConfigError):
        config.shop("1.2.3")


def test_init_writes_a_file_that_check_takes(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    first = CliRunner().invoke(provider, ["init", "--dir", str(folder)])
    assert first.exit_code == 0, first.output
    assert (folder / "nsec").stat().st_mode & 0o777 == 0o600
    path = str(folder / "provider.toml")
    check = CliRunner().invoke(provider, ["check", "--offline", "--config", path])
    assert check.exit_code == 0, check.output
    again = CliRunner().invoke(provider, ["init", "--dir", str(folder)])
    assert again.exit_code == 1
    assert "exists already" in again.output
    status = CliRunner().invoke(provider, ["status", "--config", path])
    assert status.exit_code == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    CliRunner().invoke(provider, ["init", "--dir", str(tmp_path)])
    (tmp_path / "nsec").chmod(0o644)
    path = str(tmp_path / "provider.toml")
    run = CliRunner().invoke(provider, ["run", "--config", path])
    assert run.exit_code == 1
    assert "chmod 600" in run.output


RATED = """
[[mint]]
url = "https://Other.example"
units = ["sat", "usd"]
percent = 125

[rates]
file = "rate"
spread_percent = 0.5
"""


def test_mints_with_terms_of_their_own(tmp_path: Path) -> None:
    config = read_provider_config(written(tmp_path, TEXT + RATED))
    shop = config.shop("")
    assert shop.mints == ("https://mint.example", "https://other.example")
    assert [(one.mint[8:13], one.unit, one.percent) for one in shop.coins] == [
        ("mint.", "sat", 100),
        ("mint.", "msat", 100),
        ("other", "sat", 125),
        ("other", "usd", 125),
    ]
    assert shop.rated == ("usd",)
    assert shop.filling("sat") == ("https://mint.example",)
    assert (shop.rates.guard.spread_bp, shop.rates.guard.stale_bp) == (50, 500)
    assert config.rates is not None
    assert config.rates.file == tmp_path / "rate"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("https://Other.example", "https://mint.example", "named twice"),
        ('file = "rate"', "", "set one of"),
        ('file = "rate"', 'file = "rate"\nusd_per_btc = 1.0', "set one of"),
        ('file = "rate"', 'source = [{url = "http://a", pointer = ""}]', "at_least"),
        ("spread_percent = 0.5", "fresh_s = 9\nstale_s = 9", "stale_s"),
        ("spread_percent = 0.5", "spread_percent = 6", "stale_percent"),
        ('[rates]\nfile = "rate"\nspread_percent = 0.5', "", "say in \\[rates\\]"),
        ('units = ["sat", "usd"]', 'units = ["eur"]', "units"),
    ],
)
def test_terms_that_make_no_sense(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = TEXT + RATED
    assert old in text
    with pytest.raises(ConfigError, match=words):
        read_provider_config(written(tmp_path, text.replace(old, new))).shop("")


def test_somebody_must_be_taken_coins_of(tmp_path: Path) -> None:
    text = TEXT.replace('mints = ["https://mint.example/"]', "mints = []")
    with pytest.raises(ConfigError, match="1 to 32 mints"):
        read_provider_config(written(tmp_path, text)).shop("")


def test_a_fixed_rate_that_is_none(tmp_path: Path) -> None:
    text = TEXT + RATED.replace('file = "rate"', "usd_per_btc = 0.001")
    config = read_provider_config(written(tmp_path, text))
    with pytest.raises(ConfigError, match="usd_per_btc: not a price"):
        rates_of(config.rates, SystemClock())
