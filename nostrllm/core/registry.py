"""What is known of every route of every model: measured, remembered over a restart, compared.

The registry itself decides nothing about money: a route that comes or goes changes what can be had,
never a price. Pure; unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Final

from nostrllm.core.decayed import Decayed
from nostrllm.core.route import HISTORY_MAX, Choice, Record, Route, in_order
from nostrllm.core.versions import Difference, Tally, difference, rate_difference

SNAPSHOT: Final = 1
MEASURES: Final = ("served", "first_s", "tokens_s", "quality")

#: How a route stands now: may it be asked, and how long would an order wait there?
Standing = Callable[[Route], tuple[bool, float]]


@dataclass(frozen=True, slots=True)
class Key:
    """A route of a model."""

    model: str
    backend: str
    upstream: str


@dataclass(frozen=True, slots=True)
class Compared:
    """Two versions of a model, by what was measured (MEASURES): counts, means, the difference."""

    first: str
    second: str
    counts: Mapping[str, tuple[int, int]]
    means: Mapping[str, tuple[float, float]]
    differences: Mapping[str, Difference | None]


class Registry:
    """Models by id, each with its routes."""

    def __init__(self, models: Mapping[str, Sequence[Route]]) -> None:
        self._models = {model: tuple(routes) for model, routes in models.items()}
        self._records: dict[Key, Record] = {
            Key(model, route.backend, route.upstream): Record()
            for model, routes in self._models.items()
            for route in routes
        }
        self._tallies: dict[tuple[str, str], dict[str, Tally]] = {}

    @property
    def models(self) -> Mapping[str, tuple[Route, ...]]:
        """Every model's routes, as they were given."""
        return self._models

    def record(self, model: str, route: Route) -> Record:
        """What a route has shown."""
        return self._records[Key(model, route.backend, route.upstream)]

    def order(
        self,
        model: str,
        standing: Standing,
        *,
        tokens: tuple[int, int] = (500, 200),
        draw: float,
        now_s: float,
    ) -> list[Route]:
        """The routes to try for a prompt and an answer of so many `tokens`; empty: none is well."""
        choices = [
            Choice(route, self.record(model, route), *standing(route))
            for route in self._models[model]
        ]
        prompt, answer = tokens
        return in_order(choices, prompt=prompt, answer=answer, draw=draw, now_s=now_s)

    # what happened

    def began(self, model: str, route: Route, first_s: float, now_s: float) -> None:
        """The first token came after so long."""
        self._note(model, route, self.record(model, route).began(first_s, now_s))
        self._tally(model, route, "first_s", first_s)

    def ended(self, model: str, route: Route, now_s: float, tokens: int, took_s: float) -> None:
        """An answer came whole, `took_s` from its first token to its last."""
        self._note(model, route, self.record(model, route).ended(now_s, tokens, took_s))
        self._tally(model, route, "served", 1.0)
        if tokens > 1 and took_s > 0:
            self._tally(model, route, "tokens_s", (tokens - 1) / took_s)

    def failed(self, model: str, route: Route, now_s: float) -> None:
        """It broke off, or did not begin."""
        self._note(model, route, self.record(model, route).failed(now_s))
        self._tally(model, route, "served", 0.0)

    def rated(self, model: str, route: Route, score: float, now_s: float) -> None:
        """An answer was judged, from 0 to 1."""
        self._note(model, route, self.record(model, route).rated(score, now_s))
        self._tally(model, route, "quality", score)

    def _note(self, model: str, route: Route, record: Record) -> None:
        self._records[Key(model, route.backend, route.upstream)] = record

    def _tally(self, model: str, route: Route, measure: str, value: float) -> None:
        tallies = self._tallies.setdefault((model, route.version), {})
        tallies[measure] = tallies.get(measure, Tally()).after(value)

    # versions

    def compared(self, model: str) -> Compared | None:
        """The first two versions of a model by name; None where there are not two."""
        versions = sorted({route.version for route in self._models[model]})[:2]
        if len(versions) < 2:
            return None
        first, second = versions
        pairs = {
            measure: (self._of(model, first, measure), self._of(model, second, measure))
            for measure in MEASURES
        }
        return Compared(
            first,
            second,
            {name: (one.n, other.n) for name, (one, other) in pairs.items()},
            {name: (one.mean, other.mean) for name, (one, other) in pairs.items()},
            {
                name: (rate_difference if name == "served" else difference)(*pair)
                for name, pair in pairs.items()
            },
        )

    def _of(self, model: str, version: str, measure: str) -> Tally:
        return self._tallies.get((model, version), {}).get(measure, Tally())

    # over a restart

    def snapshot(self) -> dict[str, Any]:
        """Everything that was measured, as JSON."""
        return {
            "v": SNAPSHOT,
            "records": [{**asdict(key), **asdict(record)} for key, record in self._records.items()],
            "tallies": [
                {"model": model, "version": version, "measure": measure, **asdict(tally)}
                for (model, version), tallies in self._tallies.items()
                for measure, tally in tallies.items()
            ],
        }

    def restore(self, snapshot: object) -> None:
        """What a snapshot says of the routes that are still there. One that cannot be read, or is
        of another version, restores nothing: it is measured anew."""
        try:
            records, tallies = _read(snapshot)
        except (KeyError, TypeError, ValueError):
            return
        self._records |= {key: record for key, record in records if key in self._records}
        for model, version, measure, tally in tallies:
            if model in self._models and measure in MEASURES:
                self._tallies.setdefault((model, version), {})[measure] = tally


def _read(
    snapshot: Any,
) -> tuple[list[tuple[Key, Record]], list[tuple[str, str, str, Tally]]]:
    """Raises KeyError, TypeError, ValueError."""
    if snapshot["v"] != SNAPSHOT:
        raise ValueError
    records = [
        (Key(row["model"], row["backend"], row["upstream"]), _record(row))
        for row in snapshot["records"]
    ]
    tallies = [
        (
            str(row["model"]),
            str(row["version"]),
            str(row["measure"]),
            Tally(int(row["n"]), *_finite(row["mean"], row["squares"])),
        )
        for row in snapshot["tallies"]
    ]
    return records, tallies


def _record(row: Mapping[str, Any]) -> Record:
    decayed = {
        name: Decayed(*_finite(row[name]["total"], row[name]["weight"], row[name]["at_s"]))
        for name in MEASURES
    }
    history = tuple((int(hour), float(score)) for hour, score in row["history"])
    return replace(Record(), **decayed, history=history[-HISTORY_MAX:])


def _finite(*values: Any) -> Iterable[float]:
    numbers = [float(value) for value in values]
    if not all(map(isfinite, numbers)):
        raise ValueError
    return numbers
