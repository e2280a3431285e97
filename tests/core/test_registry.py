"""What is measured of routes, and what a restart leaves of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core.registry import Registry
from nostrllm.core.route import Record, Route

OLD, NEW = Route("a", "m:1", version="1"), Route("b", "m:2", version="2")


def registry() -> Registry:
    return Registry({"m": [OLD, NEW], "n": [OLD]})


def measured() -> Registry:
    found = registry()
    for n in range(10):
        found.began("m", OLD, 1.0 + n / 10, n)
        found.ended("m", OLD, n, tokens=101, took_s=1.0 + n / 10)
        found.began("m", NEW, 0.1 + n / 100, n)
        found.ended("m", NEW, n, tokens=1, took_s=0.0)
        found.failed("m", NEW, n)
        found.rated("m", NEW, 0.5, n)
    return found


def test_routes_are_ordered_by_what_they_have_shown() -> None:
    found = measured()
    assert list(found.models) == ["m", "n"]
    assert found.order("m", lambda _: (True, 0.0), draw=0.0, now_s=10.0) == [OLD, NEW]
    assert found.order("m", lambda _: (True, 0.0), draw=0.9, now_s=10.0) == [NEW, OLD]
    assert found.order("m", lambda route: (route == NEW, 0.0), draw=0.0, now_s=10.0) == [NEW]
    # Another model of the same back-end has a record of its own.
    assert found.record("n", OLD) == Record()


def test_versions_are_compared_by_all_that_was_measured() -> None:
    found = measured().compared("m")
    assert found is not None
    assert (found.first, found.second) == ("1", "2")
    assert found.counts == {
        "served": (10, 20),
        "first_s": (10, 10),
        "tokens_s": (10, 0),
        "quality": (0, 10),
    }
    assert found.means["served"] == pytest.approx((1.0, 0.5))
    served, first = found.differences["served"], found.differences["first_s"]
    assert served is not None
    assert served.is_clear
    assert first is not None
    assert first.high < 0
    assert found.differences["tokens_s"] is None
    assert registry().compared("n") is None


def test_a_snapshot_restores_what_is_still_there() -> None:
    before = measured()
    kept = json.loads(json.dumps(before.snapshot()))
    after = registry()
    after.restore(kept)
    assert after.snapshot() == before.snapshot()
    fewer = Registry({"m": [OLD]})
    fewer.restore(kept)
    assert fewer.record("m", OLD) == before.record("m", OLD)
    gone = Registry({"x": [OLD]})
    gone.restore(kept)
    assert gone.snapshot()["tallies"] == []


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {"v": 2},
        {"v": 1, "records": [{}]},
        {"v": 1, "records": [], "tallies": [{"model": "m"}]},
        {"v": 1, "records": 7},
    ],
)
def test_what_is_no_snapshot_restores_nothing(broken: Any) -> None:
    found = registry()
    found.restore(broken)
    assert found.snapshot() == registry().snapshot()


def test_numbers_that_are_none_restore_nothing() -> None:
    kept = measured().snapshot()
    kept["records"][0]["served"]["total"] = float("nan")
    found = registry()
    found.restore(kept)
    assert found.snapshot() == registry().snapshot()


STEPS = st.lists(
    st.tuples(st.sampled_from(["began", "ended", "failed", "rated"]), st.floats(0, 1e6)),
    max_size=50,
)


@given(STEPS)
def test_any_history_survives_and_can_be_ordered(steps: list[tuple[str, float]]) -> None:
    found = registry()
    for step, value in steps:
        match step:
            case "began":
                found.began("m", OLD, value, value)
            case "ended":
                found.ended("m", OLD, value, int(value), value)
            case "failed":
                found.failed("m", NEW, value)
            case _:
                found.rated("m", NEW, value, value)
    again = registry()
    again.restore(json.loads(json.dumps(found.snapshot())))
    for each in (found, again):
        ways = each.order("m", lambda _: (True, 1.0), draw=0.5, now_s=1e6)
        assert set(ways) == {OLD, NEW}
    assert again.snapshot() == found.snapshot()
