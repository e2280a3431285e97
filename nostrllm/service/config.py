"""A provider's TOML file: read as a whole, every mistake named with its place."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nostrllm.adapters.keys_sdk import parse_pubkey
from nostrllm.core.money import RATED, UNIT_MSAT
from nostrllm.core.plan import FULL, Plan
from nostrllm.errors import ConfigError, RemoteError
from nostrllm.provider.shop import Accept, Exposure, RatePolicy, Shop
from nostrllm.service.backend_tables import BackendTable, LlamaBackend
from nostrllm.service.model_tables import ModelTable
from nostrllm.service.pricing_tables import PricingTable
from nostrllm.service.rate_tables import MintTable, RatesTable
from nostrllm.wire.announcement import PAYS_MAX, Terms
from nostrllm.wire.message import MintUrl, RelayUrl
from nostrllm.wire.places import relay_url
from nostrllm.wire.token import normal_url

#: An announcement names no more.
MINTS_MAX = 32


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderTable(_Table):
    """[provider]: who sells, where, and how much at once."""

    name: str = Field(min_length=1, max_length=64)
    about: str = Field(default="", max_length=1_000)
    d: str = Field(default="nostrllm", pattern=r"^[a-zA-Z0-9._-]{1,64}$")
    state: Path
    key_file: Path | None = None
    relays: list[RelayUrl] = Field(min_length=1, max_length=32)
    mints: list[MintUrl] = Field(default=[], max_length=32)
    nip04: bool = False
    heartbeat_s: int = Field(default=600, ge=60, le=3_600)
    queue_max: int = Field(default=32, ge=0, le=10_000)
    orders_per_author_max: int = Field(default=16, ge=1, le=10_000)
    payment_sat_max: int = Field(default=100_000, ge=1, le=100_000_000)
    balance_sat_max: int = Field(default=1_000_000, ge=1, le=100_000_000)
    restored_sat_max: int = Field(default=10_000, ge=0, le=100_000_000)
    letters_per_minute_max: int = Field(default=60, ge=1, le=100_000)
    strangers_per_minute_max: int = Field(default=600, ge=1, le=1_000_000)
    drain_s: float = Field(default=60.0, ge=0, le=3_600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class LockedTable(_Table):
    """[locked]: how much tokens may be worth that are locked to us and not swapped yet."""

    total_sat_max: int = Field(default=100_000, ge=0, le=100_000_000)
    mint_sat_max: int = Field(default=50_000, ge=0, le=100_000_000)
    client_sat_max: int = Field(default=10_000, ge=0, le=100_000_000)
    strangers_sat_max: int = Field(default=10_000, ge=0, le=100_000_000)
    swap_first_sat: int = Field(default=5_000, ge=0, le=100_000_000)

    def exposure(self) -> Exposure:
        """As the provider knows it."""
        return Exposure(
            total_msat=self.total_sat_max * 1_000,
            mint_msat=self.mint_sat_max * 1_000,
            client_msat=self.client_sat_max * 1_000,
            strangers_msat=self.strangers_sat_max * 1_000,
            swap_first_msat=self.swap_first_sat * 1_000,
        )


class TermsTable(_Table):
    """[terms]: what is promised about prompts."""

    retention_s: int = Field(default=0, ge=0)
    training: bool = False
    upstream: str = Field(default="self", max_length=64)
    moderation: bool = False


class SweepTable(_Table):
    """[sweep]: earnings that the running daemon turns into token files by itself.

    At least `threshold_sat` at a mint are taken, and `keep_sat` more left there, every `every_s`.
    """

    threshold_sat: int = Field(ge=1, le=1 << 40)
    keep_sat: int = Field(default=0, ge=0, le=1 << 40)
    every_s: int = Field(default=3_600, ge=10, le=31 * 86_400)


class PlanTable(_Table):
    """[[plan]]: what can be had for a period, paid from a balance; one benefit each."""

    id: str = Field(pattern=r"^[a-z0-9._-]{1,64}$")
    price_msat: int = Field(ge=1, le=10**15)
    period_s: int = Field(ge=60, le=10 * 366 * 86_400)
    quota_msat: int | None = Field(default=None, ge=1, le=10**15)
    percent: int | None = Field(default=None, ge=0, le=99)
    priority: int | None = Field(default=None, ge=1, le=1_000)

    def plan(self) -> Plan:
        """As the provider knows it. Raises ConfigError."""
        given = [one for one in (self.quota_msat, self.percent, self.priority) if one is not None]
        if len(given) != 1:
            raise ConfigError(f"plan {self.id}: set one of quota_msat, percent and priority")
        return Plan(
            self.id,
            self.price_msat,
            self.period_s,
            quota_msat=self.quota_msat or 0,
            percent=FULL if self.percent is None else self.percent,
            priority=self.priority or 0,
        )


class BlockTable(_Table):
    """[block]: whom not to serve."""

    keys: list[str] = Field(default=[], max_length=10_000)

    def pubkeys(self) -> frozenset[str]:
        """The keys in hex. Raises ConfigError."""
        return frozenset(map(parse_pubkey, self.keys))


class ProviderConfig(_Table):
    """The whole file."""

    provider: ProviderTable
    backend: list[BackendTable] = Field(min_length=1, max_length=64)
    terms: TermsTable = TermsTable()
    block: BlockTable = BlockTable()
    plan: list[PlanTable] = Field(default=[], max_length=64)
    mint: list[MintTable] = Field(default=[], max_length=32)
    rates: RatesTable | None = None
    pricing: PricingTable = PricingTable()
    locked: LockedTable = LockedTable()
    sweep: SweepTable | None = None
    model: list[ModelTable] = Field(min_length=1, max_length=10_000)

    def _plans(self) -> tuple[Plan, ...]:
        plans = tuple(table.plan() for table in self.plan)
        if len({plan.id for plan in plans}) != len(plans):
            raise ConfigError("plan: two plans have the same id")
        return plans

    @property
    def backends(self) -> dict[str, BackendTable]:
        """By name, which is the kind where none is given. Raises ConfigError."""
        named = {table.name or table.kind: table for table in self.backend}
        if len(named) != len(self.backend):
            raise ConfigError("backend: two have the same name")
        return named

    def _accepts(self) -> tuple[tuple[str, ...], tuple[Accept, ...]]:
        """The mints, and which of their coins are taken. Raises ConfigError, RemoteError."""
        plain = [normal_url(url) for url in self.provider.mints]
        own = {normal_url(table.url): table for table in self.mint}
        mints = (*dict.fromkeys(plain), *own)
        if len(own) != len(self.mint) or set(plain) & own.keys():
            raise ConfigError("mint: a mint is named twice")
        if not 1 <= len(mints) <= MINTS_MAX:
            raise ConfigError(f"provider: name 1 to {MINTS_MAX} mints")
        if not own:
            return mints, ()
        taken = [Accept(mint, unit) for mint in dict.fromkeys(plain) for unit in UNIT_MSAT]
        for mint, table in own.items():
            taken += [Accept(mint, unit, table.percent) for unit in dict.fromkeys(table.units)]
        if len(taken) > PAYS_MAX:
            raise ConfigError(f"mint: at most {PAYS_MAX} mints and units together")
        if any(one.unit in RATED for one in taken) and self.rates is None:
            raise ConfigError("mint: to take usd, say in [rates] what a bitcoin costs")
        return mints, tuple(taken)

    def shop(self, version: str) -> Shop:
        """The operator's decisions, as the provider takes them. Raises ConfigError."""
        table = self.provider
        backends = self.backends
        ids = [name for model in self.model for name in (model.id, *model.aliases)]
        if len(set(ids)) != len(ids):
            raise ConfigError("model: two models have the same id or alias")
        try:
            mints, accepts = self._accepts()
            relays = tuple(dict.fromkeys(relay_url(url) for url in table.relays))
        except RemoteError as error:
            raise ConfigError(f"provider: {error.message}") from None
        models = tuple(model.model(backends) for model in self.model)
        if any(model.is_pegged for model in models) and self.rates is None:
            raise ConfigError("model: for prices in usd, say in [rates] what a bitcoin costs")
        return Shop(
            name=table.name,
            about=table.about,
            d=table.d,
            version=version,
            relays=relays,
            mints=mints,
            models=models,
            nip04=table.nip04,
            heartbeat_s=table.heartbeat_s,
            backends={name: each.slots for name, each in backends.items()},
            watch_s={name: each.watched_every_s for name, each in backends.items()},
            prefixes={name: each.prefix for name, each in backends.items()},
            adaptive=frozenset(name for name, each in backends.items() if each.adaptive),
            queue_max=table.queue_max,
            orders_per_author_max=table.orders_per_author_max,
            payment_msat_max=table.payment_sat_max * 1_000,
            balance_msat_max=table.balance_sat_max * 1_000,
            restored_msat_max=table.restored_sat_max * 1_000,
            letters_per_minute_max=table.letters_per_minute_max,
            strangers_per_minute_max=table.strangers_per_minute_max,
            drain_s=table.drain_s,
            blocked=self.block.pubkeys(),
            plans=self._plans(),
            accepts=accepts,
            rates=RatePolicy() if self.rates is None else self.rates.checked().policy(),
            pricing=self.pricing.pricing(),
            exposure=self.locked.exposure(),
            terms=Terms(**self.terms.model_dump()),
        )


