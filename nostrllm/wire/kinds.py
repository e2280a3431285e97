"""The event kinds used here, and where each comes from."""

from __future__ import annotations

from typing import Final

PROFILE: Final = 0  # NIP-01
DM_LEGACY: Final = 4  # NIP-04
SEAL: Final = 13  # NIP-59
DM: Final = 14  # NIP-17, a rumor's kind
GIFT_WRAP: Final = 1059  # NIP-59
GIFT_WRAP_EPHEMERAL: Final = 21059  # NIP-59
RELAY_LIST: Final = 10002  # NIP-65
DM_RELAYS: Final = 10050  # NIP-17
RELAY_AUTH: Final = 22242  # NIP-42
FOLLOW_SET: Final = 30000  # NIP-51
HANDLER: Final = 31990  # NIP-89
REVIEW: Final = 38000  # NIP-87

# Ours, as docs/protocol.md says.
ANNOUNCEMENT: Final = 38421  # shared with Routstr (RIP-02)
PRICE_LIST: Final = 38424
MESSAGE: Final = 25421  # a rumor's kind
RECEIPT: Final = 25423
CHUNK: Final = 25425
PART: Final = 25426  # a rumor's kind
ACCEPTED: Final = 25427
STATEMENT: Final = 25428
TICK: Final = 24424
PROBE: Final = 24425  # a relay's subscriber writes it to himself


def is_ephemeral(kind: int) -> bool:
    """Relays forward it and keep nothing (NIP-01)."""
    return 20_000 <= kind < 30_000
