"""Lightning invoices that any node could read, payable to nobody."""

from __future__ import annotations

import secrets
import time

import bolt11


def invoice(
    amount_msat: int | None,
    *,
    expiry_s: int = 3_600,
    age_s: int = 0,
    payment_hash: str | None = None,
    description_hash: str | None = None,
) -> str:
    """An invoice of a node that does not exist; the devnet mint pays it all the same."""
    tags = bolt11.Tags()
    tags.add(bolt11.TagChar.payment_hash, payment_hash or secrets.token_hex(32))
    tags.add(bolt11.TagChar.payment_secret, secrets.token_hex(32))
    if description_hash is None:
        tags.add(bolt11.TagChar.description, "a test")
    else:
        tags.add(bolt11.TagChar.description_hash, description_hash)
    tags.add(bolt11.TagChar.expire_time, expiry_s)
    amount = None if amount_msat is None else bolt11.MilliSatoshi(amount_msat)
    unsigned = bolt11.Bolt11("bc", int(time.time()) - age_s, tags, amount)
    return bolt11.encode(unsigned, secrets.token_hex(32))
