"""One market for all command tests: real relay, mint, model and providers, and a way to call."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nostrllm.devnet.supervisor import Devnet, DevnetOptions

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Called:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one JSON object."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Calls `nostrllm` with the market's options and one state folder."""

    devnet: Path
    state: Path

    def command(self, *words: str) -> list[str]:
        """The command line."""
        where = ["--devnet", str(self.devnet), "--state", str(self.state)]
        return [sys.executable, "-m", "nostrllm", *words, *where]

    def __call__(self, *words: str, stdin: str = "") -> Called:
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        return Called(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, stdin: str = "") -> Called:
        """As a call that must succeed."""
        called = self(*words, stdin=stdin)
        assert called.code == 0, called.err
        return called

    def until_told(self, *words: str, tries: int = 30) -> Called:
        """As `ok`, again and again until the command has something late to tell."""
        for _ in range(tries):
            called = self.ok(*words)
            if "late answer" in called.err or ("--json" in words and called.json["late"]):
                return called
        raise AssertionError("nothing late was told")


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[Path]:
    """The devnet.json of a market that runs as long as the tests do."""
    folder = tmp_path_factory.mktemp("devnet")
    with Devnet(DevnetOptions(folder, engine_url)) as running:
        yield running.file


@pytest.fixture(scope="session")
def shell(devnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A customer with 1,000 sat."""
    shell = Shell(devnet, tmp_path_factory.mktemp("customer"))
    shell.ok("wallet", "fund", "1000")
    return shell
