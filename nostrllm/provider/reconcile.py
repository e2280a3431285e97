"""Ask the mints whether the coins in the books are there: a database cannot prove that by itself.

A mint calls a coin that it never saw UNSPENT too, so its signature on each coin is verified first,
against the keys it shows now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from nostrllm.crypto.bdhke import verify_proof_dleq
from nostrllm.errors import NostrllmError
from nostrllm.ports import Keyset, Mints
from nostrllm.provider.audit import Check, checked
from nostrllm.provider.books import Books, Coin


async def reconcile(books: Books, mints: Mints) -> list[Check]:
    """One check per mint where we have coins.

    Free and held coins must be signed and UNSPENT; those sent or reserved may be anything; what is
    PENDING is listed. A mint that does not answer is a fault: nothing is proven then.
    """
    live = sorted((coin for coin in books.coins if coin.state != "spent"), key=lambda it: it.mint)
    return [
        await _at(url, list(coins), mints) for url, coins in groupby(live, key=lambda it: it.mint)
    ]


async def _at(url: str, coins: Sequence[Coin], mints: Mints) -> Check:
    name = f"{url} has the coins"
    try:
        mint = mints.at(url)
        keysets = await mint.keysets(refresh=True)
        states = await mint.states([coin.y for coin in coins])
    except NostrllmError as error:
        return Check(name, len(coins), (f"not proven: {error.message}",), 1)
    pairs = list(zip(coins, states, strict=True))
    faults = (_fault(coin, state, keysets) for coin, state in pairs)
    return checked(name, faults, [*_pending(pairs), *_others(pairs)])


def _fault(coin: Coin, state: str, keysets: Mapping[str, Keyset]) -> str | None:
    if coin.state not in ("free", "held"):
        return None
    keyset = keysets.get(coin.proof.id)
    key = keyset.keys.get(coin.proof.amount) if keyset and keyset.unit == coin.unit else None
    if key is None:
        return f"coin {coin.y}: the mint shows no key for it"
    if not verify_proof_dleq(coin.proof, key):
        return f"coin {coin.y}: the mint did not sign it"
    return f"coin {coin.y} is {coin.state} here and SPENT there" if state == "SPENT" else None


def _pending(pairs: Sequence[tuple[Coin, str]]) -> list[str]:
    return [f"PENDING: {coin.y} ({coin.state})" for coin, state in pairs if state == "PENDING"]


def _others(pairs: Sequence[tuple[Coin, str]]) -> list[str]:
    """How those stand that may be taken: sent, or in a swap whose end is not known."""
    counts = Counter(
        f"{coin.state} {state}" for coin, state in pairs if coin.state in ("sent", "reserved")
    )
    return [f"{what}: {count} coins" for what, count in sorted(counts.items())]
