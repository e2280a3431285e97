"""Software written by others, each in a process of its own: a line of JSON in, a line out."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
RELAY_CORE = HERE / "relay-core"
ANSWER_S = 30.0
LINE_BYTES_MAX = 1 << 20
KEPT = ("PATH", "LANG", "VIRTUAL_ENV")


class PeerError(Exception):
    """The peer could not do it; its own words."""


@dataclass(frozen=True)
class Peer:
    """A running one; `name` is what made it."""

    name: str
    process: Process
    log: Path

    async def do(self, command: str, **fields: Any) -> Any:
        """Its answer. Raises PeerError when it refuses, dies, or takes too long."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": command, **fields}).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise PeerError(f"{self.name} did not answer to {command}: {self.said()}") from None
        if not line:
            raise PeerError(f"{self.name} ended: {self.said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    def said(self) -> str:
        """The end of what it wrote beside its answers."""
        return self.log.read_text(errors="replace")[-2_000:]

    async def heard(self, author: str) -> str:
        """The text of the next private message, which must be of this author."""
        letter = await self.do("heard")
        assert letter["from"] == author
        return str(letter["text"])

    async def heard_until(self, author: str, mark: str) -> list[str]:
        """Private messages up to and with the first that contains `mark`."""
        said: list[str] = []
        while not said or mark not in said[-1]:
            said.append(await self.heard(author))
        return said


def node(packages: Path = HERE) -> str:
    """Node.js, with the packages in this folder; else the test is skipped."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs Node.js")
    if not (packages / "node_modules").is_dir():
        pytest.skip(f"needs `npm ci` in tests/{packages.relative_to(HERE.parent)}")
    return found


@asynccontextmanager
async def node_peer(library: str, folder: Path) -> AsyncIterator[Peer]:
    """A person with `nostr-tools` or `ndk`, and cashu-ts for a wallet."""
    command = [node(), str(HERE / "peer.mjs"), library]
    async with _running(library, command, folder) as peer:
        yield peer


@asynccontextmanager
async def nutshell(folder: Path) -> AsyncIterator[Peer]:
    """Nutshell's wallet, which must see nothing of this process's folder and environment."""
    if importlib.util.find_spec("cashu") is None:  # to import it would change this process
        pytest.skip("needs cashu, which comes with the devnet extra")
    command = [sys.executable, str(HERE / "nutshell.py"), str(folder)]
    async with _running("nutshell", command, folder) as peer:
        yield peer


@asynccontextmanager
async def _running(name: str, command: list[str], folder: Path) -> AsyncIterator[Peer]:
    environment, log = _home(folder), folder / "peer.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environment,
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            limit=LINE_BYTES_MAX,
        )
    try:
        yield Peer(name, process, log)
    finally:
        process.kill()  # nothing of it is worth a clean end
        await process.communicate()


def _home(folder: Path) -> dict[str, str]:
    """An environment that knows nothing but its own new folder."""
    folder.mkdir()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"HOME": str(folder), "CASHU_DIR": str(folder), "TOR": "FALSE"}


@contextmanager
def relay_core() -> Iterator[str]:
    """The address of @nostr-relay/core over ws, in memory; it greets everybody with AUTH."""
    process = subprocess.Popen(
        [node(RELAY_CORE), "relay.mjs"],
        cwd=RELAY_CORE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # closes its standard input, at whose end it leaves
        assert process.stdout is not None
        yield process.stdout.readline().strip()
