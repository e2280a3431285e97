"""What a provider's file says of prices: each model's, in msat or dollars, and how they move."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nostrllm.core.pricing import Bounds
from nostrllm.core.tariff import Sum
from nostrllm.errors import ConfigError
from nostrllm.provider.shop import Pricing

Msat = Annotated[int, Field(ge=0)]
Usd = Annotated[Decimal, Field(ge=0, le=10**6, max_digits=18, decimal_places=12)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PricesTable(_Table):
    """The part of [[model]] that tells its prices: in msat or in dollars; and what it costs us."""

    input_msat_per_mtok: Msat | None = None
    output_msat_per_mtok: Msat | None = None
    cached_msat_per_mtok: Msat | None = None
    reasoning_msat_per_mtok: Msat | None = None
    request_msat: Msat | None = None
    input_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd | None = None
    cached_usd_per_mtok: Usd | None = None
    reasoning_usd_per_mtok: Usd | None = None
    request_usd: Usd | None = None
    cost_input_msat_per_mtok: Msat | None = None
    cost_output_msat_per_mtok: Msat | None = None
    cost_request_msat: Msat | None = None
    cost_input_usd_per_mtok: Usd | None = None
    cost_output_usd_per_mtok: Usd | None = None
    cost_request_usd: Usd | None = None

    def asked(self, model: str) -> Sum:
        """The list price. Raises ConfigError."""
        found = self._sum("", model)
        if found is None:
            raise ConfigError(
                f"model {model}: set input_msat_per_mtok and output_msat_per_mtok, or "
                "input_usd_per_mtok and output_usd_per_mtok"
            )
        return found

    def cost(self, model: str) -> Sum | None:
        """What it costs us, if that is told. Raises ConfigError."""
        return self._sum("cost_", model)

    def _sum(self, prefix: str, model: str) -> Sum | None:
        msat, usd = self._given(prefix, "msat"), self._given(prefix, "usd")
        if not msat and not usd:
            return None
        unit: Literal["msat", "usd"] = "usd" if usd else "msat"
        given = usd or msat
        if (msat and usd) or not {"input", "output"} <= given.keys():
            raise ConfigError(
                f"model {model}: set {prefix}input and {prefix}output, both in msat or both in usd"
            )
        return Sum(unit, **given)

    def _given(self, prefix: str, unit: str) -> dict[str, Decimal]:
        """By the name of the part."""
        names = {
            **{part: f"{prefix}{part}_{unit}_per_mtok" for part in ("input", "output")},
            **{part: f"{prefix}{part}_{unit}_per_mtok" for part in ("cached", "reasoning")},
            "request": f"{prefix}request_{unit}",
        }
        values = {part: getattr(self, name, None) for part, name in names.items()}
        return {part: Decimal(value) for part, value in values.items() if value is not None}


class PricingTable(_Table):
    """[pricing]: whether and how prices move by themselves. Without it they are the file's, and
    above cost."""

    policy: Literal["fixed", "learned"] = "fixed"
    code: str = Field(default="", pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$")
    command: list[str] = Field(default=[], max_length=64)
    lowest: float = Field(default=0.0, ge=0, le=1_000)
    highest: float = Field(default=10.0, gt=0, le=1_000_000)
    every_s: float = Field(default=15.0, ge=0.05, le=60)
    rivals_s: float = Field(default=120.0, ge=0.05, le=3_600)
    changes_per_hour: int = Field(default=6, ge=1, le=6)
    ticks: bool = True
    record: bool = False

    def pricing(self) -> Pricing:
        """As the provider knows it. Raises ConfigError."""
        if (self.policy == "learned") + bool(self.code) + bool(self.command) > 1:
            raise ConfigError('pricing: set one of policy = "learned", code and command')
        if self.highest < self.lowest:
            raise ConfigError("pricing: highest is below lowest")
        if not math.isfinite(self.lowest + self.highest):
            raise ConfigError("pricing: bounds are numbers")
        return Pricing(
            learned=self.policy == "learned",
            code=self.code,
            command=tuple(self.command),
            bounds=Bounds(self.lowest, self.highest),
            every_s=self.every_s,
            rivals_s=self.rivals_s,
            changes_per_hour=self.changes_per_hour,
            ticks=self.ticks,
        )
