from __future__ import annotations

import json
from typing import Any

from nostrllm.adapters.relay_intake import Inbox
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_request import Request
from nostrllm.ports import Filter

LIMITS = RelayLimits(
    eose_timeout_s=10.0,
    closed_backoff_s=1.0,
    closed_backoff_s_max=5.0,
    catchup_s=100.0,
    stable_s=30.0,
)
ASKED = (Filter(kinds=(1059,), limit=7),)


def request(**changes: Any) -> Request:
    return Request(Inbox("n", ASKED, LIMITS), ASKED, **changes)


def filters(asked: Request, *, live_only: bool = False) -> list[dict[str, Any]]:
    verb, number, *rest = json.loads(asked.frame(1_000.0, live_only=live_only))
    assert (verb, number) == ("REQ", asked.id)
    return list(rest)


def test_what_is_asked() -> None:
    assert filters(request()) == [{"kinds": [1059], "limit": 7}]
    assert filters(request(stored_s=300)) == [{"kinds": [1059], "limit": 7, "since": 700}]
    assert filters(request(), live_only=True) == [{"kinds": [1059], "limit": 0}]
    assert filters(request(once=True), live_only=True) == [{"kinds": [1059], "limit": 7}]
    assert request().id != request().id


def test_without_eose_it_is_asked_again_and_then_it_is_silent() -> None:
    asked = request()
    assert not asked.due(50.0, LIMITS)  # not even sent
    asked.sent(0.0)
    assert not asked.due(9.0, LIMITS)
    assert asked.due(10.0, LIMITS)
    silent = [asked.silent]
    asked.sent(10.0)
    assert asked.due(20.0, LIMITS)
    silent.append(asked.silent)
    asked.eose()
    silent.append(asked.silent)
    assert silent == [False, True, False]
    assert asked.live


def test_after_closed_it_waits_longer_each_time() -> None:
    asked = request()
    waits = []
    for start in range(0, 60, 10):
        asked.sent(float(start))
        asked.closed(float(start), LIMITS)
        assert not asked.live
        waits.append(next(w for w in range(10) if asked.due(start + float(w), LIMITS)))
    assert waits == [1, 2, 4, 5, 5, 5]
    asked.sent(100.0)
    asked.closed(140.0, LIMITS)  # it had held for long
    assert asked.due(141.0, LIMITS)


def test_stored_events_are_caught_up() -> None:
    plain, stored, once = request(), request(stored_s=60), request(once=True)
    for asked in (plain, stored, once):
        asked.sent(0.0)
        asked.eose()
    assert [r.due(99.0, LIMITS) for r in (plain, stored, once)] == [False, False, False]
    assert [r.due(100.0, LIMITS) for r in (plain, stored, once)] == [False, True, False]


def test_a_lost_connection_ends_a_fetch_and_not_a_subscription() -> None:
    kept, once = request(), request(once=True)
    for asked in (kept, once):
        asked.sent(0.0)
        assert asked.asked
        asked.lost()
        assert not asked.asked
    assert once.answered.is_set()
    assert not kept.answered.is_set()
