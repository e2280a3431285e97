"""Every benchmark runs to its end with a handful of orders; what it measures is not looked at."""

from __future__ import annotations

import importlib.util

import pytest

from tests.benchmarks import first_token, orders, payments, relays, unwrap

needs_mint = pytest.mark.skipif(
    importlib.util.find_spec("cashu") is None, reason="needs cashu, of the devnet extra"
)


@needs_mint
def test_orders(capsys: pytest.CaptureFixture[str]) -> None:
    orders.run(["--orders", "2", "--runs", "1", "--at-once", "2"])
    assert "token: provider CPU per order" in capsys.readouterr().out


@needs_mint
def test_first_token(capsys: pytest.CaptureFixture[str]) -> None:
    first_token.run(["--orders", "1", "--runs", "1"])
    assert "added, token" in capsys.readouterr().out


@needs_mint
def test_payments(capsys: pytest.CaptureFixture[str]) -> None:
    payments.run(["--orders", "2", "--runs", "1"])
    assert "locked token judged" in capsys.readouterr().out


def test_unwrap(capsys: pytest.CaptureFixture[str]) -> None:
    unwrap.run(["--wraps", "5", "--runs", "1"])
    assert "32 kB, nostr-sdk" in capsys.readouterr().out


def test_relays(capsys: pytest.CaptureFixture[str]) -> None:
    relays.run(["--events", "20", "--runs", "1"])
    assert "socket to subscriber" in capsys.readouterr().out
