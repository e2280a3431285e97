"""How many requests a server of unknown capacity is given at once: as many as it bears.

The gradient of Netflix's concurrency-limits (Gradient2Limit; Landau, Thurston and Bozarth,
"Performance Under Load", 2018): while the latest latency is near the long-run one the limit grows,
by a few that may queue; as latency rises it shrinks in proportion. A request that the server turned
down shrinks it at once (additive increase, multiplicative decrease; Chiu and Jain 1989).

The latency here is the time to the first token: it is what grows when a server queues, whatever the
answers' lengths. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

#: A latency that is longer than usual by less than this factor is no sign of load.
TOLERANCE: Final = 1.5
#: Of a new estimate so much is taken at a time.
SMOOTHING: Final = 0.2
#: What may queue at the server, so that it never starves.
QUEUE: Final = 4
#: The long-run latency is an average over about so many; a plain one over the first few.
WINDOW: Final = 600
WARM_UP: Final = 10
#: When load has gone, and the latency is less than half of the usual, the usual follows.
DRIFT: Final = 0.95
BACK_OFF: Final = 0.9


@dataclass(frozen=True, slots=True)
class Gradient:
    """The limit as it stands, between `least` and `most`; `usual_s` is the long-run latency."""

    most: int
    estimate: float
    least: int = 1
    usual_s: float = 0.0
    samples: int = 0

    @property
    def limit(self) -> int:
        """Requests at once."""
        return int(self.estimate)

    def after(self, latency_s: float, running: int) -> Gradient:
        """After a first token that took so long, when so many were running, itself among them."""
        latency_s = max(latency_s, 1e-6)
        samples = self.samples + 1
        part = 1 / samples if samples <= WARM_UP else 2 / (WINDOW + 1)
        usual = self.usual_s + (latency_s - self.usual_s) * part
        if usual / latency_s > 2:
            usual *= DRIFT
        known = replace(self, usual_s=usual, samples=samples)
        if running < self.estimate / 2:  # nobody asks for more, so nothing is learned
            return known
        gradient = max(0.5, min(1.0, TOLERANCE * usual / latency_s))
        aim = self.estimate * gradient + QUEUE
        return known._to(self.estimate * (1 - SMOOTHING) + aim * SMOOTHING)

    def turned_down(self) -> Gradient:
        """After the server said that it is busy."""
        return self._to(self.estimate * BACK_OFF)

    def _to(self, estimate: float) -> Gradient:
        return replace(self, estimate=max(self.least, min(self.most, estimate)))
