"""One life of the provider's process: it ends at a boundary of an effect that the seed chose.

An effect is whatever leaves the process: a commit, a call of the mint, a publication. Before and
after each lies a boundary. At the chosen one the process is dead: no port does anything for it any
more and its tasks are cancelled, while what it had handed out is under way.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from tests.sim.loop import PROCESS, SimLoop, Tasks


@dataclass
class Life:
    """`crash_at`: the boundary at which it ends; None: it does not crash.

    `effect`: count the boundaries of this effect only ("" = of all).
    """

    crash_at: int | None
    rng: random.Random
    effect: str = ""
    boundaries: int = 0
    ended: str = ""
    _counted: int = 0
    ready: bool = False
    dead: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: Tasks = field(default_factory=list)

    def check(self) -> None:
        """Does nothing for the living. Raises CancelledError in a dead process."""
        if self.dead:
            raise asyncio.CancelledError

    def boundary(self, where: str) -> None:
        """Perhaps the end."""
        self.check()
        self.boundaries += 1
        self._counted += where.endswith(self.effect)
        if self._counted == self.crash_at:
            self.dead = True
            self.ended = where
            self.over.set()
            raise asyncio.CancelledError

    async def pause(self, most_s: float) -> None:
        """Wait a little, or only let others run, or go on at once."""
        drawn = self.rng.random()
        if drawn < 0.6:
            await asyncio.sleep(self.rng.uniform(0, most_s) if drawn < 0.2 else 0)
        self.check()

    def begin(self) -> None:
        """The running task, and all that it starts, is this process."""
        PROCESS.set(self.tasks)

    async def bury(self) -> None:
        """End every task of the process, in the order in which they were started."""
        self.dead = True
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.ordered = True
        while any(not task.done() for task in self.tasks):
            for task in self.tasks:
                task.cancel()
            await asyncio.sleep(0)
        loop.ordered = False
        for task in self.tasks:
            if not task.cancelled():
                task.exception()
