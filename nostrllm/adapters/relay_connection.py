"""One connection to one relay, for one identity: connect, ask, listen, and do it all again.

`run` is the supervisor and returns only when cancelled. A session is one WebSocket; three things go
on in it: reading, watching deadlines, and the probe that tells a deaf relay from a quiet one.
Whatever breaks the session aborts the socket, which ends the reading, which ends the session.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog
from websockets.exceptions import ConnectionClosed

from nostrllm.adapters.relay_answers import Answers, Verdict
from nostrllm.adapters.relay_intake import STRIKES, Counts, Fate, Intake
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_probe import Probe
from nostrllm.adapters.relay_request import Request
from nostrllm.adapters.relay_socket import Socket, acknowledge, connect, hang_up
from nostrllm.adapters.relay_wire import (
    Challenge,
    Closed,
    Eose,
    EventFrame,
    Notice,
    Ok,
    auth_frame,
    event_frame,
    needs_auth,
    parse_frame,
    place,
)
from nostrllm.errors import NostrllmError, RemoteError
from nostrllm.ports import Clock, Keyring, Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event

log = structlog.get_logger()

_TOO_BIG: Final = 1009  # RFC 6455, 7.4.1
#: After so many messages without a wait the other tasks have their turn.
_TURN_MESSAGES: Final = 64


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections have in common."""

    keyring: Keyring
    clock: Clock
    limits: RelayLimits
    intake: Intake
    counts: Counts


