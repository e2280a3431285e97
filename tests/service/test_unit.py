"""The systemd unit stays as locked up as it claims to be, and fits the daemon."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "nostrllm@.service"


def test_exposure_is_at_most_1_5() -> None:
    """`systemd-analyze security` scores what the unit may still do, 0 to 10."""
    done = subprocess.run(
        [ROOT / ".ci" / "check-unit"], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == 77:
        pytest.skip("needs systemd-analyze, and neither it nor apt-get is here")
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_refuses_an_open_unit(tmp_path: Path) -> None:
    """The check can fail: without its sandbox the unit does not pass."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "systemd").mkdir()
    script = tmp_path / ".ci" / "check-unit"
    script.write_bytes((ROOT / ".ci" / "check-unit").read_bytes())
    script.chmod(0o700)
    kept = [line for line in UNIT.read_text().splitlines() if not line.startswith("Private")]
    (tmp_path / "systemd" / UNIT.name).write_text("\n".join(kept))
    done = subprocess.run([script], capture_output=True, timeout=300, check=False)
    if done.returncode == 77:
        pytest.skip("needs systemd-analyze, and neither it nor apt-get is here")
    assert done.returncode == 1


def test_unit_is_notified_and_holds_the_key_as_a_credential() -> None:
    """What `service.notify` and the key's reading rely on."""
    lines = UNIT.read_text().splitlines()
    assert "Type=notify" in lines
    assert "WatchdogSec=60s" in lines
    assert "LoadCredential=nsec:/etc/nostrllm/%i.nsec" in lines
