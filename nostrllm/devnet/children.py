"""Start, restart and stop the devnet's processes: a relay, a mint, a model server, daemons.

Everything here blocks and must be called from the main thread: the kernel's parent-death signal
fires when the *thread* that forked ends, so a child started in a worker thread dies with it.
Each child leads a process group of its own, writes to its own log file, and reports on a pipe.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nostrllm.devnet import probes
from nostrllm.errors import LocalError, WorldError

HOST = "127.0.0.1"
READY_S = 60.0  # a cold start without bytecode on a busy machine takes 18 s
STOP_S = 3.0
STRIPPED = ("MINT_", "CASHU_", "FAKEWALLET_", "PYTHONWARNINGS")


@dataclass(frozen=True, slots=True)
class Part:
    """What one child is: the role and arguments it runs with, and how to know that it answers.

    `listens`: hand it a listening socket on its port (the mint), so that early requests wait
    instead of failing. `{port}` and `{fd}` in `arguments` are filled in. `answers` makes one real
    protocol round trip with the child's URL and raises OSError while there is no answer yet.
    `ready_file`: a file the child writes when it is up, removed before each start.
    """

    name: str
    role: str
    folder: Path
    arguments: tuple[str, ...] = ()
    scheme: str = ""
    path: str = ""
    listens: bool = False
    answers: Callable[[str], None] | None = None
    ready_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One running process; `restart` gives it the same address and state again.

    The port is kept by a socket that is bound but never listens: nobody else is given the port
    while the child is down, and connecting to it is refused rather than left hanging.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self._claim = _claim(part.folder / f"{part.name}.port") if part.scheme else None
        self.port: int = self._claim.getsockname()[1] if self._claim else 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._report: int | None = None

    @property
    def name(self) -> str:
        """What it is called in messages and log files."""
        return self.part.name

    @property
    def url(self) -> str:
        """Where it answers, without a trailing slash; "" for a child that listens nowhere."""
        return f"{self.part.scheme}://{HOST}:{self.port}{self.part.path}" if self.port else ""

    @property
    def pid(self) -> int:
        """Process id, also its process group's; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def log(self) -> Path:
        """The file its output goes to."""
        return self.part.folder / f"{self.name}.log"

    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll() if self._process else 0

    def start(self, *, timeout_s: float = READY_S) -> None:
        """Run it and return when it has answered once. Raises WorldError `devnet-failed`."""
        self.launch()
        self.await_ready(timeout_s=timeout_s)

    def launch(self) -> None:
        """Run it without waiting; `await_ready` is the other half."""
        if self.part.ready_file is not None:
            self.part.ready_file.unlink(missing_ok=True)
        self._report = self._spawn()

    def await_ready(self, *, timeout_s: float = READY_S) -> None:
        """Return when it has answered once. Raises WorldError `devnet-failed`, and it is gone."""
        deadline = time.monotonic() + timeout_s
        try:
            self._await_report(deadline)
            self._await_answer(deadline)
        except BaseException:
            self.kill()
            raise

    def stop(self, *, timeout_s: float = STOP_S) -> None:
        """End it and its children: SIGTERM, then after `timeout_s` SIGKILL. Gives the port back."""
        self.terminate()
        self.reap(timeout_s=timeout_s)
        if self._claim is not None:
            self._claim.close()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.exit_code() is None:
            self._signal(signal.SIGTERM)

    def reap(self, *, timeout_s: float = STOP_S) -> None:
        """Wait for its end, force it after `timeout_s`, and leave nobody of its group behind."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would; `start` brings it back at the same address."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        for fd in (self._lifeline, self._report):
            if fd is not None:
                os.close(fd)
        self._lifeline = self._report = None

    def restart(self) -> None:
        """Kill it and start it again with the same address and state."""
        self.kill()
        self.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self) -> int:
        report, report_child = os.pipe()
        lifeline_child, self._lifeline = os.pipe()
        fds = [lifeline_child, report_child]
        listening = _listen(self.port) if self.part.listens else None
        if listening is not None:
            fds.append(listening.fileno())
        facts = {"port": self.port, "fd": fds[-1]}
        self.part.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-m", "nostrllm.devnet.child", self.part.role]
        command += [str(os.getpid()), str(lifeline_child), str(report_child)]
        command += [argument.format_map(facts) for argument in self.part.arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own entry, no shell
                command,
                cwd=self.part.folder,
                env=_environment(self.part, self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                process_group=0,
            )
        os.close(lifeline_child)
        os.close(report_child)
        if listening is not None:
            listening.close()  # else a dead mint would look like a hanging one
        return report

    def _await_report(self, deadline: float) -> None:
        if self._report is None:
            raise LocalError(f"{self.name} was not launched")
        while not select.select([self._report], [], [], 0.1)[0]:
            if time.monotonic() > deadline:
                raise self._failed("did not start in time")
        said = os.read(self._report, 4096)
        os.close(self._report)
        self._report = None
        if not said:  # the pipe closed: it died
            raise self._failed("died while starting")

    def _await_answer(self, deadline: float) -> None:
        while not self._is_up():
            if self.exit_code() is not None:
                raise self._failed("died while starting")
            if time.monotonic() > deadline:
                raise self._failed("did not answer in time")
            time.sleep(0.02)

    def _is_up(self) -> bool:
        if self.part.ready_file is not None and not self.part.ready_file.exists():
            return False
        if self.part.answers is not None:
            try:
                self.part.answers(self.url)
            except OSError:
                return False
        return True

    def _failed(self, what: str) -> WorldError:
        return WorldError(f"{self.name} {what}; its log is {self.log}", code="devnet-failed")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def start(part: Part) -> Child:
    """A running child for `part`. Raises WorldError `devnet-failed`."""
    child = Child(part)
    child.start()
    return child


def start_relay(folder: Path) -> Child:
    """A Nostr relay that keeps its events in memory, ready for REQ."""
    return start(relay_part(folder))


def start_mint(folder: Path, *, fee_ppk: int = 100) -> Child:
    """A Cashu mint with sat, msat and usd keysets whose Lightning invoices pay themselves."""
    return start(mint_part(folder, fee_ppk=fee_ppk))


def start_model(folder: Path, gguf: Path, *, alias: str = "smollm2") -> Child:
    """An OpenAI-compatible server for one GGUF file; `url` ends in /v1."""
    return start(model_part(folder, gguf, alias=alias))


def relay_part(folder: Path) -> Part:
    """The relay."""
    return Part("relay", "relay", folder, ("{port}",), scheme="ws", answers=probes.relay_answers)


def mint_part(folder: Path, *, fee_ppk: int = 100) -> Part:
    """The mint; its key and database live in `folder`, so a restart is the same mint."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Part(
        "mint",
        "mint",
        folder,
        ("{fd}",),
        scheme="http",
        listens=True,
        answers=probes.mint_answers,
        environment=_mint_environment(folder, fee_ppk),
    )


