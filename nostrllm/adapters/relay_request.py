"""One REQ on one connection: what it asks for, and how the relay has treated it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from nostrllm.adapters.relay_intake import Sink
from nostrllm.adapters.relay_limits import RelayLimits
from nostrllm.adapters.relay_wire import close_frame, filter_dict, req_frame
from nostrllm.ports import Filter


class Request:
    """A subscription's or a fetch's stand with one relay.

    Times are monotonic seconds. The id on the wire is random, so that two relays, or two
    connections to one, cannot be matched by it.
    """

    def __init__(
        self,
        sink: Sink,
        filters: Sequence[Filter],
        *,
        stored_s: float | None = None,
        once: bool = False,
    ) -> None:
        """`once`: a fetch, which ends with its EOSE, CLOSED or connection."""
        self.id = secrets.token_hex(6)
        self.sink = sink
        self.once = once
        self.answered = asyncio.Event()
        self._filters = filters
        self._stored_s = stored_s
        self._forget()
        self._closures = 0

    def _forget(self) -> None:
        self._sent_at: float | None = None
        self._retry_at: float | None = None
        self._eose = False
        self._silences = 0

    @property
    def live(self) -> bool:
        """Has the relay sent its stored events, and does it now send new ones?"""
        return self._eose and self._retry_at is None

    @property
    def asked(self) -> bool:
        """Was it sent on this connection?"""
        return self._sent_at is not None

    def frame(self, now: float, *, live_only: bool = False) -> str:
        """The REQ at unix time `now`; `live_only` asks for nothing stored."""
        since = None if self._stored_s is None else int(now - self._stored_s)
        filters = [filter_dict(asked, stored_since=since) for asked in self._filters]
        extra: dict[str, Any] = {"limit": 0} if live_only and not self.once else {}
        return req_frame(self.id, [asked | extra for asked in filters])

    def close_frame(self) -> str:
        """The CLOSE that ends it."""
        return close_frame(self.id)

    def sent(self, at: float) -> None:
        """The REQ went out."""
        self._sent_at = at
        self._retry_at = None
        self._eose = False

    def eose(self) -> None:
        """The relay has answered."""
        self._eose = True
        self._silences = 0
        self.answered.set()

    def closed(self, at: float, limits: RelayLimits) -> None:
        """The relay ended it: ask again later, and later still if it had hardly begun."""
        if self._sent_at is not None and at - self._sent_at > limits.stable_s:
            self._closures = 0
        wait_s = limits.closed_backoff_s * 2.0 ** min(self._closures, 32)
        self._closures += 1
        self._retry_at = at + min(wait_s, limits.closed_backoff_s_max)

    def lost(self) -> None:
        """The connection is gone; what the relay knew of us went with it."""
        self._forget()
        if self.once:
            self.answered.set()

    def due(self, at: float, limits: RelayLimits) -> bool:
        """Must the REQ go out again: after CLOSED, for want of an EOSE, or to catch up?"""
        if self._sent_at is None or self.once:
            return False
        if self._retry_at is not None:
            return at >= self._retry_at
        waited_s = at - self._sent_at
        if not self._eose:
            if waited_s < limits.eose_timeout_s:
                return False
            self._silences += 1
            return True
        return self._stored_s is not None and waited_s >= limits.catchup_s

    @property
    def silent(self) -> bool:
        """Did it go without EOSE twice?"""
        return self._silences > 1
