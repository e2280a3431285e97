"""Amounts as people read them, in every text of ours."""

from __future__ import annotations


def sats(msat: int) -> str:
    """An amount: 1234 msat → "1.234 sat"."""
    whole, rest = divmod(msat, 1_000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") + " sat"


def coins(amount: int, unit: str) -> str:
    """An amount of coins: 5 sat → "5 sat"; 123 usd, which are cents → "1.23 USD"."""
    return f"{amount // 100}.{amount % 100:02d} USD" if unit == "usd" else f"{amount} {unit}"


def per_1000(msat_per_million: int) -> str:
    """A price per million tokens as one per thousand: 20_000_500 → "20.001 sat".

    Rounded up in the last digit that is shown: what costs anything never reads as free.
    """
    return sats(-(-msat_per_million // 1_000))
