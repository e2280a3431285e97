"""One run: a provider who crashes, people who buy, faults for a while, then peace and checks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

import structlog

from nostrllm.errors import StoreError
from nostrllm.ports import Engine, Mints, Store, Write
from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.provider.daemon import Daemon
from nostrllm.provider.shop import Model, Shop, World
from nostrllm.purse import Purse
from nostrllm.wire.announcement import ModelOffer, Price
from tests.sim.check import Books, violations
from tests.sim.clients import Habits, Person, Program
from tests.sim.engine import SimEngine
from tests.sim.group import TOY, drawn
from tests.sim.keys import SimKeyring
from tests.sim.life import Life
from tests.sim.lockers import Locker
from tests.sim.loop import START_S, SimClock, SimLoop
from tests.sim.mint import URL, SimMint
from tests.sim.mintline import MintLine, MintLines
from tests.sim.network import CATCH_UP_S, RELAYS, Network, SimRelays
from tests.sim.payers import Payer
from tests.sim.store import Disk, SimStore, StoppedStore
from tests.sim.weather import Weather

SOLVENT: Final = "everybody can be paid"
QUIET_S_MAX: Final = 3_600.0

CHANCES: Final = {
    "loss": 0.3,
    "replay": 0.5,
    "replay_stored": 0.2,
    "delay": 0.1,
    "mint_cut": 0.15,
    "mint_stall": 0.04,
    "mint_500_after": 0.1,
    "mint_garbage": 0.08,
    "slow_mint": 0.15,
    "engine_slow": 0.15,
    "engine_hangs": 0.05,
    "engine_fails": 0.1,
    "engine_empty": 0.05,
    "engine_dies": 0.03,
    "engine_uncounted": 0.2,
    "engine_verbose": 0.2,
    "engine_long": 0.05,
}

#: The effect around which a process ends, and how many of its boundaries it may live through.
CRASHES: Final = (
    *(("", 60), ("", 200), ("", 500)),
    *(("mint", 8), ("mint", 40), ("publish", 60), ("engine", 8), ("cast", 20)),
)

SHOP: Final = Shop(
    name="Stall",
    relays=RELAYS,
    mints=(URL,),
    models=(
        Model(
            ModelOffer(
                id="m",
                context=2_048,
                max_tokens=64,
                parameters=["max_tokens"],
                price=Price(input=20_000_000, output=60_000_000, request=1_000),
            ),
            "m",
        ),
    ),
    backends={"": 2},
    queue_max=16,
    letters_per_minute_max=100_000,
    drain_s=10.0,
)


@dataclass(frozen=True)
class Scale:
    """How much happens in a run: so many clients at most, their wishes, and the time between."""

    programs: int
    persons: int
    wishes: int
    apart_s: float
    storm_s: tuple[float, float]


#: Much of what goes wrong does so among few; some of it only in a crowd.
SMALL: Final = Scale(2, 1, 3, 12.0, (40.0, 120.0))
LARGE: Final = Scale(3, 2, 5, 40.0, (150.0, 400.0))
LARGE_EVERY: Final = 8


@dataclass(frozen=True)
class Parts:
    """What the provider is made of; a mutant has another one somewhere."""

    daemon: type[Daemon] = Daemon
    purse: type[Purse] = Purse
    sql: Mapping[str, str] = field(default_factory=dict)
    late_units: int = 0
    store: Callable[[Store], Store] = lambda store: store
    mints: Callable[[Mints], Mints] = lambda mints: mints
    engine: Callable[[Engine], Engine] = lambda engine: engine
    patch: tuple[object, str, object] | None = None


@dataclass(frozen=True)
class Report:
    """How a run ended. `digest` names its history."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    boundaries: int
    lives: int
    states: Mapping[str, int]
    crashes: Mapping[str, int]
    faults: Mapping[str, int]
    virtual_s: float


def simulate(seed: int, parts: Parts | None = None) -> Report:
    """Run one seed."""
    before = random.getstate()
    random.seed(seed)  # jitter of the purse's pauses
    try:
        told = structlog.processors.format_exc_info
        patch = (parts or Parts()).patch
        with (
            drawn(TOY),
            _secrets(random.Random(f"{seed}:secrets")),
            mock.patch.object(*patch) if patch else contextlib.nullcontext(),
            structlog.testing.capture_logs([told]) as logs,
            _loop(seed) as runner,
        ):
            return runner.run(_Run(seed, parts or Parts(), logs).run())
    finally:
        random.setstate(before)


@contextlib.contextmanager
def _secrets(rng: random.Random) -> Iterator[None]:
    """Names, nonces and what signatures are salted with follow from the seed, too."""
    with (
        mock.patch.object(secrets, "token_bytes", rng.randbytes),
        mock.patch.object(secrets, "token_hex", lambda size: rng.randbytes(size).hex()),
        mock.patch.object(secrets, "randbelow", rng.randrange),
    ):
        yield


