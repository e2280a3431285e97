"""The rates that the file names: their source made, and tried once by `provider check`."""

from __future__ import annotations

from nostrllm.adapters.rates import FileRate, FixedRate, Source, WebRates
from nostrllm.errors import ConfigError, NostrllmError, WorldError
from nostrllm.ports import Clock, Mint, Rates
from nostrllm.provider.shop import Shop
from nostrllm.service.rate_tables import RatesTable


def rates_of(table: RatesTable | None, clock: Clock) -> Rates | None:
    """The source of rates that the file names. Raises ConfigError."""
    if table is None:
        return None
    table.checked()
    if table.file is not None:
        return FileRate(table.file)
    if table.usd_per_btc is None:
        sources = [Source(one.url, one.pointer) for one in table.source]
        return WebRates(sources, table.at_least, clock)
    try:
        return FixedRate(table.usd_per_btc, clock)
    except ValueError as error:
        raise ConfigError(f"rates: usd_per_btc: {error}") from None


async def check_units(mint: Mint, url: str, shop: Shop) -> tuple[str, str | None]:
    """Does the mint make the coins that are taken of it?"""
    units = [coin.unit for coin in shop.coins if coin.mint == url]
    what = f"coins of {url}: {', '.join(units)}"
    try:
        keysets = await mint.keysets()
    except NostrllmError as error:
        return what, f"{error.code}: {error.message}"
    made = {keyset.unit for keyset in keysets.values() if keyset.active}
    missing = [unit for unit in units if unit not in made]
    return what, f"the mint makes no {', '.join(missing)}" if missing else None


async def check_rates(
    table: RatesTable | None, shop: Shop, clock: Clock
) -> list[tuple[str, str | None]]:
    """Is each rate known, and young enough to take coins at it?"""
    rates, found = rates_of(table, clock), list[tuple[str, str | None]]()
    if rates is None:
        return found
    for unit in shop.looked_up:
        try:
            rate = await rates.latest(unit)
        except WorldError as error:
            found.append((f"rate of {unit}", error.message))
            continue
        now = int(clock.now())
        counted = shop.rates.guard.counted(rate, now)
        what = f"rate of {unit}: {rate.msat} msat, {now - rate.at} s old"
        if counted is None:
            found.append((what, "it is too old, so none is taken"))
        else:
            found.append((f"{what}, counted as {counted.msat}", None))
    return found
