"""The breaker opens on failures in a row, waits longer each time, and closes on a success."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.breaker import FAILURES_MAX, WAIT_S_MAX, WAIT_S_MIN, Breaker


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_MAX):
        assert breaker.passes
        breaker = breaker.failed(now_s)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = opened(10.0)
    assert not breaker.passes
    assert not breaker.is_due(10.0 + WAIT_S_MIN - 0.1)
    assert breaker.is_due(10.0 + WAIT_S_MIN)


def test_a_success_between_them_does_not_count_them_on() -> None:
    breaker = Breaker()
    for _ in range(3 * FAILURES_MAX):
        breaker = breaker.failed(0.0).succeeded()
    assert breaker == Breaker()
    assert not breaker.is_due(1e9)


def test_what_was_under_way_changes_nothing_while_it_is_open() -> None:
    breaker = opened()
    assert breaker.failed(1.0) == breaker
    assert breaker.succeeded() == breaker


def test_failed_probes_wait_twice_as_long_up_to_a_bound() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(10):
        assert breaker.probe_at is not None
        waits.append(breaker.probe_at - now_s)
        now_s = breaker.probe_at
        breaker = breaker.failed(now_s)
    assert waits[:3] == [WAIT_S_MIN, 2 * WAIT_S_MIN, 4 * WAIT_S_MIN]
    assert waits[-1] == WAIT_S_MAX


def test_on_probation_one_failure_opens_it_for_longer_and_one_success_closes_it() -> None:
    breaker = opened().probed()
    assert breaker.passes
    again = breaker.failed(100.0)
    assert again.probe_at == 100.0 + 2 * WAIT_S_MIN
    assert breaker.succeeded() == Breaker()


def test_news_of_it_brings_the_probe_forward() -> None:
    assert Breaker().hastened(1.0) == Breaker()
    breaker = opened().failed(WAIT_S_MIN).hastened(7.0)
    assert breaker.is_due(7.0)
    assert breaker.failed(7.0).probe_at == 7.0 + WAIT_S_MIN


STEPS = st.lists(st.sampled_from(["failed", "succeeded", "probe-ok", "wait"]), max_size=60)


@given(STEPS)
def test_an_open_breaker_always_comes_to_a_probe(steps: list[str]) -> None:
    """No history leaves it open for ever, or waiting longer than the bound."""
    breaker, now_s = Breaker(), 0.0
    for step in steps:
        match step:
            case "failed":
                breaker = breaker.failed(now_s)
            case "succeeded":
                breaker = breaker.succeeded()
            case "probe-ok" if breaker.is_due(now_s):
                breaker = breaker.probed()
            case "wait":
                now_s += WAIT_S_MIN
        if breaker.probe_at is not None:
            assert breaker.probe_at <= now_s + WAIT_S_MAX
