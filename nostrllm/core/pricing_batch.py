"""Batch work: buyers who can wait look again and again, and buy when the price is right for them.

So the price is swept: dear at first, then slowly down until those who wait for less have bought,
then dear again (Conlisk, Gerstner and Sobel, 1984). What they buy when tells where the sweep has
to be: all at once, and it is too cheap; all at its end, and it is too dear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from nostrllm.core.pricing_state import Seen

SWEEP_S: Final = 10_800.0
#: Log, to each side of the middle.
SPAN: Final = 0.5
#: Middle of the sweep against the interactive price: to begin with, and how far it may go.
MIDDLE: Final = math.log(0.82)
MIDDLE_RANGE: Final = (-1.2, 0.5)
#: The mean phase of what is bought, from 1 at the beginning to −1 at the end, when all is well.
PHASE: Final = -0.3
STEP_MAX: Final = 0.2
ORDERS_MIN: Final = 20
CONGESTED: Final = 0.2


@dataclass(slots=True)
class Sweep:
    """Where the sweep is and where its middle should be."""

    middle: float = MIDDLE
    sweep_no: int = -1
    orders: float = 0.0
    work: float = 0.0
    phase_work: float = 0.0
    calm_s: float = 0.0

    def offset(self, seen: Seen, congestion: float) -> float:
        """How far off the interactive price batch work is now, log.

        Where there is `congestion` (log) nothing has to be sold off: the sweep ends in the middle.
        """
        number, into = divmod(seen.at_s, SWEEP_S)
        if number != self.sweep_no:
            self._conclude()
            self.sweep_no = int(number)
        phase = 1 - 2 * into / SWEEP_S
        if congestion == 0:
            self.calm_s += seen.dt_s
            self.orders += seen.batch_orders
            self.work += seen.batch_work
            self.phase_work += phase * seen.batch_work
        if phase < 0:
            phase *= max(0.0, 1 - congestion / CONGESTED)
        return self.middle + SPAN * phase

    def _conclude(self) -> None:
        if self.orders >= ORDERS_MIN and self.work > 0 and self.calm_s > 0.8 * SWEEP_S:
            error = self.phase_work / self.work - PHASE
            middle = self.middle + min(max(error, -STEP_MAX), STEP_MAX)
            self.middle = min(max(middle, MIDDLE_RANGE[0]), MIDDLE_RANGE[1])
        self.orders = self.work = self.phase_work = self.calm_s = 0.0
