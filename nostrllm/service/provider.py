"""The provider as a process: adapters joined to the role, readiness told, signals obeyed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import nprofile, to_npub
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core.exchange import positions
from nostrllm.errors import ConfigError, NostrllmError
from nostrllm.provider.daemon import Daemon
from nostrllm.provider.shop import STORE_PARTS, Shop, World
from nostrllm.purse import Purse
from nostrllm.service.backends import check_backends, opened_engines
from nostrllm.service.blocks import read_blocks
from nostrllm.service.config import ProviderConfig
from nostrllm.service.notify import Notifier
from nostrllm.service.rates import check_rates, check_units, rates_of
from nostrllm.service.recording import Recorder
from nostrllm.service.secrets import private_folder, read_key, seed_made_once
from nostrllm.service.sweep import sweep_for_ever

STATUS_EVERY_S = 5.0
BLOCKS_EVERY_S = 2.0
STOP_MARGIN_S = 30.0
CONNECT_S = 10.0

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def opened(config: ProviderConfig, shop: Shop) -> AsyncIterator[tuple[World, bytes]]:
    """The world of a provider and his seed, as long as the block lasts."""
    state = private_folder(config.provider.state)
    clock = SystemClock()
    keyring = LocalKeyring(clock)
    identity = keyring.signer(read_key(config.provider.key_file))
    seed = seed_made_once(state / "seed")
    async with (
        SqliteStore.open(state / "provider.db", STORE_PARTS) as store,
        CashuMints() as mints,
        WebsocketRelays(shop.relays, keyring, clock) as relays,
        opened_engines(config.backends, state) as engines,
    ):
        purse = Purse(store, mints, clock, seed)
        rates = rates_of(config.rates, clock)
        world = World(relays, keyring, identity, store, purse, mints, engines, clock, rates)
        yield world, seed


async def run_provider(config: ProviderConfig) -> None:
    """Sell until SIGTERM or SIGINT, then drain and return. Raises ConfigError, WorldError."""
    shop = config.shop(version("nostrllm"))
    notifier = Notifier()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with opened(config, shop) as (world, seed):
        me = world.identity.pubkey
        daemon = Daemon(world, shop, seed=seed, nprofile=nprofile(me, shop.relays))
        daemon.conduct.block(read_blocks(config.provider.state))
        if config.pricing.record:
            daemon.pricer.on_state = Recorder(config.provider.state / "pricing.jsonl").write
        report = _Report(config.provider.state, daemon, world, shop)

        async def ready() -> None:
            # All that is loaded now stays: to look through it for garbage would halt every stream
            # for some 50 ms, again and again.
            gc.collect()
            gc.freeze()
            await report.write(ready=True)
            notifier.ready(await report.line())
            log.info("ready", models=len(shop.models), relays=len(shop.relays))

        async with asyncio.TaskGroup() as group:
            beat = group.create_task(_beat(notifier, report))
            heed = group.create_task(_heed_blocks(config.provider.state, daemon))
            farewell = group.create_task(_farewell(notifier, stop, shop.drain_s))
            sweeping = group.create_task(_sweep(config, world))
            try:
                await daemon.run(stop, ready)
            finally:
                for task in (farewell, beat, heed, sweeping):
                    task.cancel()
        await report.write(ready=False)
        log.info("stopped")


async def _sweep(config: ProviderConfig, world: World) -> None:
    """Take earnings out as the file says, if it does."""
    if config.sweep is not None:
        state = config.provider.state
        await sweep_for_ever(world.store, world.purse, state, config.sweep, world.now_s)


async def _farewell(notifier: Notifier, stop: asyncio.Event, drain_s: float) -> None:
    """Tell systemd that we stop, and how long the running answers may take."""
    await stop.wait()
    notifier.stopping("draining")
    notifier.extend_timeout(drain_s + STOP_MARGIN_S)


async def _beat(notifier: Notifier, report: _Report) -> None:
    """Status and watchdog: systemd restarts a daemon whose loop or store no longer turns."""
    interval = notifier.watchdog_interval_s()
    while True:
        await asyncio.sleep(min(STATUS_EVERY_S, interval or STATUS_EVERY_S))
        await report.write(ready=True)
        notifier.status(await report.line())
        notifier.watchdog()


async def _heed_blocks(state: Path, daemon: Daemon) -> None:
    """Take the operator's block list up as it changes; one that cannot be read stays as it was."""
    while True:
        await asyncio.sleep(BLOCKS_EVERY_S)
        try:
            daemon.conduct.block(read_blocks(state))
        except ConfigError as error:
            log.warning("blocks_not_read", reason=error.message)


