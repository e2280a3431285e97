"""[[model]] and [[model.route]]: what is for sale, and the back-ends that can write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nostrllm.core.route import Route
from nostrllm.core.tariff import Sum
from nostrllm.errors import ConfigError
from nostrllm.provider.shop import Model
from nostrllm.service.backend_tables import BackendTable
from nostrllm.service.pricing_tables import PricesTable
from nostrllm.wire.announcement import ModelOffer, Price
from nostrllm.wire.message import MSAT_MAX

Id = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]{1,128}$")]
Upstream = Annotated[str, Field(min_length=1, max_length=256)]
Label = Annotated[str, Field(max_length=64)]
Weight = Annotated[int, Field(ge=0, le=1_000)]

#: Stands where a price in dollars is not known yet: it is listed nowhere, and nobody could pay it.
UNKNOWN = Price(input=MSAT_MAX, output=MSAT_MAX, request=MSAT_MAX)
FREE = Price(input=0, output=0)


class RouteTable(BaseModel):
    """[[model.route]]: another back-end for the model, what that calls it, and what it costs you in
    msat per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Label
    upstream: Upstream | None = None
    cost_input_msat_per_mtok: int = Field(default=0, ge=0)
    cost_output_msat_per_mtok: int = Field(default=0, ge=0)
    version: Label = ""
    weight: Weight = 1

    def way(self, model: ModelTable) -> Route:
        """As the provider knows it."""
        cost = Price(input=self.cost_input_msat_per_mtok, output=self.cost_output_msat_per_mtok)
        return Route(self.backend, self.upstream or model.upstream, cost, self.version, self.weight)


class ModelTable(PricesTable):
    """[[model]]: one model for sale; prices per million tokens, and per request.

    `backend` serves it; without it, those that list `upstream` among their models, or the only one.
    `route` has further ones.
    """

    id: Id
    upstream: Upstream
    backend: Label | None = None
    route: list[RouteTable] = Field(default=[], max_length=16)
    aliases: list[Id] = Field(default=[], max_length=16)
    licence: Label = ""
    quantisation: Label = ""
    name: str = Field(default="", max_length=128)
    tier: Literal["simple", "medium", "complex"] = "simple"
    context: int = Field(ge=16, le=1 << 30)
    max_tokens: int = Field(default=1_024, ge=1, le=1 << 30)
    version: Label = ""
    weight: Weight = 1
    parameters: list[str] | None = Field(default=None, max_length=64)
    tasks: list[Literal["chat", "completion", "embedding"]] = Field(default=["chat"], min_length=1)
    modalities: list[Literal["text", "image"]] = Field(default=["text"])

    def model(self, backends: Mapping[str, BackendTable]) -> Model:
        """As the provider knows it. Raises ConfigError."""
        routes = self._routes(backends)
        asked = self.asked(self.id)
        offer = ModelOffer(
            id=self.id,
            name=self.name,
            tier=self.tier,
            context=self.context,
            max_tokens=min(self.max_tokens, self.context),
            parameters=self._parameters(routes, backends),
            tasks=None if self.tasks == ["chat"] else list(self.tasks),
            modalities=list(self.modalities),
            price=asked.price(None) or UNKNOWN,
        )
        return Model(
            offer,
            routes[0].upstream,
            routes[0].backend,
            sum=asked,
            cost=self._dearest(),
            routes=routes,
            aliases=tuple(self.aliases),
            licence=self.licence,
            quantisation=self.quantisation,
        )

    def _parameters(
        self, routes: tuple[Route, ...], backends: Mapping[str, BackendTable]
    ) -> list[str]:
        """What may be set whichever route writes: an order may end on another than it began on."""
        if self.parameters is not None:
            return list(self.parameters)
        first, *others = (backends[route.backend].parameters for route in routes)
        return [name for name in first if all(name in other for other in others)]

    def _routes(self, backends: Mapping[str, BackendTable]) -> tuple[Route, ...]:
        cost = self.cost(self.id)
        known = None if cost is None else cost.price(None)
        own = [
            Route(name, self.upstream, known or FREE, self.version, self.weight)
            for name in self._backends(backends)
        ]
        more = [table.way(self) for table in self.route]
        for route in (*own, *more):
            if route.backend not in backends:
                raise ConfigError(f"model {self.id}: there is no backend {route.backend!r}")
            if unable := set(self.tasks) - set(backends[route.backend].tasks):
                raise ConfigError(f"model {self.id}: its backend does no {min(unable)}")
        routes = (*own, *more)
        if len({(route.backend, route.upstream) for route in routes}) != len(routes):
            raise ConfigError(f"model {self.id}: two routes are the same")
        return routes

    def _dearest(self) -> Sum | None:
        """What an answer costs at most, by whichever route: no price goes below that."""
        own = self.cost(self.id)
        if own is not None and own.unit != "msat":
            return own
        inputs = [Decimal(table.cost_input_msat_per_mtok) for table in self.route]
        outputs = [Decimal(table.cost_output_msat_per_mtok) for table in self.route]
        if not any(inputs + outputs):
            return own
        own = own or Sum("msat", Decimal(0), Decimal(0))
        return replace(own, input=max(own.input, *inputs), output=max(own.output, *outputs))

    def _backends(self, backends: Mapping[str, BackendTable]) -> list[str]:
        if self.backend is not None:
            return [self.backend]
        named = {table.backend for table in self.route}
        listing = [name for name, each in backends.items() if self.upstream in each.models]
        listing = [name for name in listing if name not in named]
        if listing or self.route:
            return listing
        if len(backends) != 1:
            raise ConfigError(f"model {self.id}: name its backend, there are {len(backends)}")
        return list(backends)
