"""A whole market on one machine: a relay, a mint, a model, two providers, kept alive together.

`run_devnet` is `nostrllm devnet`; `Devnet` alone is for a caller that has work of its own to do
meanwhile. Both belong in the main thread, see `devnet.children`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from nostrllm.devnet import probes, weights
from nostrllm.devnet.children import (
    STOP_S,
    Child,
    mint_part,
    model_part,
    module_part,
    relay_part,
)
from nostrllm.errors import LocalError, WorldError

BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 30.0
STEADY_S: Final = 60.0  # a child that ran so long starts afresh in its count of failures
FILE: Final = "devnet.json"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """One provider of the devnet: its name and what it asks, in msat per million tokens."""

    name: str
    about: str
    input_msat_per_mtok: int
    output_msat_per_mtok: int
    request_msat: int


#: A short answer costs a few sat, and the second provider is 1.7 times as dear as the first.
OFFERS: Final = (
    Offer("Alba", "small and cheap", 20_000_000, 60_000_000, 1_000),
    Offer("Bruno", "small and dear", 34_000_000, 102_000_000, 1_700),
)


@dataclass(frozen=True, slots=True)
class DevnetOptions:
    """Where the devnet keeps its state, and what it runs.

    `engine_url`: a model server that exists already, instead of the embedded one; its first model
    is sold. `gguf`: the embedded one's weights, else they are fetched.
    """

    state: Path
    engine_url: str | None = None
    gguf: Path | None = None
    fee_ppk: int = 100
    offers: Sequence[Offer] = OFFERS
    provider_command: tuple[str, ...] = ("nostrllm", "provider", "run")


@dataclass(frozen=True, slots=True)
class Model:
    """What the providers sell."""

    id: str
    upstream: str
    name: str
    context: int = 2048
    max_tokens: int = 512


SMOLLM2: Final = Model("smollm2-135m", "smollm2", "SmolLM2 135M Instruct")


class Devnet:
    """The running processes; a context that starts them all and leaves none behind."""

    def __init__(self, options: DevnetOptions, on_progress: Progress | None = None) -> None:
        self.options = options
        self.children: list[Child] = []
        self._tell = on_progress or _silent
        self._state = options.state.absolute()
        self._stack = ExitStack()
        self._engine_url = options.engine_url or ""
        self._failures: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> Devnet:
        _check_extra(embedded_model=self.options.engine_url is None)
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_alone(self._state / "devnet.lock"))
            stack.callback(self._stop)
            self.file.unlink(missing_ok=True)
            self._start()
            self._write()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def file(self) -> Path:
        """Says where everything is; there while all of it is up."""
        return self._state / FILE

    def describe(self) -> dict[str, Any]:
        """What `file` holds: relays, mint, engine, and each provider by the name it announces, with
        its folder, keys, pid and models."""
        relay, mint = self.children[:2]
        return {
            "relays": [relay.url],
            "mint": mint.url,
            "engine": self._engine_url,
            "providers": [
                _status(self._state / folder) | {"name": offer.name, "folder": folder}
                for folder, offer in zip(self._folders(), self.options.offers, strict=True)
            ],
        }

    def mend(self) -> float | None:
        """Restart what died and is due; seconds until the next one is due, None if all live."""
        due_s: float | None = None
        for child in self.children:
            if child.exit_code() is None:
                continue
            failures, since = self._failures.get(child.name, (0, 0.0))
            if time.monotonic() - since > STEADY_S:
                failures, since = 0, time.monotonic()
                self._failures[child.name] = (failures, since)
            wait_s = since + min(BACKOFF_S * 2**failures, BACKOFF_S_MAX) - time.monotonic()
            if wait_s <= 0:
                self._revive(child, failures + 1)
                wait_s = 0.0
            due_s = wait_s if due_s is None else min(due_s, wait_s)
        return due_s

    def _start(self) -> None:
        options = self.options
        with ThreadPoolExecutor(1, "weights") as pool:
            gguf = self._fetch(pool)
            relay = self._add(Child(relay_part(self._state / "relay")))
            mint = self._add(Child(mint_part(self._state / "mint", fee_ppk=options.fee_ppk)))
            if gguf is not None:
                model = self._add(Child(model_part(self._state / "model", gguf.result())))
                self._engine_url = model.url
        self._await(self.children)
        sold = SMOLLM2 if options.engine_url is None else _sold(options.engine_url)
        providers = []
        for name, offer in zip(self._folders(), options.offers, strict=True):
            folder = self._state / name
            config = _configure(folder, offer, sold, (relay.url, mint.url, self._engine_url))
            module, *words = options.provider_command
            ready = folder / "status.json"
            part = module_part(
                name, folder, module, *words, "--config", str(config), ready_file=ready
            )
            providers.append(self._add(Child(part)))
        self._await(providers)

    def _fetch(self, pool: ThreadPoolExecutor) -> Future[Path] | None:
        if self.options.engine_url is not None:
            return None
        return pool.submit(weights.fetch, self.options.gguf, on_progress=self._tell)

    def _add(self, child: Child) -> Child:
        self.children.append(child)
        child.launch()
        return child

    def _await(self, children: Sequence[Child]) -> None:
        for child in children:
            child.await_ready()
            self._tell(f"{child.name} is up{' at ' + child.url if child.url else ''}")

    def _folders(self) -> list[str]:
        """Where each provider lives, and what its process is called."""
        return [f"provider-{number}" for number in range(1, len(self.options.offers) + 1)]

    def _revive(self, child: Child, failures: int) -> None:
        self._tell(f"{child.name} died ({child.exit_code()}); starting it again")
        self._failures[child.name] = (failures, time.monotonic())
        try:
            child.restart()
        except WorldError as error:
            self._tell(error.message)
        else:
            self._write()
            self._tell(f"{child.name} is up again")

    def _write(self) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.describe(), indent=2) + "\n")
        part.replace(self.file)

    def _stop(self) -> None:
        """Those who use a part before the part itself: providers, then model, mint, relay."""
        self.file.unlink(missing_ok=True)
        providers = [child for child in self.children if not child.url]
        others = [child for child in self.children if child.url]
        for group in (providers, others):
            for child in group:
                child.terminate()
            deadline = time.monotonic() + STOP_S
            for child in reversed(group):
                child.stop(timeout_s=max(0.0, deadline - time.monotonic()))


def run_devnet(options: DevnetOptions, on_progress: Progress | None = None) -> None:
    """Run a devnet until SIGTERM or SIGINT, restarting what dies. Raises WorldError, LocalError."""
    tell = on_progress or _silent
    with _woken() as wake:
        try:
            with Devnet(options, tell) as devnet:
                tell(f"ready: {devnet.file}")
                while True:
                    if select.select([wake], [], [], devnet.mend())[0]:
                        os.read(wake, 4096)
        except KeyboardInterrupt:
            tell("stopped")


@contextmanager
def _woken() -> Iterator[int]:
    """A file descriptor that a child's death makes readable; SIGTERM and SIGINT interrupt."""
    wake, sender = os.pipe()
    os.set_blocking(sender, False)
    os.set_blocking(wake, False)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    child_before = signal.signal(signal.SIGCHLD, _noted)
    fd_before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    for each in before:
        signal.signal(each, _interrupted)
    try:
        yield wake
    finally:
        signal.set_wakeup_fd(fd_before)
        signal.signal(signal.SIGCHLD, child_before)
        for each, action in before.items():
            signal.signal(each, action)
        os.close(wake)
        os.close(sender)


