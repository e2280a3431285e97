"""What a provider's file says of mints with terms of their own, and of rates."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nostrllm.core.plan import FULL
from nostrllm.core.rates import Guard
from nostrllm.errors import ConfigError
from nostrllm.provider.shop import RatePolicy
from nostrllm.wire.message import MintUrl


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MintTable(_Table):
    """[[mint]]: a mint with terms of its own: the coins taken, and the percent of the prices."""

    url: MintUrl
    units: list[Literal["sat", "msat", "usd"]] = Field(
        default=["sat", "msat"], min_length=1, max_length=3
    )
    percent: int = Field(default=FULL, ge=1, le=10_000)


class RateSourceTable(_Table):
    """[[rates.source]]: a URL that answers by JSON, and the pointer (RFC 6901) to its price."""

    url: str = Field(pattern=r"^https?://[^\s]+$", max_length=1_000)
    pointer: str = Field(pattern=r"^(/[^/]*)*$", max_length=256)


class RatesTable(_Table):
    """[rates]: what a bitcoin costs in dollars, from one of `usd_per_btc`, `file` and `source`, and
    how far that is trusted as it grows old."""

    usd_per_btc: float | None = Field(default=None, gt=0, le=10**9)
    file: Path | None = None
    source: list[RateSourceTable] = Field(default=[], max_length=16)
    at_least: int = Field(default=2, ge=1, le=16)
    every_s: float = Field(default=60.0, ge=1, le=3_600)
    fresh_s: int = Field(default=300, ge=1, le=86_400)
    stale_s: int = Field(default=3_600, ge=2, le=7 * 86_400)
    spread_percent: float = Field(default=1.0, ge=0, le=50)
    stale_percent: float = Field(default=5.0, ge=0, le=90)
    moved_percent: float = Field(default=1.0, gt=0, le=50)

    def checked(self) -> RatesTable:
        """Itself. Raises ConfigError."""
        given = (self.usd_per_btc is not None) + (self.file is not None) + bool(self.source)
        if given != 1:
            raise ConfigError("rates: set one of usd_per_btc, file and [[rates.source]]")
        if self.source and self.at_least > len(self.source):
            raise ConfigError("rates: at_least is more than there are sources")
        if self.stale_s <= self.fresh_s:
            raise ConfigError("rates: stale_s must be more than fresh_s")
        if self.stale_percent < self.spread_percent:
            raise ConfigError("rates: stale_percent must not be less than spread_percent")
        return self

    def policy(self) -> RatePolicy:
        """As the provider knows it."""
        guard = Guard(
            spread_bp=round(self.spread_percent * 100),
            stale_bp=round(self.stale_percent * 100),
            fresh_s=self.fresh_s,
            stale_s=self.stale_s,
        )
        return RatePolicy(guard, self.every_s, max(1, round(self.moved_percent * 100)))