def model_part(folder: Path, gguf: Path, *, alias: str = "smollm2") -> Part:
    """The model server."""
    arguments = (_literal(gguf.absolute()), _literal(alias), "{port}")
    return Part(
        "model",
        "model",
        folder,
        arguments,
        scheme="http",
        path="/v1",
        answers=probes.model_answers,
    )


def module_part(
    name: str,
    folder: Path,
    module: str,
    *arguments: str,
    ready_file: Path | None = None,
) -> Part:
    """A daemon that is `python -m module arguments…`; ready when it has written `ready_file`."""
    words = (_literal(module), *map(_literal, arguments))
    return Part(name, "module", folder, words, ready_file=ready_file)


def _literal(word: object) -> str:
    return str(word).replace("{", "{{").replace("}", "}}")


def _claim(memory: Path) -> socket.socket:
    """A socket bound to the port that `memory` has of the last run, or to a free one."""
    memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    last = memory.read_text() if memory.exists() else ""
    claim = _bind(int(last)) if last.isdecimal() and int(last) < 1 << 16 else None
    claim = claim or _bind(0)
    if claim is None:
        raise WorldError(f"no port of {HOST} is free", code="devnet-failed")
    memory.write_text(str(claim.getsockname()[1]))
    return claim


def _bind(port: int) -> socket.socket | None:
    claim = socket.socket()
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):  # what llama.cpp's server asks for
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        claim.bind((HOST, port))
    except OSError:
        claim.close()
        return None
    return claim


def _listen(port: int) -> socket.socket:
    return socket.create_server((HOST, port), backlog=128)


def _environment(part: Part, port: int) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(STRIPPED)}
    own = {key: value.format_map({"port": port}) for key, value in part.environment.items()}
    return {**kept, **own}


def _mint_environment(folder: Path, fee_ppk: int) -> dict[str, str]:
    database = _literal(folder / "database")
    units = {f"MINT_BACKEND_BOLT11_{unit}": "FakeWallet" for unit in ("SAT", "MSAT", "USD")}
    return {
        **units,
        "HOME": _literal(folder),
        "CASHU_DIR": _literal(folder),
        "MINT_PRIVATE_KEY": _seed(folder / "mint.key"),
        "MINT_LISTEN_HOST": HOST,
        "MINT_LISTEN_PORT": "{port}",
        "MINT_DATABASE": database,
        "MINT_AUTH_DATABASE": database,
        "MINT_RATE_LIMIT": "FALSE",
        "MINT_INPUT_FEE_PPK": str(fee_ppk),
        "MINT_DERIVATION_PATH": "m/0'/0'/0'",
        "MINT_DERIVATION_PATH_LIST": """["m/0'/1'/0'","m/0'/2'/0'"]""",  # msat and usd
        "FAKEWALLET_BRR": "TRUE",
        "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
        "FAKEWALLET_DELAY_OUTGOING_PAYMENT": "0",
    }


def _seed(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()
