"""Every client's key as the operator sees it: what it bought, what it owns, what it did."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nostrllm.core import conduct
from nostrllm.core.conduct import FREE, Kind, Standing, Tally
from nostrllm.ports import Store
from nostrllm.provider.conduct import STRANGERS, tally_of


@dataclass(frozen=True, slots=True)
class Client:
    """One key. `attacks` has the kinds that were counted, ever; times are unix seconds."""

    pubkey: str
    orders: int
    paid: int
    paid_msat: int
    free_failures: int
    attacks: Mapping[Kind, int]
    balance_msat: int
    standing: Standing
    last_at: int


async def read_clients(store: Store, blocked: Collection[str], now_s: int) -> list[Client]:
    """All keys that ever ordered, own something, were counted or blocked; those with most attacks
    first, then those with most orders."""
    tallies: dict[str, dict[Kind, Tally]] = {}
    for row in await store.read("conduct_all"):
        if row["kind"] in conduct.KINDS:
            tallies.setdefault(str(row["author"]), {})[row["kind"]] = tally_of(row)
    tallies.pop(STRANGERS, None)
    orders = {str(row["author"]): row for row in await store.read("clients_orders")}
    balances = {
        str(row["pubkey"]): int(row["balance_msat"]) for row in await store.read("accounts_all")
    }
    found = []
    for pubkey in sorted({*tallies, *orders, *balances, *blocked}):
        own, bought = tallies.get(pubkey, {}), orders.get(pubkey)
        times = [tally.last_at for tally in own.values()]
        found.append(
            Client(
                pubkey=pubkey,
                orders=int(bought["orders"]) if bought else 0,
                paid=int(bought["paid"]) if bought else 0,
                paid_msat=int(bought["paid_msat"]) if bought else 0,
                free_failures=own[FREE].count if FREE in own else 0,
                attacks={k: t.count for k, t in own.items() if k != FREE and t.count},
                balance_msat=balances.get(pubkey, 0),
                standing="blocked" if pubkey in blocked else conduct.standing(own, now_s),
                last_at=max([*times, int(bought["last_at"]) if bought else 0]),
            )
        )
    return sorted(found, key=lambda one: (-sum(one.attacks.values()), -one.orders, one.pubkey))