class _Report:
    """What `nostrllm provider status` and systemd read."""

    def __init__(self, state: Path, daemon: Daemon, world: World, shop: Shop) -> None:
        self._path = state / "status.json"
        self._daemon = daemon
        self._world = world
        self._shop = shop

    async def line(self) -> str:
        """One line for systemd."""
        status = await self._daemon.status()
        return (
            f"selling {len(self._shop.models)} models on {status.relays_up} of {status.relays} "
            f"relays, {status.orders_open} orders open"
        )

    async def write(self, *, ready: bool) -> None:
        """Write status.json in one piece."""
        status = await self._daemon.status()
        counts = await self._world.store.read("order_counts")
        content: dict[str, Any] = {
            "pid": os.getpid(),
            "ready": ready,
            "at": self._world.now_s(),
            "name": self._shop.name,
            "pubkey": self._world.identity.pubkey,
            "npub": to_npub(self._world.identity.pubkey),
            "models": [model.offer.id for model in self._shop.models],
            "mints": list(self._shop.mints),
            "relays": [
                {"url": relay.url, "connected": relay.connected, "error": relay.error}
                for relay in self._world.relays.status()
                if relay.url in self._shop.relays
            ],
            "accepting": status.accepting and ready,
            "orders_open": status.orders_open,
            "outbox_waiting": status.outbox_waiting,
            "mints_waited_for": status.waiting,
            "dropped": status.dropped,
            "backends": [asdict(backend) for backend in status.backends],
            "orders": {row["state"]: row["n"] for row in counts},
            "earned_msat": sum(int(row["cost_msat"]) for row in counts),
            "exchange": await self._exchange(),
            "pricing": self._daemon.pricer.explain(),
        }
        try:
            _replace(self._path, json.dumps(content, indent=1))
        except OSError as error:
            log.warning("status_not_written", reason=error.strerror)

    async def _exchange(self) -> dict[str, dict[str, int | None]]:
        """Of each unit with a rate: what is held, for how much, and what a coin counts now."""
        units = self._shop.rated
        if not units:
            return {}
        books = {
            str(row["account"]): int(row["msat"])
            for row in await self._world.store.read("exchange_balances")
        }
        counted = self._daemon.announcer.rates.counted()
        return {
            unit: {
                "bought": position.bought if position else 0,
                "cost_msat": position.cost_msat if position else 0,
                "rate_msat": rate.msat if rate else None,
                "rate_at": rate.at if rate else None,
            }
            for unit in units
            for position, rate in [(positions(books).get(unit), counted[unit])]
        }


def _replace(path: Path, text: str) -> None:
    """Put a file in the place of another, whole, readable by nobody else."""
    part = path.with_suffix(".part")
    with open(part, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    part.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def check_provider(config: ProviderConfig) -> list[tuple[str, str | None]]:
    """Every outside part tried once: (what, None if well, else what is wrong)."""
    shop = config.shop(version("nostrllm"))
    clock = SystemClock()
    keyring = LocalKeyring(clock)
    found: list[tuple[str, str | None]] = []
    key = keyring.signer(read_key(config.provider.key_file))
    found.append((f"key {to_npub(key.pubkey)}", None))
    async with CashuMints() as mints:
        found += [
            (f"mint {url}", await _trouble(mints.at(url).keysets(refresh=True)))
            for url in shop.mints
        ]
        if shop.accepts:
            found += [await check_units(mints.at(url), url, shop) for url in shop.mints]
    found += await check_rates(config.rates, shop, clock)
    found += await check_backends(config.backends, shop.models, config.provider.state)
    async with WebsocketRelays(shop.relays, keyring, clock) as relays:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                while not all(status.connected for status in relays.status()):
                    await clock.sleep(0.1)
        for status in relays.status():
            well = None if status.connected else status.error or "no connection"
            found.append((f"relay {status.url}", well))
    return found


async def _trouble(call: Awaitable[object]) -> str | None:
    try:
        await call
    except NostrllmError as error:
        return f"{error.code}: {error.message}"
    return None
