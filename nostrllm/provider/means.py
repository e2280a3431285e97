"""What can pay for an order that came without coins: a balance, an allowance, a plan's quota."""

from __future__ import annotations

from dataclasses import dataclass

from nostrllm.core.allowance import Allowance
from nostrllm.core.plan import Subscription
from nostrllm.errors import RemoteError
from nostrllm.ports import Row, Store
from nostrllm.provider.ticket import Draw


@dataclass(frozen=True, slots=True)
class Means:
    """`balance_msat` of `payer`'s may be spent, by the allowance `grant_id` if he is another; the
    quota of `subscription` goes first."""

    payer: str
    balance_msat: int = 0
    grant_id: str = ""
    subscription: Subscription | None = None

    @property
    def quota_msat(self) -> int:
        """What a plan pays."""
        return self.subscription.quota_left_msat if self.subscription else 0

    @property
    def most_msat(self) -> int:
        """What an order may cost at most."""
        return self.balance_msat + self.quota_msat

    def draw(self, author: str, ceiling_msat: int, now_s: int) -> tuple[int, Draw | None]:
        """What to set aside for an order: of the balance, and beside it."""
        quota = min(self.quota_msat, ceiling_msat)
        hold = min(self.balance_msat, ceiling_msat - quota)
        if self.payer == author and not quota:
            return hold, None
        name = self.subscription.id if self.subscription and quota else ""
        return hold, Draw(self.payer, now_s, self.grant_id, name, quota)


async def own_means(store: Store, author: str, plan: Subscription | None) -> Means:
    """What somebody has himself."""
    return Means(author, await _balance(store, author), subscription=plan)


async def granted_means(store: Store, author: str, owner: str, now_s: int) -> Means:
    """What somebody may spend of another's balance. Raises RemoteError `account-insufficient`."""
    rows = await store.read("allowance_get", owner=owner, child=author)
    left = allowance_of(rows[0]).left_msat(now_s) if rows else 0
    if not left:
        raise RemoteError("this account gives you nothing to spend", code="account-insufficient")
    balance = min(left, await _balance(store, owner))
    return Means(owner, balance, grant_id=str(rows[0]["grant_id"]))


async def any_means(store: Store, author: str, now_s: int) -> Means | None:
    """The largest allowance somebody was given, for a person who names no account."""
    found: Means | None = None
    for row in await store.read("allowances_of", pubkey=author):
        left = allowance_of(row).left_msat(now_s)
        if row["child"] == author and left:
            balance = min(left, await _balance(store, str(row["owner"])))
            if found is None or balance > found.balance_msat:
                found = Means(str(row["owner"]), balance, grant_id=str(row["grant_id"]))
    return found


async def _balance(store: Store, pubkey: str) -> int:
    rows = await store.read("account_get", pubkey=pubkey)
    return int(rows[0]["balance_msat"]) if rows else 0


def allowance_of(row: Row) -> Allowance:
    """A row of the table."""
    names = ("owner", "child", "limit_msat", "used_msat", "period_s", "period_at", "expires_at")
    return Allowance(**{name: row[name] for name in names})
