"""What a child may still spend."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.allowance import Allowance

NOW = 1_800_000_000
PLAIN = Allowance("o", "c", 1_000, used_msat=400, period_at=NOW)


def test_for_ever_and_for_a_period() -> None:
    assert PLAIN.left_msat(NOW + 10**9) == 600
    daily = replace(PLAIN, period_s=86_400)
    assert daily.left_msat(NOW + 86_399) == 600
    assert daily.left_msat(NOW + 86_400) == 1_000
    assert daily.used_msat_at(NOW + 86_400) == 0


def test_until_it_ends() -> None:
    ending = replace(PLAIN, expires_at=NOW + 5)
    assert ending.left_msat(NOW + 4) == 600
    assert ending.left_msat(NOW + 5) == 0


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**9))
def test_never_less_than_nothing(limit: int, used: int, passed: int) -> None:
    left = replace(PLAIN, limit_msat=limit, used_msat=used).left_msat(NOW + passed)
    assert left == max(0, limit - used)
