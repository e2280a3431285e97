"""Exchange rates: the operator's own number, a file that something else writes, or price lists on
the web. All tell the price of a bitcoin in dollars, from which a cent follows.

No source has a rate of its own to fall back on: what cannot be looked up is an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from nostrllm.core.rates import Rate, agreed, cent_msat
from nostrllm.errors import WorldError
from nostrllm.ports import Clock

UNIT: Final = "usd"

#: What a source may say, and how long it may take.
BYTES_MAX: Final = 65_536
TIMEOUT_S: Final = 10.0


class FixedRate:
    """A price that the operator answers for; it is always as of now."""

    def __init__(self, usd_per_btc: float, clock: Clock) -> None:
        """Raises ValueError."""
        self._msat = cent_msat(usd_per_btc)
        self._clock = clock

    async def latest(self, unit: str) -> Rate:
        """As ports.Rates."""
        _check(unit)
        return Rate(self._msat, int(self._clock.now()))


class FileRate:
    """A file with the price alone in it, read again when it changes; as old as the file is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, Rate] | None = None

    async def latest(self, unit: str) -> Rate:
        """As ports.Rates."""
        _check(unit)
        try:
            stamp = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != stamp:
                with self._path.open(encoding="utf-8") as file:
                    msat = cent_msat(file.read(BYTES_MAX))
                self._read = (stamp, Rate(msat, stamp // 10**9))
        except (OSError, ValueError) as error:
            raise _unknown(f"{self._path}: {_why(error)}") from None
        return self._read[1]


@dataclass(frozen=True, slots=True)
class Source:
    """A URL that answers GET by JSON, and where in that the price stands (RFC 6901)."""

    url: str
    pointer: str


class WebRates:
    """The median of what web sources say, if enough of them answer."""

    def __init__(self, sources: Sequence[Source], at_least: int, clock: Clock) -> None:
        self._sources = tuple(sources)
        self._at_least = at_least
        self._clock = clock

    async def latest(self, unit: str) -> Rate:
        """As ports.Rates."""
        _check(unit)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            asked = (_asked(session, source) for source in self._sources)
            said = await asyncio.gather(*asked)
        msat = agreed([one for one in said if isinstance(one, int)], self._at_least)
        if msat is None:
            wrong = "; ".join(one for one in said if isinstance(one, str))
            raise _unknown(f"fewer than {self._at_least} sources answered: {wrong}")
        return Rate(msat, int(self._clock.now()))


async def _asked(session: aiohttp.ClientSession, source: Source) -> int | str:
    """A cent in msat by this source, or what was wrong with it."""
    try:
        async with session.get(source.url, allow_redirects=False) as response:
            if response.status != 200:
                return f"{source.url}: HTTP {response.status}"
            body = await response.content.read(BYTES_MAX + 1)
            while len(body) <= BYTES_MAX and (more := await response.content.read(BYTES_MAX + 1)):
                body += more
        if len(body) > BYTES_MAX:
            return f"{source.url}: too large"
        return cent_msat(pointed(json.loads(body), source.pointer))
    except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
        return f"{source.url}: {_why(error)}"


def pointed(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) finds. Raises ValueError."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise ValueError(f"nothing at {pointer}")
    return value


def _check(unit: str) -> None:
    if unit != UNIT:
        raise _unknown(f"no source tells what {unit[:16]!r} is worth")


def _unknown(why: str) -> WorldError:
    return WorldError(f"the rate is not known: {why}", code="payment-rate-unknown")


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if type(error) is ValueError else type(error).__name__
