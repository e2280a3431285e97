"""llama.cpp as a child of the provider: loaded on demand, unloaded when idle, never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrllm.adapters.engine_llama import LlamaEngine, Weights
from nostrllm.devnet import weights
from nostrllm.errors import EngineError
from nostrllm.ports import Delta, Load, Task

pytest.importorskip("xllamacpp")

ASK: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "max_tokens": 6,
}
ENDLESS = {**ASK, "max_tokens": 900, "ignore_eos": True}


@pytest.fixture(scope="session")
def smollm2() -> Weights:
    return Weights(weights.fetch(), "smollm2", context=1_024, slots=2)


async def gather(
    engine: LlamaEngine, body: dict[str, Any] | None = None, task: Task = "chat"
) -> list[Delta]:
    """Every delta of one answer."""
    return [delta async for delta in engine.stream(body or ASK, task)]


async def until_end(answer: AsyncGenerator[Delta, None]) -> None:
    async for _ in answer:
        continue


def is_loaded(engine: LlamaEngine) -> bool:
    return engine.pid is not None


def pid_of(engine: LlamaEngine) -> int:
    assert engine.pid is not None
    return engine.pid


def tcp_sockets(pid: int) -> list[str]:
    """Local addresses of a process's TCP sockets, from the kernel's own table."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[9] in inodes]


async def gone(watch: int) -> None:
    """Wait until the process of a pidfd has ended."""
    ended: list[int] = (await asyncio.to_thread(select.select, [watch], [], [], 60))[0]
    os.close(watch)
    assert ended


async def test_loaded_by_the_first_request_and_gone_at_the_end(
    smollm2: Weights, tmp_path: Path
) -> None:
    async with LlamaEngine(smollm2, tmp_path / "llama.log") as engine:
        await engine.health()
        assert not is_loaded(engine)
        assert await engine.load() == Load(slots=2, busy=0)
        assert await engine.models() == ["smollm2"]
        first, second = await asyncio.gather(gather(engine), gather(engine))
        for answer in (first, second):
            assert answer[-1].usage is not None
            assert answer[-1].usage.completion <= 6
        pid = pid_of(engine)
        watch = os.pidfd_open(pid)
        await engine.health()
        await gather(engine)
        assert engine.pid == pid
    await gone(watch)
    assert not is_loaded(engine)
    assert "France" not in (tmp_path / "llama.log").read_text(errors="replace")
    with pytest.raises(EngineError):
        await gather(engine)


async def test_it_opens_no_port_and_no_other_user_gets_in(smollm2: Weights, tmp_path: Path) -> None:
    async with LlamaEngine(smollm2, tmp_path / "llama.log") as engine:
        await gather(engine)
        assert not tcp_sockets(pid_of(engine))
        assert Path(engine._socket).parent.stat().st_mode & 0o077 == 0


async def test_closing_the_iterator_frees_the_slot(smollm2: Weights, tmp_path: Path) -> None:
    async with LlamaEngine(smollm2, tmp_path / "llama.log") as engine:
        async with aclosing(engine.stream(ENDLESS)) as answer:
            await anext(answer)
            assert (await engine.load()).busy == 1
        async with asyncio.timeout(30):
            while (await engine.load()).busy:
                continue


async def test_unloaded_when_idle_and_loaded_again(smollm2: Weights, tmp_path: Path) -> None:
    """Not while somebody is being answered, however long that takes."""
    async with LlamaEngine(smollm2, tmp_path / "llama.log", keep_alive_s=0.05) as engine:
        async with aclosing(engine.stream(ENDLESS)) as answer:
            await anext(answer)
            await asyncio.sleep(0.2)
            await anext(answer)
            pid = pid_of(engine)
            watch = os.pidfd_open(pid)
        await gone(watch)
        await gather(engine)
        assert pid_of(engine) != pid


async def test_a_child_that_died_fails_its_answers_and_comes_back(
    smollm2: Weights, tmp_path: Path
) -> None:
    async with LlamaEngine(smollm2, tmp_path / "llama.log", keep_alive_s=None) as engine:
        async with aclosing(engine.stream(ENDLESS)) as answer:
            await anext(answer)
            os.kill(pid_of(engine), signal.SIGKILL)
            with pytest.raises(EngineError) as caught:
                await until_end(answer)
        assert caught.value.code == "generation-failed"
        assert (await gather(engine))[-1].usage is not None


async def test_a_model_that_cannot_be_loaded(smollm2: Weights, tmp_path: Path) -> None:
    """A file that is none, a file that is not there, and one that takes too long."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    async with LlamaEngine(replace(smollm2, gguf=broken), tmp_path / "log") as engine:
        await engine.health()
        with pytest.raises(EngineError) as caught:
            await gather(engine)
        assert caught.value.code == "model-unavailable"
        assert not is_loaded(engine)
    absent = replace(smollm2, gguf=tmp_path / "absent.gguf")
    async with LlamaEngine(absent, tmp_path / "log") as engine:
        with pytest.raises(EngineError):
            await engine.health()
    async with LlamaEngine(smollm2, tmp_path / "log", load_s=0.0) as hasty:
        with pytest.raises(EngineError, match="too long"):
            await gather(hasty)
        assert not is_loaded(hasty)


async def test_completions_and_vectors(smollm2: Weights, tmp_path: Path) -> None:
    """A model makes either texts or vectors, and says no to the other."""
    complete = {"prompt": "The capital of France is", "max_tokens": 3}
    embed = {"input": ["one", "two"]}
    vectors = replace(smollm2, embeddings=True, pooling="mean")
    async with LlamaEngine(smollm2, tmp_path / "log") as engine:
        *pieces, last = await gather(engine, complete, "completion")
        assert pieces
        assert last.usage is not None
        assert last.usage.completion == 3
        with pytest.raises(EngineError):
            await gather(engine, embed, "embedding")
    async with LlamaEngine(vectors, tmp_path / "log") as engine:
        first, last = await gather(engine, embed, "embedding")
        assert [len(b64decode(each)) for each in json.loads(first.text)] == [576 * 4] * 2
        assert last.usage is not None
        assert last.usage.prompt >= 2
        with pytest.raises(EngineError):
            await gather(engine)


PARENT = """
import asyncio, sys, pathlib
from nostrllm.adapters.engine_llama import LlamaEngine, Weights

async def main():
    weights = Weights(pathlib.Path(sys.argv[1]), "m", context=256, slots=1)
    async with LlamaEngine(weights, pathlib.Path(sys.argv[2])) as engine:
        async for _ in engine.stream({"prompt": "x", "max_tokens": 1}, "completion"):
            pass
        print(engine.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_no_child_outlives_a_killed_parent(smollm2: Weights, tmp_path: Path) -> None:
    """After SIGKILL of the parent the child is gone."""
    words = [sys.executable, "-c", PARENT, str(smollm2.gguf), str(tmp_path / "log")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        watch = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    ended = select.select([watch], [], [], 60)[0]
    os.close(watch)
    assert ended