class RelayConnection:
    """A relay as one identity, or none, sees it; requests outlive the sockets underneath."""

    def __init__(self, url: str, signer: Signer | None, shared: Shared) -> None:
        self.url = url
        self.signer = signer
        self.reconnects = 0
        self.error: str | None = None
        self.heard_at: float | None = None
        self.used_at = shared.clock.monotonic()
        self._shared = shared
        self._limits = shared.limits
        self._clock = shared.clock
        self._requests: dict[str, Request] = {}
        self._answers = Answers()
        self._turn = asyncio.Event()
        self._failures = 0
        self._ended = False
        self._live_only = False
        self._probe = Probe(shared.keyring, shared.clock, shared.limits, shared.counts)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._begin(None)

    # what others ask

    @property
    def connected(self) -> bool:
        """Is there a socket now?"""
        return self._socket is not None

    @property
    def subscriptions(self) -> int:
        """How many live subscriptions it carries, answered or not."""
        return sum(not request.once for request in self._requests.values()) - self._probing

    @property
    def idle_since(self) -> float | None:
        """Since when nothing is asked of it, monotonic; None while something is."""
        busy = len(self._requests) > self._probing or self._answers
        return None if busy else self.used_at

    @property
    def _probing(self) -> int:
        return int(self._probe.request.id in self._requests)

    async def ready(self, patience: int | None = None) -> bool:
        """Wait for a socket; False once the relay has failed `patience` times in a row.

        The caller limits the time.
        """
        self.used_at = self._clock.monotonic()
        most = self._limits.patience if patience is None else patience
        while self._socket is None:
            if self._ended or self._failures >= most:
                return False
            await self._turn.wait()
        return True

    async def publish(self, event: Event) -> Verdict:
        """Send an event and wait for its OK; over a new socket if the first one breaks.

        Where we have a key and the relay asks whose event this is, it goes again after AUTH.
        The caller limits the time.
        """
        verdict = Verdict("the connection was lost")
        for _ in range(2):
            if not await self.ready():
                return Verdict(f"not connected: {self.error or 'no answer'}")
            was_authenticated = self._authenticated
            answer = await self._exchange(event_frame(event), event.id)
            if answer is None:
                continue
            verdict = Verdict.of(answer)
            refused = needs_auth(verdict.reason) and self.signer is not None
            if not refused or was_authenticated or not await self._await_auth():
                break
        return verdict

    async def cast(self, frame: str) -> bool:
        """Send a frame; waits for the first connecting, never for a relay that was lost."""
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                return await self.ready(patience=1) and await self.send(frame)
        except TimeoutError:
            return False

    async def send(self, frame: str) -> bool:
        """Write a frame; False when there is no socket or it takes no more."""
        socket = self._socket
        if socket is None:
            return False
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await socket.send(frame)
        except TimeoutError:
            self._break("the relay takes no more bytes")
            return False
        except (ConnectionClosed, OSError):
            return False
        return True

    def add(self, request: Request) -> None:
        """Carry a request from now on, through every reconnect."""
        self.used_at = self._clock.monotonic()
        self._requests[request.id] = request
        self._spawn(self._ask(request))

    def close(self, request: Request) -> None:
        """Carry it no more."""
        self.used_at = self._clock.monotonic()
        if self._requests.pop(request.id, None) is not None and request.asked:
            self._spawn(self.send(request.close_frame()))

    async def _await_auth(self) -> bool:
        """Wait until the relay has taken our AUTH; False when the socket goes first."""
        while self._socket is not None and not self._authenticated:
            await self._turn.wait()
        return self._authenticated

    # the life of a connection

    async def run(self) -> None:
        """Connect, hold a session, wait, forever."""
        try:
            while True:
                await self._attempt()
                self._failures += 1
                self._announce()
                await self._clock.sleep(self._wait_s())
                self.reconnects += 1
        finally:
            self._ended = True
            self._lose()

    def _wait_s(self) -> float:
        """Exponential, with half of it drawn by lot, so that clients do not come back together."""
        limits = self._limits
        wait_s = limits.backoff_s * 2.0 ** min(self._failures - 1, 32)
        return min(wait_s, limits.backoff_s_max) * random.uniform(0.5, 1.0)

    async def _attempt(self) -> None:
        try:
            socket = await connect(self.url, self._limits)
        # URL, DNS, TLS, HTTP and WebSocket raise errors of many libraries, ValueError among them,
        # and none of them is ours: whatever it is, the relay is not there now.
        except Exception as exc:  # noqa: BLE001 - told by its class, and tried again
            self.error = f"cannot connect: {type(exc).__name__}"
            log.info("relay_unreachable", relay=place(self.url), error=self.error)
            return
        began = self._clock.monotonic()
        try:
            await self._session(socket)
        except Exception:  # the supervisor of one session: a fault of ours must not end the relay
            self.error = "internal"
            log.exception("relay_session_failed", relay=place(self.url))
        finally:
            self._lose()
            await hang_up(socket, self._limits.close_timeout_s)
        if self._clock.monotonic() - began >= self._limits.stable_s:
            self._failures = 0
        log.info("relay_lost", relay=place(self.url), error=self.error)

    async def _session(self, socket: Socket) -> None:
        self._begin(socket)
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._probe.renew()
            self._spawn(self._watch())
            self._spawn(self._probe_on())
            for request in list(self._requests.values()):
                self._spawn(self._ask(request))
            self.error = None
            self._announce()
            try:
                await self._read(socket)
            finally:
                self._group = None
                self._lose()
                for task in self._tasks:
                    task.cancel()

    def _begin(self, socket: Socket | None) -> None:
        self._socket = socket
        self._authenticated = False
        self._challenges = 0
        self._strikes = 0

    def _lose(self) -> None:
        """The socket is gone: tell all who wait for something to come out of it."""
        self._begin(None)
        for request in self._requests.values():
            request.lost()
        self._answers.lose()
        self._announce()

    def _announce(self) -> None:
        """Wake whoever waits for the state to change."""
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        if self._group is None:
            work.close()
            return
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _break(self, reason: str) -> None:
        """End the session; the reading notices."""
        if self._socket is not None:
            self.error = reason
            self._socket.transport.abort()

    # reading

    async def _read(self, socket: Socket) -> None:
        try:
            while True:
                for _ in range(_TURN_MESSAGES):
                    self._receive(await socket.recv())
                    acknowledge(socket)
                await asyncio.sleep(0)  # what is buffered is read without a pause
        except ConnectionClosed as exc:
            ours = None if exc.sent is None or exc.rcvd_then_sent else exc.sent.code
            theirs = None if exc.rcvd is None else exc.rcvd.code
            # a stored event over our limit would end every connection at its start
            self._live_only = ours == _TOO_BIG
            self.error = self.error or f"connection closed ({theirs or ours or 'no reason'})"

    def _receive(self, message: str | bytes) -> None:
        self.heard_at = self._clock.monotonic()
        try:
            frame = parse_frame(message)
        except RemoteError:
            self._strike(Fate.GARBAGE)
            return
        match frame:
            case EventFrame():
                self._take(frame, len(message))
            case Eose():
                if request := self._requests.get(frame.subscription):
                    request.eose()
            case Ok():
                self._answers.give(frame)
            case Closed():
                self._closed(frame)
            case Challenge():
                self._challenged(frame)
            case Notice():
                self._strike("notice")

    def _take(self, frame: EventFrame, size_bytes: int) -> None:
        request = self._requests.get(frame.subscription)
        if request is None:  # it crossed our CLOSE
            self._shared.counts["late"] += 1
        elif request is self._probe.request:
            if ok := self._probe.heard(frame.raw):
                self._answers.give(ok)
        else:
            fate = self._shared.intake.take(frame.raw, size_bytes, request.sink)
            if fate in STRIKES:
                self._strike(fate)
            else:
                self._shared.counts[fate] += 1

    def _strike(self, what: str) -> None:
        """Count what an honest relay does not send, or not often; too much ends the session."""
        self._shared.counts[what] += 1
        self._strikes += 1
        if self._strikes > self._limits.strikes_max:
            self._break("the relay sends too much garbage")

    def _closed(self, frame: Closed) -> None:
        request = self._requests.get(frame.subscription)
        if request is None:
            return
        self._shared.counts["closed"] += 1
        request.closed(self._clock.monotonic(), self._limits)
        auth_comes = needs_auth(frame.reason) and self.signer and not self._authenticated
        if request.once or not auth_comes:
            request.answered.set()

    def _challenged(self, frame: Challenge) -> None:
        self._challenges += 1
        if self._challenges > self._limits.challenges_max:
            self._strike("challenge")
        elif self.signer is not None:
            self._spawn(self._authenticate(self.signer, frame.text))

    # writing

    async def _ask(self, request: Request) -> None:
        now = self._clock.now()
        frame = request.frame(now, live_only=self._live_only)
        if self._socket is not None:
            request.sent(self._clock.monotonic())
            await self.send(frame)

    async def _exchange(self, frame: str, number: str) -> Ok | None:
        """Send a frame and wait for the OK of the event in it; None when the socket breaks."""
        return await self._answers.exchange(self.send(frame), number)

    async def _authenticate(self, signer: Signer, challenge: str) -> None:
        """Sign the challenge (NIP-42), then ask for everything again: now more may be shown."""
        tags = (("relay", self.url), ("challenge", challenge))
        try:
            async with asyncio.timeout(self._limits.auth_timeout_s):
                event = await signer.sign(Draft(kinds.RELAY_AUTH, "", int(self._clock.now()), tags))
                answer = await self._exchange(auth_frame(event), event.id)
        except (NostrllmError, TimeoutError):
            self.error = "AUTH got no answer"
            return
        if answer is None or Verdict.of(answer).reason:
            self.error = "AUTH was refused"
            return
        self._authenticated, self.error = True, None
        self._announce()
        for request in list(self._requests.values()):
            await self._ask(request)

    # deadlines

    async def _watch(self) -> None:
        """Ask again what was closed, not answered, or is to be caught up."""
        window_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._limits.watch_s)
            now = self._clock.monotonic()
            if now - window_at >= self._limits.strike_window_s:
                window_at, self._strikes = now, 0
            for request in list(self._requests.values()):
                if not request.due(now, self._limits):
                    continue
                if request.silent and request is not self._probe.request:
                    self._break("the relay does not answer a subscription")
                    return
                self._live_only = False
                await self._ask(request)

    async def _probe_on(self) -> None:
        """Write to ourselves through the relay; a relay that keeps it to itself is reconnected."""
        self.add(self._probe.request)
        try:
            heard = True
            while heard:
                heard = await self._probe.round(self._exchange)
            self._break("the relay swallows what we send ourselves")
        finally:
            self._requests.pop(self._probe.request.id, None)
