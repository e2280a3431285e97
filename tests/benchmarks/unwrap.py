"""How many gift wraps one core opens a second.

`python -m tests.benchmarks.unwrap`: our signer, with the author met before and with a new one, and
nostr-sdk's UnwrappedGift, beside what every unwrap needs: one ECDH and one signature verified.
nostr-sdk verifies the outer signature too, which our relay adapter has done before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Callable, Sequence

import nostr_sdk

from nostrllm.adapters.signer_local import LocalSigner
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event, rumor
from tests.benchmarks import floors
from tests.benchmarks.figures import RUNS, Figure, cpu_each_us, load, show
from tests.roles.market import CLOCK, KEYRING

SIZES = (1_000, 32_000)


async def wraps(signer: LocalSigner, count: int, size_bytes: int, authors: int) -> list[Event]:
    """Wraps to the signer, each of so many bytes of text, by so many authors in turn."""
    people = [KEYRING.signer() for _ in range(authors)]
    found = []
    for number in range(count):
        author = people[number % authors]
        text = secrets.token_hex(size_bytes // 2)
        letter = rumor(Draft(kinds.DM, text, int(CLOCK.now())), author.pubkey)
        found.append(await author.wrap(letter, signer.pubkey))
    return found


async def ours(secret: bytes, events: Sequence[Event]) -> float:
    """Unwraps a second of processor time, by a signer that has met nobody."""
    signer = LocalSigner(secret, CLOCK)
    began = time.process_time()
    for event in events:
        await signer.unwrap(event)
    return len(events) / (time.process_time() - began)


def theirs(secret: bytes, events: Sequence[Event]) -> float:
    """The same with nostr-sdk, from the event's JSON, as it would come off its wire."""
    keys = nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(secret))
    parsed = [nostr_sdk.Event.from_json(json.dumps(event.as_dict())) for event in events]
    began = time.process_time()
    for event in parsed:
        nostr_sdk.UnwrappedGift.from_gift_wrap(keys, event)
    return len(events) / (time.process_time() - began)


def floor(count: int) -> float:
    """A second of processor time over one bare ECDH and one bare verification."""
    works: tuple[Callable[[], object], ...] = (floors.ecdh, floors.verify)
    return 1e6 / sum(cpu_each_us(work, count) for work in works)


async def figures(count: int, runs: int) -> list[Figure]:
    """All sizes and ways, in turns."""
    secret = secrets.token_bytes(32)
    me = LocalSigner(secret, CLOCK)
    found = []
    for size in SIZES:
        known = await wraps(me, count, size, 1)
        new = await wraps(me, count, size, count)
        bare: list[float] = []
        ways: tuple[list[float], ...] = ([], [], [])
        for _ in range(runs):
            bare.append(floor(count))
            ways[0].append(await ours(secret, known))
            ways[1].append(await ours(secret, new))
            ways[2].append(theirs(secret, known))
        names = ("author met before", "author new", "nostr-sdk")
        found += [
            Figure(f"{size // 1_000} kB, {name}", "/s", way, "ECDH + verify", bare, rate=True)
            for name, way in zip(names, ways, strict=True)
        ]
    return found


def run(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.unwrap", description=__doc__)
    parser.add_argument("--wraps", type=int, default=100, help="of each kind in a run")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args(argv)
    before = load()
    measured = asyncio.run(figures(given.wraps, given.runs))
    show(f"unwraps, {given.wraps} × {given.runs} runs, process CPU", measured, before)


if __name__ == "__main__":
    run()
