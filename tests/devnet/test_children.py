"""The devnet's processes start, answer, restart in place, and never outlive their parent."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nostrllm.devnet.children import Child, module_part, start, start_relay
from nostrllm.devnet.probes import relay_answers
from nostrllm.errors import WorldError


def get(url: str, path: str) -> object:
    """The JSON that a GET answers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def is_refused(child: Child) -> bool:
    """Does nobody listen at the child's port?"""
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", child.port)) != 0


def test_relay_comes_back_at_the_same_address(relay_process: Child) -> None:
    """A relay that was killed refuses connections, and answers at its old address after start."""
    url = relay_process.url
    relay_process.kill()
    assert is_refused(relay_process)
    relay_process.start()
    assert relay_process.url == url
    relay_answers(relay_process.url)


def test_mint_keeps_its_keysets_over_a_kill(mint_process: Child) -> None:
    """The same mint, by its keysets, is back at the same address after SIGKILL."""
    before = get(mint_process.url, "/v1/keysets")
    mint_process.kill()
    assert is_refused(mint_process)
    mint_process.start()
    assert get(mint_process.url, "/v1/keysets") == before


def test_mint_has_three_units_with_a_fee(mint_url: str) -> None:
    """sat, msat and usd keysets, each with the input fee of 100 ppk."""
    answer = get(mint_url, "/v1/keysets")
    assert isinstance(answer, dict)
    found = {(each["unit"], each["input_fee_ppk"]) for each in answer["keysets"]}
    assert found == {("sat", 100), ("msat", 100), ("usd", 100)}


def test_model_has_four_slots(engine_url: str) -> None:
    """The model server offers four slots of 2,048 tokens under its alias."""
    slots = get(engine_url, "/slots")
    models = get(engine_url, "/v1/models")
    assert isinstance(slots, list)
    assert [slot["n_ctx"] for slot in slots] == [2048] * 4
    assert isinstance(models, dict)
    assert [each["id"] for each in models["data"]] == ["smollm2"]


def test_stop_ends_the_child_in_order(tmp_path: Path) -> None:
    """SIGTERM is enough for the relay, and its port is free afterwards."""
    relay = start_relay(tmp_path)
    relay.stop()
    assert relay.exit_code() == 0
    assert is_refused(relay)
    socket.create_server(("127.0.0.1", relay.port)).close()


def test_address_is_the_same_in_the_next_run(tmp_path: Path) -> None:
    """A wallet that holds coins of the mint finds it again where it was."""
    with start_relay(tmp_path) as first:
        url = first.url
    with start_relay(tmp_path) as second:
        assert second.url == url
        with start_relay(tmp_path / "other") as other:
            assert other.url != url


def test_child_that_dies_at_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    """The error names the log file, and the log holds the reason."""
    with pytest.raises(WorldError, match=r"died while starting.*\.log") as caught:
        start(module_part("absent", tmp_path, "no_such_module_here", ready_file=tmp_path / "up"))
    assert caught.value.code == "devnet-failed"
    assert "no_such_module_here" in (tmp_path / "absent.log").read_text()


def test_child_that_never_answers_is_killed(tmp_path: Path) -> None:
    """A child that does not become ready within its time is ended, not left behind."""
    child = Child(module_part("mute", tmp_path, "http.server", "0", ready_file=tmp_path / "up"))
    with pytest.raises(WorldError, match="mute"):
        child.start(timeout_s=0.5)
    assert child.exit_code() is not None


PARENT = """
import sys, pathlib, time
from nostrllm.devnet.children import start_relay, module_part, start
relay = start_relay(pathlib.Path(sys.argv[1]))
other = start(module_part("other", pathlib.Path(sys.argv[1]), "http.server", "0"))
print(relay.pid, other.pid, flush=True)
time.sleep(600)
"""


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    """After SIGKILL of the parent every child is gone."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        parent.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    for pid, watch in zip(pids, watched, strict=True):
        _await_end(pid, watch)


def _await_end(pid: int, watch: int) -> None:
    ended = select.select([watch], [], [], 30)[0]
    os.close(watch)
    assert ended, f"process {pid} is still alive"
