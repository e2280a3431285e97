"""Money is an int in msat. A price times a usage is a cost, rounded once, up, and only here.

Rounding up by less than one msat is the whole rounding there is: a coin that is too big for the
change is credited, not kept.
"""

from __future__ import annotations

from typing import Final

from nostrllm.errors import RemoteError
from nostrllm.wire.announcement import Price
from nostrllm.wire.message import MSAT_MAX
from nostrllm.wire.order import Usage

MSAT_PER_SAT: Final = 1_000

#: One coin of a unit in msat, for the units whose worth needs no exchange rate.
UNIT_MSAT: Final = {"sat": MSAT_PER_SAT, "msat": 1}

#: Units whose coins are worth in msat what a rate says. A coin of usd is a cent (NUT-01).
RATED: Final = frozenset({"usd"})

_MILLION: Final = 1_000_000


def cost_msat(price: Price, usage: Usage) -> int:
    """Price × usage in msat, rounded up once."""
    cached = min(usage.cached, usage.prompt)
    reasoning = min(usage.reasoning, usage.completion)
    millionths = (
        (usage.prompt - cached) * price.input
        + cached * (price.input if price.cached is None else price.cached)
        + (usage.completion - reasoning) * price.output
        + reasoning * (price.output if price.reasoning is None else price.reasoning)
    )
    return price.request - (-millionths // _MILLION)


def affordable_tokens(price: Price, prompt: int, budget_msat: int) -> int:
    """How many completion tokens fit in the budget after `prompt` tokens; negative when none do."""
    dearest = max(price.output, price.reasoning or 0)
    rest = (budget_msat - price.request) * _MILLION - prompt * max(price.input, price.cached or 0)
    if dearest == 0:
        return 1 << 40 if rest >= 0 else -1
    return rest // dearest


def scaled(price: Price, percent: int) -> Price:
    """The price at so many percent, each part of it rounded up; none passes the largest amount, so
    that a list which asks for more can be read, and is only too dear."""

    def part(msat: int) -> int:
        return min(MSAT_MAX, -(-msat * percent // 100))

    return Price(
        input=part(price.input),
        output=part(price.output),
        request=part(price.request),
        cached=None if price.cached is None else part(price.cached),
        reasoning=None if price.reasoning is None else part(price.reasoning),
    )


def prompt_estimate(size_bytes: int, messages: int) -> int:
    """Tokens that a prompt of so many UTF-8 bytes has, roughly: a token per 3 bytes and frame.

    Used before the tokenizer has spoken: to quote, and to refuse what cannot be paid.
    """
    return -(-size_bytes // 3) + 8 * messages


def booked(unit: str) -> int:
    """What one coin counts in the books: msat where they are fixed, else one of its own kind.

    Raises RemoteError `payment-mint-unaccepted`.
    """
    return 1 if unit in RATED else unit_msat(unit)


def unit_msat(unit: str) -> int:
    """One coin of a fixed unit in msat. Raises RemoteError `payment-mint-unaccepted`."""
    try:
        return UNIT_MSAT[unit]
    except KeyError:
        raise RemoteError(
            f"the unit {unit[:16]!r} is not accepted here", code="payment-mint-unaccepted"
        ) from None
