"""Every number the relay connections go by, in one place, so that a test can make them small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Times and bounds of `WebsocketRelays`; the defaults suit public relays.

    Nothing a relay does may cost more than these say: memory, processor, connections or patience.
    """

    # one connection
    connect_timeout_s: float = 10.0
    close_timeout_s: float = 1.0
    #: A relay that takes no bytes for so long is stalled and is reconnected.
    send_timeout_s: float = 5.0
    #: A half-open connection is noticed after interval + timeout at most.
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    #: First wait before reconnecting; it doubles up to the most, and half of it is drawn by lot.
    backoff_s: float = 0.5
    backoff_s_max: float = 60.0
    #: A connection that held for so long was a good one: the next wait is the first again.
    stable_s: float = 30.0
    #: After so many failures in a row `publish` and `fetch` no longer wait for the relay.
    patience: int = 3

    # all connections
    connections_max: int = 128
    #: A connection to a relay that is not configured is closed when unused for so long.
    idle_s: float = 60.0

    # what comes in
    #: A longer frame ends the connection.
    message_bytes_max: int = 1 << 20
    #: A longer event is dropped before any of it is looked at.
    event_bytes_max: int = 1 << 19
    #: Garbage, forged and unsolicited events of one connection within the window.
    strikes_max: int = 256
    strike_window_s: float = 30.0
    #: Verified events kept whole, for another subscription that wants them too.
    verified_max: int = 4_096
    verified_bytes_max: int = 1 << 24
    #: Ids a subscription remembers; an event older than that many others may come again.
    seen_max: int = 65_536
    #: What a subscription's consumer may lag behind; beyond it events are dropped and counted.
    queue_max: int = 4_096
    queue_bytes_max: int = 1 << 25
    fetch_events_max: int = 10_000
    fetch_bytes_max: int = 1 << 26

    # subscriptions
    #: `subscribe` waits so long for the relays' EOSE before its block begins.
    settle_s: float = 1.0
    #: A subscription without EOSE is asked again after so long, then the relay is reconnected.
    eose_timeout_s: float = 15.0
    #: First wait after CLOSED; it doubles with each one up to the most.
    closed_backoff_s: float = 1.0
    closed_backoff_s_max: float = 300.0
    #: Stored events are asked for again so often (`stored_s` back).
    catchup_s: float = 300.0
    #: How often the deadlines above are looked at.
    watch_s: float = 0.5

    # probe
    #: How often a relay must bring us an event of our own, and how long it may take.
    probe_s: float = 30.0
    probe_timeout_s: float = 10.0
    #: So many in a row swallowed, and the relay is reconnected.
    probe_misses_max: int = 2
    #: A relay that brings none at all is tried at intervals that double up to this.
    probe_s_max: float = 3_600.0

    # AUTH
    #: Challenges answered on one connection; more are ignored.
    challenges_max: int = 8
    auth_timeout_s: float = 10.0
