"""What goes wrong, how often, and until when."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping


class Weather:
    """How bad things are: the chance of each fault, and what is down until when.

    `happened` counts what was really done to somebody, so that a simulation that stopped doing it
    is noticed.
    """

    def __init__(self, rng: random.Random, chances: Mapping[str, float]) -> None:
        self._rng = rng
        self._chances = dict(chances)
        self._down: dict[str, float] = {}
        self.happened: Counter[str] = Counter()

    def draw(self, fault: str) -> bool:
        """Does it happen now?"""
        chance = self._chances.get(fault, 0.0)
        if chance <= 0 or self._rng.random() >= chance:
            return False
        self.happened[fault] += 1
        return True

    def take_down(self, what: str, seconds: float) -> None:
        """A relay, a mint, or a line to one is gone for a while."""
        self._down[what] = asyncio.get_running_loop().time() + seconds

    def is_down(self, what: str) -> bool:
        """Is it gone?"""
        return self._down.get(what, 0.0) > asyncio.get_running_loop().time()

    def heal(self) -> None:
        """Nothing fails from now on."""
        self._chances.clear()
        self._down.clear()