def _noted(_: int, __: FrameType | None) -> None:
    return


def _interrupted(_: int, __: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # once is enough: stopping must not be interrupted
    raise KeyboardInterrupt


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(
                f"another devnet runs in {lock.parent}", code="devnet-failed"
            ) from None
        yield


def _check_extra(*, embedded_model: bool) -> None:
    needed = ("cashu", "xllamacpp") if embedded_model else ("cashu",)
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise WorldError(
            f"the devnet needs {' and '.join(missing)}; run `pip install 'nostrllm[devnet]'` "
            "or put `--extra devnet` after `uv run`",
            code="devnet-failed",
        )


def _sold(engine_url: str) -> Model:
    try:
        upstream = probes.first_model(engine_url)
    except OSError as error:
        raise WorldError(f"no model at {engine_url}: {error}", code="devnet-failed") from None
    return Model(upstream, upstream, upstream)


def _status(folder: Path) -> dict[str, Any]:
    """What a provider says of itself, as far as it does at this moment."""
    try:
        said = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        said = {}
    return {name: said.get(name) for name in ("npub", "pubkey", "pid", "models")}


def _configure(folder: Path, offer: Offer, model: Model, urls: tuple[str, str, str]) -> Path:
    """A provider's configuration file, and its key if it has none yet."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = folder / "nsec"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
    relay, mint, engine = urls
    tables: list[tuple[str, dict[str, Any]]] = [
        (
            "[provider]",
            {
                "name": offer.name,
                "about": offer.about,
                "state": str(folder),
                "key_file": str(key),
                "relays": [relay],
                "mints": [mint],
                "nip04": True,
                "heartbeat_s": 60,  # a relay that was restarted has forgotten them
            },
        ),
        ("[[backend]]", {"kind": "openai", "url": engine}),
        (
            "[[model]]",
            {
                "id": model.id,
                "upstream": model.upstream,
                "name": model.name,
                "context": model.context,
                "max_tokens": model.max_tokens,
                "input_msat_per_mtok": offer.input_msat_per_mtok,
                "output_msat_per_mtok": offer.output_msat_per_mtok,
                "request_msat": offer.request_msat,
            },
        ),
    ]
    config = folder / "provider.toml"
    # a JSON string, list, number or boolean is TOML, too
    lines = [
        line
        for head, values in tables
        for line in (head, *(f"{name} = {json.dumps(value)}" for name, value in values.items()), "")
    ]
    config.write_text("\n".join(lines))
    return config


def _silent(_: str) -> None:
    return
