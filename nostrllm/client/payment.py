"""What a token is when it goes out as payment: its name, what the mint takes, what may stay behind.

Worked out from our own coins before the order is sent, so that the provider is believed in nothing
of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nostrllm.client.bargain import Bargain
from nostrllm.client.world import World
from nostrllm.core import coins
from nostrllm.purse.till import keysets_with
from nostrllm.wire.token import Token

#: Change has about so many coins; what receiving it costs depends on that (docs/protocol.md).
CHANGE_COINS: Final = 8
#: How the names of tokens begin that the user took in himself.
RECEIVED: Final = "receive:"
#: What a mint must know before coins are locked: states, restore, locks, proofs of its signatures.
NUTS: Final = ("7", "9", "11", "12")


@dataclass(frozen=True, slots=True)
class Charges:
    """What comes off a token, in msat.

    `fee_msat` is the mint's for swapping it. `credit_msat_max`: change that is worth no more than
    this may be credited instead of sent, for taking it would cost as much.
    """

    fee_msat: int
    credit_msat_max: int


async def charges(world: World, token: Token, coin: int) -> Charges:
    """By the mint's own keysets (NUT-02), each `coin` being worth so many msat.

    Raises OutcomeUnknown when it does not tell them.
    """
    mint = world.mints.at(token.mint)
    keysets = await keysets_with(mint, {proof.id for proof in token.proofs})
    fee = coins.fee(token.proofs, keysets)
    ppk = max((one.fee_ppk for one in keysets.values() if one.unit == token.unit), default=0)
    taking = -(-CHANGE_COINS * ppk // 1_000)
    return Charges(fee * coin, (taking + 1) * coin)


async def paid_with(world: World, bargain: Bargain, token: Token) -> Bargain:
    """The bargain with what is known of the token that pays for it. Raises OutcomeUnknown."""
    taken = await charges(world, token, bargain.coin_msat)
    known = {
        "paid_msat": token.amount * bargain.coin_msat,
        "fee_msat": taken.fee_msat,
        "credit_msat_max": taken.credit_msat_max,
        "payment": coins.digest(token.proofs),
    }
    return bargain.model_copy(update=known)


async def takes_locks(world: World, mint: str) -> bool:
    """Can coins of this mint be locked, and their change be found again? Raises OutcomeUnknown."""
    nuts = (await world.mints.at(mint).info()).get("nuts")
    known = nuts if isinstance(nuts, Mapping) else {}
    said = [known.get(nut) for nut in NUTS]
    return all(isinstance(one, Mapping) and one.get("supported") is True for one in said)


async def chosen_mints(world: World) -> set[str]:
    """The mints that the user chose: by name, by funding there, by taking in a token himself."""
    chosen = await world.purse.mints(received_as=RECEIVED)
    return chosen if world.mint is None else chosen | {world.mint}
