"""An operator's own pricing code and scripts, as real modules and processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nostrllm.core.pricing import Bounds, Fixed
from nostrllm.core.pricing_state import ServerState
from nostrllm.errors import ConfigError, WorldError
from nostrllm.provider.pricing_hook import PythonHook, ScriptHook
from tests.adapters.relay_scripted import until

pytestmark = pytest.mark.anyio

STATE = ServerState(60.0, 15.0, req_n=3, marginal_cost=0.2)
CODE = """
import time


class Twice:
    def __call__(self, state):
        return 2 * state.marginal_cost, 1.0


class Late:
    def __call__(self, state):
        time.sleep(state.req_n / 10)
        raise KeyError("late and wrong")


def failing():
    def fail(state):
        raise KeyError("secret")
    return fail


def wordy():
    return lambda state: "cheap"


def nothing():
    return None


def broken():
    raise RuntimeError("not today")
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the operator's, where Python finds it."""
    name = f"pricing_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def runs(pid: str) -> bool:
    """Is the process there, and not only its exit status?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def script(tmp_path: Path, body: str, *, limit_s: float = 5.0) -> ScriptHook:
    """A Python script as the operator's program."""
    path = tmp_path / "price.py"
    path.write_text(body)
    return ScriptHook([sys.executable, "-S", str(path)], Bounds(0.3, 3.0), limit_s=limit_s)


async def test_code_is_asked_and_bounded(code: str) -> None:
    decision = await PythonHook(f"{code}:Twice", Bounds(0.5, 2.0)).decide(STATE)
    assert (decision.interactive, decision.batch) == (0.5, 1.0)
    assert decision.reasons == ("operator", "bound")
    fixed = PythonHook(f"{Fixed.__module__}:Fixed")
    assert (await fixed.decide(STATE)).interactive == 1.0


@pytest.mark.parametrize("attribute", ["missing", "nothing", "broken", ""])
async def test_code_that_cannot_be_loaded_is_a_mistake_of_configuration(
    code: str, attribute: str
) -> None:
    with pytest.raises(ConfigError):
        PythonHook(f"{code}:{attribute}")
    with pytest.raises(ConfigError):
        PythonHook("nowhere_at_all:make")


@pytest.mark.parametrize("attribute", ["failing", "wordy"])
async def test_code_that_fails_says_so_and_no_more(code: str, attribute: str) -> None:
    with pytest.raises(WorldError) as caught:
        await PythonHook(f"{code}:{attribute}").decide(STATE)
    assert "secret" not in str(caught.value)


async def test_code_that_hangs_is_not_called_twice(code: str) -> None:
    hook = PythonHook(f"{code}:Late", limit_s=0.01)
    with pytest.raises(WorldError, match="too long"):
        await hook.decide(STATE)
    with pytest.raises(WorldError, match="last tick"):
        await hook.decide(STATE)


@pytest.mark.parametrize(
    ("printed", "pair"), [("0.9", (0.9, 0.9)), ("[1.5, 0.7]", (1.5, 0.7)), ("9", (3.0, 3.0))]
)
async def test_a_script_prints_a_price_or_two(
    tmp_path: Path, printed: str, pair: tuple[float, float]
) -> None:
    decision = await script(tmp_path, f"print('{printed}')").decide(STATE)
    assert (decision.interactive, decision.batch) == pair


async def test_a_script_reads_the_state_and_none_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOSTRLLM_SECRET", "x")
    hook = script(
        tmp_path,
        "import json, os, sys\n"
        "state = json.load(sys.stdin)\n"
        "assert 'NOSTRLLM_SECRET' not in os.environ\n"
        "assert state['pmax'] is None and state['comp_price'] is None\n"
        "print(state['req_n'] * state['marginal_cost'])\n",
    )
    assert (await hook.decide(STATE)).interactive == pytest.approx(0.6)


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(3)",
        "print('cheap')",
        "print('[1, 2, 3]')",
        "print('[1, null]')",
        "print('NaN')",
        "print('-1')",
        "print('null')",
        "print('1' * 100_000)",
    ],
)
async def test_a_script_that_gives_no_price_fails(tmp_path: Path, body: str) -> None:
    with pytest.raises(WorldError):
        await script(tmp_path, body).decide(STATE)


async def test_a_script_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hook = script(
        tmp_path,
        "import os, time\n"
        "child = os.fork()\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        "time.sleep(600)\n",
        limit_s=2.0,
    )
    with pytest.raises(WorldError, match="too long"):
        await hook.decide(STATE)
    # what is killed is gone when whoever adopted it looks
    await until(lambda: not any(runs(pid) for pid in pids.read_text().split()))


async def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="start"):
        await ScriptHook([os.fspath(tmp_path / "none")]).decide(STATE)
    with pytest.raises(ConfigError):
        ScriptHook([])