def read_provider_config(path: Path) -> ProviderConfig:
    """The file, validated. Raises ConfigError naming every wrong line.

    Under systemd, STATE_DIRECTORY takes the place of a `state` of "auto"; relative paths count from
    the file's own folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        config = ProviderConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(_mistakes(path, text, error)) from None
    return _placed(config, path.parent)


def _mistakes(path: Path, text: str, error: ValidationError) -> str:
    lines = []
    for mistake in error.errors(include_url=False, include_input=False, include_context=False)[:20]:
        where = ".".join(str(step) for step in mistake["loc"])
        line = _line_of(text, mistake["loc"])
        place = f"{path}:{line}" if line else str(path)
        lines.append(f"{place}: {where}: {mistake['msg']}")
    return "\n".join(lines)


def _line_of(text: str, loc: tuple[Any, ...]) -> int | None:
    """The line that sets what `loc` names, else the one where its table begins, if there is one."""
    table, key = str(loc[0]), str(loc[-1])
    wanted = loc[1] if len(loc) > 1 and isinstance(loc[1], int) else 0
    head, position, inside = None, 0, False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            named = bare.partition("]")[0].strip("[ ") == table
            inside = named and position == wanted
            position += named
            head = number if inside else head
        elif inside and bare.partition("=")[0].strip() == key:
            return number
    return head


def _placed(config: ProviderConfig, base: Path) -> ProviderConfig:
    state = config.provider.state
    if str(state) == "auto":
        state = Path(os.environ.get("STATE_DIRECTORY", "state").split(":")[0])
    provider = config.provider.model_copy(
        update={
            "state": base / state,
            "key_file": _at(base, config.provider.key_file),
        }
    )
    backends = [_backend_at(base, table) for table in config.backend]
    rates = config.rates
    if rates is not None:
        rates = rates.model_copy(update={"file": _at(base, rates.file)})
    return config.model_copy(update={"provider": provider, "backend": backends, "rates": rates})


def _backend_at(base: Path, table: BackendTable) -> BackendTable:
    if isinstance(table, LlamaBackend):
        return table.model_copy(update={"gguf": base / table.gguf})
    return table.model_copy(update={"key_file": _at(base, table.key_file)})


def _at(base: Path, path: Path | None) -> Path | None:
    return None if path is None else base / path
