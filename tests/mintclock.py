"""A real mint whose clock a test can set: locktimes pass in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.devnet.children import Child, mint_part, start

#: What Python runs before anything else in the mint's process.
SITE = """
import os, time
real = time.time
def now():
    try:
        with open(os.environ["TEST_CLOCK"]) as file:
            return real() + float(file.read() or 0)
    except (OSError, ValueError):
        return real()
time.time = now
"""


@dataclass(frozen=True)
class ClockedMint:
    """The mint, and the file that says how far its clock is ahead."""

    child: Child
    file: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.child.url

    async def ahead(self, seconds: float) -> None:
        """Set its clock, and wait until it says so (its Date header moves once a second)."""
        self.file.write_text(str(seconds))
        async with asyncio.timeout(10), CashuMints() as mints:
            while True:
                mint = mints.at(self.url)
                await mint.states(["02" + "11" * 32])
                if mint.skew_s is not None and abs(mint.skew_s - seconds) < 3:
                    return
                await asyncio.sleep(0.05)


@contextmanager
def clocked_mint(folder: Path) -> Iterator[ClockedMint]:
    """Start it; its clock is right at first."""
    part = mint_part(folder / "mint")
    site = folder / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(SITE)
    file = folder / "ahead"
    own = {"PYTHONPATH": str(site), "TEST_CLOCK": str(file)}
    with start(replace(part, environment={**part.environment, **own})) as child:
        yield ClockedMint(child, file)
