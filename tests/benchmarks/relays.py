"""What it costs to take an event off a relay: parse, match, verify, queue, deliver.

`python -m tests.benchmarks.relays`: frames through the intake alone, the same frames again as a
second relay brings them, and stored events from a real relay over a WebSocket; beside what an event
cannot be believed without: its JSON read, its id hashed, its signature verified.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop
from coincurve import PublicKeyXOnly

from nostrllm.adapters.relay_intake import Inbox, Intake
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_wire import EventFrame, parse_frame
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.devnet.children import start_relay
from nostrllm.ports import Filter
from nostrllm.wire.event import Draft, Event
from tests.benchmarks.figures import RUNS, Figure, load, show
from tests.roles.market import CLOCK, KEYRING

KIND = 1
SUBSCRIPTION = "benchmark"
WANTED = Filter(kinds=(KIND,))


async def events_of(count: int, size_bytes: int) -> list[Event]:
    """Signed events of one author, the newest last."""
    author, now = KEYRING.signer(), int(CLOCK.now())
    return [
        await author.sign(Draft(KIND, secrets.token_hex(size_bytes // 2), now - count + number))
        for number in range(count)
    ]


def frames_of(events: Sequence[Event]) -> list[str]:
    """As a relay sends them."""
    return [json.dumps(["EVENT", SUBSCRIPTION, event.as_dict()]) for event in events]


def bare(frames: Sequence[str]) -> float:
    """Microseconds each: read, hash, verify, with the bare libraries."""
    began = time.process_time()
    for frame in frames:
        raw = orjson.loads(frame)[2]
        array = [0, raw["pubkey"], raw["created_at"], raw["kind"], raw["tags"], raw["content"]]
        digest = hashlib.sha256(orjson.dumps(array)).digest()
        key = PublicKeyXOnly(bytes.fromhex(raw["pubkey"]))
        assert key.verify(bytes.fromhex(raw["sig"]), digest)
    return (time.process_time() - began) * 1e6 / len(frames)


def read_only(frames: Sequence[str]) -> float:
    """Microseconds each: the JSON alone, without which no duplicate is noticed."""
    began = time.process_time()
    for frame in frames:
        orjson.loads(frame)
    return (time.process_time() - began) * 1e6 / len(frames)


def intake(frames: Sequence[str]) -> tuple[float, float]:
    """Microseconds each when they are new, and when they come again."""
    limits = RelayLimits(queue_max=len(frames))
    sink, taking = Inbox(SUBSCRIPTION, [WANTED], limits), Intake(KEYRING, limits)
    spent = []
    for _ in range(2):
        began = time.process_time()
        for text in frames:
            frame = parse_frame(text)
            assert isinstance(frame, EventFrame)
            taking.take(frame.raw, len(text), sink)
        spent.append((time.process_time() - began) * 1e6 / len(frames))
    return spent[0], spent[1]


async def subscribed(url: str, count: int) -> float:
    """Microseconds of this process for each stored event that a new subscription delivers."""
    async with WebsocketRelays([url], KEYRING, CLOCK) as relays:
        began = time.process_time()
        async with relays.subscribe(SUBSCRIPTION, [WANTED]) as events, asyncio.timeout(60):
            for _ in range(count):
                await anext(events)
        return (time.process_time() - began) * 1e6 / count


async def stored(url: str, events: Sequence[Event]) -> None:
    """Put the events on the relay."""
    async with WebsocketRelays([url], KEYRING, CLOCK) as relays:
        for event in events:
            published = await relays.publish(event)
            assert published.ok, published.failed


async def figures(url: str, count: int, size_bytes: int, runs: int) -> list[Figure]:
    """All ways, in turns."""
    events = await events_of(count, size_bytes)
    frames = frames_of(events)
    await stored(url, events)
    floors: list[float] = []
    reads: list[float] = []
    new: list[float] = []
    again: list[float] = []
    whole: list[float] = []
    for _ in range(runs):
        floors.append(bare(frames))
        reads.append(read_only(frames))
        first, second = intake(frames)
        new.append(first)
        again.append(second)
        whole.append(await subscribed(url, count))
    floor = "read + hash + verify"
    return [
        Figure("intake, new event", "µs", new, floor, floors),
        Figure("intake, from a second relay", "µs", again, "read", reads),
        Figure("socket to subscriber", "µs", whole, floor, floors),
    ]


def run(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.relays", description=__doc__)
    parser.add_argument(
        "--events", type=int, default=400, help="in a run; some relays give no more"
    )
    parser.add_argument("--size", type=int, default=1_000, help="bytes of content")
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args(argv)
    before = load()
    with tempfile.TemporaryDirectory() as name, start_relay(Path(name)) as relay:
        measured = uvloop.run(figures(relay.url, given.events, given.size, given.runs))
    show(
        f"events off a relay, {given.events} of {given.size} bytes × {given.runs} runs, CPU",
        measured,
        before,
    )


if __name__ == "__main__":
    run()
