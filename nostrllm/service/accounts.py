"""Accounts with providers, who are named by npub, hex or name: what a client can do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from nostrllm.adapters.keys_sdk import parse_pubkey
from nostrllm.client.account import Accounts, Filling, PaidOut, Payout
from nostrllm.client.allowances import Allowances
from nostrllm.client.ask import Buyer
from nostrllm.client.discover import Offer
from nostrllm.client.exchange import Balance, Exchange
from nostrllm.client.plans import Changed, PlanPrice, Plans, Shelf
from nostrllm.client.world import World
from nostrllm.errors import LocalError, NostrllmError
from nostrllm.service.market import Market, provider_key
from nostrllm.wire.order import AllowanceState


def _any(_price: object) -> None:
    """Whatever it costs."""


class AccountBook:
    """`client.accounts`. Where money goes in, a name must be on our own list: anybody may bear it.

    Every verb raises LocalError `provider-unknown` for a provider who is not there; RemoteError
    with the provider's code when he refuses, nothing being taken; WorldError for silence, and
    then `client.resume` finds out.
    """

    def __init__(
        self,
        world: World,
        market: Market,
        buyer: Buyer,
        followed: Callable[[], Awaitable[list[str]]],
    ) -> None:
        exchange = Exchange(world, buyer)
        self._market = market
        self._followed = followed
        self._accounts = Accounts(world, buyer)
        self._allowances = Allowances(world, exchange)
        self._plans = Plans(world, exchange)

    async def balance(self, provider: str) -> Balance:
        """The account with a provider, as he signs it now."""
        return await self._accounts.balance(await self._market.offer(provider))

    async def key(self, provider: str) -> str:
        """Our key (hex) with this provider, which he alone sees: it owns the account, and is what
        the owner of another account allows to spend from it."""
        return self._accounts.key(await self._market.pubkey(provider))

    # in

    async def topup(self, provider: str, amount_sat: int) -> Balance:
        """Put coins from the wallet into the account."""
        return await self._accounts.top_up(await self._trusted(provider), amount_sat)

    async def fill(
        self,
        provider: str,
        amount_sat: int,
        show: Callable[[Filling], object],
        wait_s: float = 600.0,
    ) -> Balance | None:
        """Fill the account by Lightning: `show` gets the invoice; None if it is unpaid after
        `wait_s`, and then `client.resume` sees to it."""
        return await self._accounts.fill(await self._trusted(provider), amount_sat, show, wait_s)

    async def fillings(self) -> list[Filling]:
        """Invoices that fill accounts and are not known to be paid."""
        return await self._accounts.fillings()

    # out

    async def refund(self, provider: str) -> Balance:
        """Take the balance back into the wallet, in whole coins."""
        return await self._accounts.refund(await self._market.offer(provider))

    async def pay_out(
        self, provider: str, invoice: str, agree: Callable[[Payout], object] = _any
    ) -> PaidOut:
        """Have a Lightning invoice (BOLT 11, of an exact amount) paid from the account."""
        return await self._accounts.pay_out(await self._market.offer(provider), invoice, agree)

    # others

    async def allowances(self, provider: str) -> list[AllowanceState]:
        """Who may spend from our account, and from whose we may."""
        return await self._allowances.of(await self._market.offer(provider))

    async def allow(
        self,
        provider: str,
        key: str,
        limit_msat: int,
        *,
        period_s: int | None = None,
        expires_at: int | None = None,
    ) -> list[AllowanceState]:
        """Let a key (npub or hex) spend from our account; see `key` for which one it is."""
        offer = await self._trusted(provider)
        return await self._allowances.allow(
            offer, parse_pubkey(key), limit_msat, period_s=period_s, expires_at=expires_at
        )

    async def disallow(self, provider: str, key: str) -> list[AllowanceState]:
        """Take that back."""
        offer = await self._market.offer(provider)
        return await self._allowances.disallow(offer, parse_pubkey(key))

    # plans

    async def plans(self, provider: str | None = None) -> Sequence[Shelf]:
        """What a provider offers, or everybody who answers, and which plan is in force."""
        if provider is not None:
            return [await self._plans.shelf(await self._market.offer(provider))]
        offers = [one.offers[0] for one in await self._market.listings() if one.offers]
        found = await asyncio.gather(*(self._shelf(offer) for offer in offers))
        return [shelf for shelf in found if shelf is not None]

    async def _shelf(self, offer: Offer) -> Shelf | None:
        try:
            return await self._plans.shelf(offer)
        except NostrllmError:
            return None

    async def subscribe(
        self,
        provider: str,
        plan: str,
        *,
        renew: bool = False,
        agree: Callable[[PlanPrice], object] = _any,
    ) -> Changed:
        """Buy a plan from the balance; of the one in force, only say whether it is renewed."""
        offer = await self._trusted(provider)
        return await self._plans.subscribe(offer, plan, renew=renew, agree=agree)

    async def unsubscribe(
        self, provider: str, agree: Callable[[PlanPrice], object] = _any
    ) -> Changed:
        """End the plan now; what is not used of it comes back into the balance."""
        return await self._plans.unsubscribe(await self._market.offer(provider), agree)

    async def _trusted(self, provider: str) -> Offer:
        """An offer of a provider whom money may go to. Raises LocalError `provider-unknown`."""
        offer = await self._market.offer(provider)
        if (
            provider_key(provider) != offer.provider
            and offer.provider not in await self._followed()
        ):
            raise LocalError(
                "anybody may bear that name: use the provider's public key, or follow it first",
                code="provider-unknown",
            )
        return offer
