"""What every benchmark prints: figures beside their floors, and on what machine they were taken.

A figure alone says little on a machine that others use too; its ratio to a floor measured in the
same run says much. Nothing here is ever asserted.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

RUNS: Final = 5
LIBRARIES: Final = ("coincurve", "cryptography", "nostr-sdk", "websockets", "pydantic", "orjson")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity and its floor, in the same unit, one value per run.

    `rate`: more is better, so the ratio is turned round: it always says how many times the floor's
    cost ours is.
    """

    name: str
    unit: str
    values: Sequence[float]
    floor: str = ""
    floors: Sequence[float] = ()
    rate: bool = False

    @property
    def value(self) -> float:
        """The median of the runs."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float:
        """The median of the runs' ratios: figure and floor of one run met the same machine."""
        pairs = zip(self.values, self.floors, strict=True)
        return statistics.median(
            floor / value if self.rate else value / floor for value, floor in pairs
        )

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        span = f"{_number(min(self.values))}–{_number(max(self.values))}"
        if not self.floors:
            return (self.name, _number(self.value), span, self.unit, "", "", "")
        floor = _number(statistics.median(self.floors))
        return (
            self.name,
            _number(self.value),
            span,
            self.unit,
            self.floor,
            floor,
            f"{self.ratio:.2f}×",
        )


HEAD: Final = ("figure", "median", "span", "unit", "floor", "median", "ratio")


def show(title: str, figures: Sequence[Figure], load_before: float) -> None:
    """Print the table and what has to be known to read it."""
    rows = [HEAD, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    print(f"\n{title}\n")
    for row in rows:
        left = row[0].ljust(widths[0])
        cells = [
            cell.ljust(width) if column in (2, 3) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row[1:], widths[1:], strict=True))
        ]
        print("  ".join([left, *cells]).rstrip())
    print(f"\n{machine(load_before)}", flush=True)


def machine(load_before: float) -> str:
    """Time, load, cores and versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return (
        f"{now}; load average {load_before:.2f} before, {load():.2f} after (1 min); "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}\n"
        f"Python {platform.python_version()}, {libraries}"
    )


def load() -> float:
    """Runnable processes, mean of the last minute."""
    return os.getloadavg()[0]


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used in all its threads, to the nanosecond.

    Linux makes a process's CPU clock id of its pid (clock_getcpuclockid); /proc/PID/stat counts in
    steps of 10 ms.
    """
    if sys.platform != "linux":
        raise SystemExit("the CPU of another process is read on Linux only")
    return time.clock_gettime((~pid << 3) | 2)


def cpu_each_us(work: Callable[[], object], count: int) -> float:
    """Processor microseconds of one call, this process's, over `count` calls."""
    began = time.process_time_ns()
    for _ in range(count):
        work()
    return (time.process_time_ns() - began) / 1_000 / count


def _number(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
