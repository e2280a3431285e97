"""Does the relay still bring us what is sent to us? An event of our own, now and then, tells.

A relay can answer pings, queries and OKs and yet have forgotten a subscription; nothing but silence
shows it, and silence is also what a quiet night looks like.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nostrllm.adapters.relay_intake import Basket, Counts
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_request import Request
from nostrllm.adapters.relay_wire import Ok, event_frame
from nostrllm.ports import Clock, Filter, Keyring
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft

Exchange = Callable[[str, str], Awaitable[Ok | None]]


class Probe:
    """The probe of one connection, under a key that is thrown away with each socket."""

    def __init__(self, keyring: Keyring, clock: Clock, limits: RelayLimits, counts: Counts) -> None:
        self._counts = counts
        self._keyring = keyring
        self._clock = clock
        self._limits = limits
        self._misses = 0
        self._fruitless = 0
        self._expected: str | None = None
        self._heard = asyncio.Event()
        self.renew()

    def renew(self) -> None:
        """Another socket: another key, another request."""
        self._signer = self._keyring.signer()
        filters = (Filter(kinds=(kinds.PROBE,), authors=(self._signer.pubkey,)),)
        self.request = Request(Basket(filters, self._limits), filters)
        self._misses = 0

    def heard(self, raw: Mapping[str, Any]) -> Ok | None:
        """An event came for the probe's request; the one expected stands for its OK too.

        Its id alone tells: nobody else knows it, so nothing is verified.
        """
        if self._expected is None or raw.get("id") != self._expected:
            return None
        self._heard.set()
        return Ok(self._expected, accepted=True, reason="")

    async def round(self, exchange: Exchange) -> bool:
        """Wait, send, listen; False when the relay has now swallowed too many in a row.

        A relay that refuses the kind is left alone for long: its subscriptions may be fine.
        """
        await self._clock.sleep(self._interval_s())
        if not self.request.live:  # closed or unanswered, which others look after
            return True
        ok = await self._send(exchange)
        if ok is None:
            self._counts["probe-swallowed"] += 1
            self._misses += 1
        elif not ok.accepted:
            self._counts["probe-refused"] += 1
            await self._clock.sleep(self._limits.probe_s_max)
        else:
            self._counts["probe"] += 1
            self._misses = self._fruitless = 0
        if self._misses < self._limits.probe_misses_max:
            return True
        self._fruitless += 1
        return False

    async def _send(self, exchange: Exchange) -> Ok | None:
        """The refusal, or the acceptance once the event is back; None when it is swallowed."""
        draft = Draft(kinds.PROBE, secrets.token_hex(8), int(self._clock.now()))
        event = await self._signer.sign(draft)
        self._expected = event.id
        self._heard.clear()
        try:
            async with asyncio.timeout(self._limits.probe_timeout_s):
                ok = await exchange(event_frame(event), event.id)
                if ok is not None and ok.accepted:
                    await self._heard.wait()
                return ok
        except TimeoutError:
            return None
        finally:
            self._expected = None

    def _interval_s(self) -> float:
        limits = self._limits
        most = min(limits.probe_s * 2.0 ** min(self._fruitless, 32), limits.probe_s_max)
        return most * random.uniform(0.75, 1.0)
