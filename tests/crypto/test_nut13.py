"""Secrets from a seed: the official vectors of both keyset versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nostrllm.crypto.nut13 import derive

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "nut13.json").read_text())


@pytest.mark.parametrize("row", VECTORS["keysets"], ids=lambda row: row["id"][:2])
def test_official_vectors(row: dict[str, Any]) -> None:
    seed = bytes.fromhex(VECTORS["seed"])
    found = [derive(seed, row["id"], counter) for counter in range(5)]
    assert [secret for secret, _ in found] == row["secrets"]
    assert [factor.hex() for _, factor in found] == row["r"]
