"""The devnet starts whole, mends what dies, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from nostrllm.devnet import weights
from nostrllm.devnet.children import Child
from nostrllm.devnet.probes import mint_answers, model_answers, relay_answers
from nostrllm.devnet.supervisor import Devnet, DevnetOptions
from nostrllm.errors import LocalError, WorldError
from nostrllm.wire.kinds import ANNOUNCEMENT

STANDIN = ("tests.devnet.standin",)

RUN = """
import sys, pathlib
from nostrllm.devnet.supervisor import DevnetOptions, run_devnet
state, engine, *command = sys.argv[1:]
options = DevnetOptions(pathlib.Path(state), engine_url=engine, provider_command=tuple(command))
run_devnet(options, lambda line: print(line, flush=True))
"""


@contextmanager
def running(state: Path, engine_url: str) -> Iterator[subprocess.Popen[str]]:
    """`run_devnet` in a process of its own, with stand-ins for providers, up."""
    command = [sys.executable, "-c", RUN, str(state), engine_url, *STANDIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            await_line(process, "ready: ")
            yield process
        finally:
            process.kill()


def await_line(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line of its output that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"it ended without saying {beginning!r}")


def described(state: Path) -> dict[str, Any]:
    """What devnet.json says."""
    said = json.loads((state / "devnet.json").read_text())
    assert isinstance(said, dict)
    return said


def pids_of(parent: int) -> list[int]:
    """The children of a process."""
    return [
        int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]


def await_end(watches: list[int]) -> None:
    """Return when every watched process is gone."""
    for watch in watches:
        ended = select.select([watch], [], [], 30)[0]
        os.close(watch)
        assert ended


def test_whole_devnet_with_embedded_model(tmp_path: Path, engine_url: str) -> None:
    """Relay, mint, model and two providers with different prices, all of them answering."""
    options = DevnetOptions(tmp_path, gguf=weights.fetch(), provider_command=STANDIN)
    said: list[str] = []
    with Devnet(options, said.append) as devnet:
        found = described(tmp_path)
        relay_answers(found["relays"][0])
        mint_answers(found["mint"])
        model_answers(found["engine"])
        assert found == devnet.describe()
        assert [each["name"] for each in found["providers"]] == ["Alba", "Bruno"]
        assert [each["models"] for each in found["providers"]] == [["smollm2-135m"]] * 2
        configs = [
            json.loads((tmp_path / each["folder"] / "status.json").read_text())["config"]
            for each in found["providers"]
        ]
    assert all(config["provider"]["relays"] == found["relays"] for config in configs)
    assert all(config["provider"]["mints"] == [found["mint"]] for config in configs)
    assert all(config["backend"][0]["url"] == found["engine"] for config in configs)
    cheap, dear = (config["model"][0]["output_msat_per_mtok"] for config in configs)
    assert cheap < dear
    assert not devnet.file.exists()
    assert all(child.exit_code() is not None for child in devnet.children)
    assert len([line for line in said if " is up" in line]) == 5


def test_real_providers_are_announced_on_the_relay(tmp_path: Path, engine_url: str) -> None:
    """Without stand-ins: both daemons are up, and the relay has their announcements."""
    with Devnet(DevnetOptions(tmp_path, engine_url=engine_url)):
        found = described(tmp_path)
        authors = announced(found["relays"][0])
    assert {each["pubkey"] for each in found["providers"]} == authors
    assert len(authors) == 2
    assert [each["models"] for each in found["providers"]] == [["smollm2"]] * 2


def announced(relay_url: str) -> set[str]:
    """Whose announcements a relay has."""
    authors = set()
    with connect(relay_url) as socket:
        socket.send(json.dumps(["REQ", "all", {"kinds": [ANNOUNCEMENT]}]))
        while (message := json.loads(socket.recv(timeout=10)))[0] != "EOSE":
            authors.add(message[2]["pubkey"])
    return authors


def test_what_dies_is_started_again_in_place(tmp_path: Path, engine_url: str) -> None:
    """A killed mint is back at its address; a killed provider's new pid is told."""
    with running(tmp_path, engine_url) as process:
        before = described(tmp_path)
        os.kill(before["providers"][0]["pid"], signal.SIGKILL)
        await_line(process, "provider-1 is up again")
        after = described(tmp_path)
        assert after["providers"][0]["pid"] not in {0, before["providers"][0]["pid"]}
        assert after["providers"][1] == before["providers"][1]
        for pid in pids_of(process.pid):
            if b"\0mint\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        await_line(process, "mint is up again")
        assert described(tmp_path)["mint"] == before["mint"]
        mint_answers(before["mint"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_of_it(tmp_path: Path, engine_url: str, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end every process in order, and the exit is clean."""
    with running(tmp_path, engine_url) as process:
        watches = [os.pidfd_open(pid) for pid in pids_of(process.pid)]
        process.send_signal(number)
        await_line(process, "stopped")
        assert process.wait(30) == 0
    assert len(watches) == 4
    await_end(watches)
    assert not (tmp_path / "devnet.json").exists()


def test_kill_leaves_nobody(tmp_path: Path, engine_url: str) -> None:
    """Even SIGKILL of the supervisor ends every process, and the next run is at the same place."""
    with running(tmp_path, engine_url) as process:
        first = described(tmp_path)
        watches = [os.pidfd_open(pid) for pid in pids_of(process.pid)]
        process.kill()
        process.wait()
    await_end(watches)
    with running(tmp_path, engine_url):
        second = described(tmp_path)
    assert (second["relays"], second["mint"]) == (first["relays"], first["mint"])


def test_one_state_has_one_devnet(tmp_path: Path) -> None:
    """Two supervisors of the same state would share keys and databases."""
    options = DevnetOptions(tmp_path, engine_url="http://127.0.0.1:9/v1", offers=())
    with (
        pytest.raises(WorldError, match="no model"),
        Devnet(options),
    ):
        raise AssertionError("it has no model server")
    (tmp_path / "devnet.lock").touch()
    holding = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path / "devnet.lock")], stdout=subprocess.PIPE
    )
    with holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        with pytest.raises(LocalError, match="another devnet"):
            Devnet(options).__enter__()
        holding.kill()


LOCK = """
import fcntl, sys, time
held = open(sys.argv[1]); fcntl.flock(held, fcntl.LOCK_EX); print(flush=True); time.sleep(600)
"""


def test_failed_part_takes_the_rest_with_it(tmp_path: Path, engine_url: str) -> None:
    """When a provider cannot start, the error says so and nothing is left running."""
    options = DevnetOptions(
        tmp_path, engine_url=engine_url, provider_command=("no_such_module_here",)
    )
    devnet = Devnet(options)
    with pytest.raises(WorldError, match=r"provider-1.*log"):
        devnet.__enter__()
    ended: list[Child] = [child for child in devnet.children if child.exit_code() is not None]
    assert len(ended) == 4