@contextlib.contextmanager
def _loop(seed: int) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=lambda: SimLoop(f"{seed}:loop")) as runner:
        yield runner


class _Run:
    def __init__(self, seed: int, parts: Parts, logs: list[Any]) -> None:
        self._seed = seed
        self._scale = SMALL if seed % LARGE_EVERY else LARGE
        self._parts = parts
        self._logs = logs
        self._rng = self._stream("plan")
        severity = self._rng.choice((0.0, 0.4, 1.0, 1.0))
        chances = {name: chance * severity for name, chance in CHANCES.items()}
        chances["store_fails"] = self._rng.choice((0.0, 0.0, 0.02))
        self._weather = Weather(self._stream("weather"), chances)
        self._clock = SimClock()
        self._mint = SimMint(self._rng.choice((0, 100, 100, 1_000)), TOY, self._clock.now)
        self._network = Network(self._weather, self._stream("network"))
        self._disk = Disk(parts.sql, parts.late_units)
        self._lockers = self._stream("lockers").choice((0, 0, 0, 0, 1, 2))
        if self._lockers and self._stream("tried").random() < 0.8:  # else it is tried, from income
            tried = {"name": f"keeps-locks:{URL}", "value": str(int(START_S))}
            self._disk.unit((Write("meta_set", tried),))
        self._keyring = SimKeyring(self._clock, self._stream("keys"))
        self._identity = self._keyring.signer()
        self._wallet_seed = self._rng.randbytes(64)
        self._runs: Counter[str] = Counter()
        self._lives: list[Life] = []
        self._stop = asyncio.Event()
        self._daemon: Daemon | None = None
        self._unproven: list[str] = []
        self._is_healed = False
        self._is_ending = False

    def _stream(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}:{name}")

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        clients = self._clients()
        async with asyncio.TaskGroup() as group:
            provider = group.create_task(self._provide())
            listening = [group.create_task(client.listen()) for client in clients]
            acting = [group.create_task(c.act(self._identity.pubkey)) for c in clients]
            await self._storm()
            waits = await self._until_quiet(acting)
            self._mint.let_locks_pass()
            for client in clients:
                client.melt_what_is_left()
            assert self._daemon is not None
            await self._daemon.recovery.book_spent_change()
            self._is_ending = True
            self._stop.set()
            for task in acting + listening:
                task.cancel()
            await provider
        books = Books(self._disk, self._mint, clients, self._runs, self._logs)
        await self._audit("at the end")
        found = [*waits, *violations(books), *self._unproven]
        report = self._report(found, loop.time() - begun)
        self._disk.close()
        return report

    def _clients(self) -> list[Program | Person | Payer]:
        rng = self._rng
        scale = self._scale
        programs = [f"p{n}" for n in range(rng.randint(1, scale.programs))]
        persons = [f"h{n}" for n in range(rng.randint(0, scale.persons))]
        payers = [f"w{n}" for n in range(self._stream("payers").randint(0, 1))]
        lockers = [f"l{n}" for n in range(self._lockers)]
        habits = Habits(scale.wishes, scale.apart_s)
        common = (habits, self._mint, self._network, self._keyring)
        return [
            *(Program(name, *common, self._stream(name)) for name in programs),
            *(Person(name, *common, self._stream(name)) for name in persons),
            *(Locker(name, *common, self._stream(name)) for name in lockers),
            *(Payer(name, *common, self._stream(name)) for name in payers),
        ]

    # the provider

    async def _provide(self) -> None:
        crashes = self._rng.choice((0, 1, 2, 3, 5))
        while not self._is_ending:
            crash_at, effect = None, ""
            if len(self._lives) < crashes and not self._is_healed:
                effect, most = self._rng.choice(CRASHES)
                crash_at = self._rng.randrange(1, most)
            life = Life(crash_at, self._stream(f"life {len(self._lives)}"), effect)
            self._lives.append(life)
            await self._live(life)
            if life.over.is_set():
                await asyncio.sleep(self._rng.uniform(0, 40))

    async def _live(self, life: Life) -> None:
        self._stop = asyncio.Event()
        over = asyncio.ensure_future(life.over.wait())
        running = asyncio.ensure_future(self._process(life))
        life.tasks.append(running)
        await asyncio.wait((over, running), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if life.over.is_set():
            await self._crash(life)
        elif (error := running.exception()) is not None:
            life.over.set()
            await self._crash(life)
            if not _is_store_error(error):
                raise error
        else:
            life.dead = True

    async def _crash(self, life: Life) -> None:
        await life.bury()
        self._disk.crash()
        await self._audit(f"after life {len(self._lives)}")

    async def _audit(self, when: str) -> None:
        """The provider's own proof of his books, which must hold whenever he does not run."""
        borne = self._disk.table("SELECT set_id FROM posting WHERE account = 'fees' AND msat > 0")
        for check in audit(await read_books(StoppedStore(self._disk))):
            if borne and check.name == SOLVENT:
                continue  # refunds whose swap cost more than was kept back for it
            self._unproven += [f"audit {when}: {check.name}: {fault}" for fault in check.faults]

    async def _process(self, life: Life) -> None:
        life.begin()
        parts = self._parts
        store = parts.store(SimStore(self._disk, life, self._weather))
        mints = parts.mints(MintLines(MintLine(self._mint, life, self._weather)))
        engine = SimEngine(life, self._weather, life.rng, self._runs)
        world = World(
            relays=SimRelays(self._network, "provider", life),
            keyring=self._keyring,
            identity=self._identity,
            store=store,
            purse=parts.purse(store, mints, self._clock, self._wallet_seed),
            mints=mints,
            engines={"": parts.engine(engine)},
            clock=self._clock,
        )
        self._daemon = parts.daemon(world, SHOP, seed=self._wallet_seed, nprofile="nprofile1x")

        async def ready() -> None:
            life.ready = True

        await self._daemon.run(self._stop, ready)

    # time

    async def _storm(self) -> None:
        """Faults that last a while, and a clean restart now and then, until all is healed."""
        rng = self._rng
        until = asyncio.get_running_loop().time() + rng.uniform(*self._scale.storm_s)
        lines = [f"provider>{url}" for url in RELAYS]
        while (now := asyncio.get_running_loop().time()) < until:
            await asyncio.sleep(min(until - now, rng.uniform(5, 60)))
            match rng.randrange(8):
                case 0:
                    self._weather.take_down(URL, rng.uniform(5, 180))
                case 1:
                    self._weather.take_down(rng.choice(RELAYS), rng.uniform(1, 60))
                case 2:
                    for line in lines:
                        self._weather.take_down(line, rng.uniform(1, 60))
                case 3:
                    self._weather.happened["clean_restart"] += 1
                    self._stop.set()
                case 4:
                    self._weather.happened["keyset_rotated"] += 1
                    self._mint.rotate()
        self._is_healed = True
        self._weather.heal()
        for life in self._lives:
            life.crash_at = None
        if rng.random() < 0.5:
            self._stop.set()

    async def _until_quiet(self, acting: list[asyncio.Task[None]]) -> list[str]:
        until = asyncio.get_running_loop().time() + QUIET_S_MAX
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(10.0)
            is_up = self._lives[-1].ready and not self._lives[-1].dead and not self._stop.is_set()
            waits = self._disk_waits() or self._mint.pending
            if is_up and all(task.done() for task in acting) and not waits:
                await asyncio.sleep(CATCH_UP_S + 1.0)  # what a relay kept and did not pass on comes
                return []
        waiting = [f"{len([task for task in acting if not task.done()])} clients"]
        return [f"never quiet: {', '.join(self._disk_waits() + waiting)}"]

    def _disk_waits(self) -> list[str]:
        found = {
            "orders": "SELECT id FROM orders WHERE state NOT IN ('closed', 'refused')",
            "transfers": "SELECT id FROM transfer WHERE state = 'pending'",
            "payments": "SELECT id FROM payment WHERE state IN ('waiting', 'taken')",
            "letters": "SELECT id FROM outbox WHERE state = 'waiting'",
            "locks": "SELECT id FROM locked WHERE state IN ('due', 'settling') OR told = 0",
            "operations": "SELECT id FROM operation WHERE state = 'PREPARED'",
        }
        counts = {name: len(self._disk.table(sql)) for name, sql in found.items()}
        return [f"{count} {name}" for name, count in counts.items() if count]

    def _report(self, found: list[str], virtual_s: float) -> Report:
        columns = "id, state, net_msat, cost_msat, change_units, credit_msat, code, updated_at"
        orders = self._disk.table(f"SELECT {columns} FROM orders ORDER BY id")
        accounts = self._disk.table("SELECT * FROM account ORDER BY pubkey")
        states = self._disk.table("SELECT state FROM locked")
        locks = Counter(f"locked {row['state']}" for row in states)
        boundaries = [life.boundaries for life in self._lives]
        totals = [self._mint.issued, self._mint.melted, self._mint.fees]
        history = json.dumps([orders, accounts, boundaries, totals, virtual_s], default=str)
        return Report(
            seed=self._seed,
            violations=tuple(found),
            digest=hashlib.sha256(history.encode()).hexdigest()[:16],
            boundaries=sum(boundaries),
            lives=len(self._lives),
            crashes=Counter(life.ended for life in self._lives if life.ended),
            faults=self._weather.happened,
            states=Counter(f"{row['state']} {row['code']}".strip() for row in orders) + locks,
            virtual_s=virtual_s,
        )


def _is_store_error(error: BaseException) -> bool:
    """Did the process end because the database did not commit?"""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_store_error(part) for part in error.exceptions)
    return isinstance(error, StoreError)
