"""The account that a client's pseudonym has with a provider: balance, top-up, refund.

Every reply carries a statement that the provider signed; the one with the highest number is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nostrllm.client.ask import Buyer
from nostrllm.client.discover import Offer
from nostrllm.client.exchange import Balance, Errand, Exchange, told
from nostrllm.client.letters import line_to
from nostrllm.client.purchases import Purchase, Purchases
from nostrllm.client.world import World
from nostrllm.core.money import MSAT_PER_SAT
from nostrllm.core.plan import FULL
from nostrllm.errors import LocalError, NostrllmError, RemoteError
from nostrllm.wire.invoice import Invoice, parse_invoice
from nostrllm.wire.order import Answer, Query, Refund, TopUp
from nostrllm.wire.token import encode_token

__all__ = ["Accounts", "Balance", "Filling", "PaidOut", "Payout"]

#: What a Lightning payment may cost on top of its invoice before the provider is not believed, and
#: a twentieth of the invoice beside.
LIGHTNING_FEE_MSAT: Final = 10_000
#: Providers take an invoice while it is good for so long.
LEFT_S_MIN: Final = 600


@dataclass(frozen=True, slots=True)
class Filling:
    """A Lightning invoice that fills the account with `amount_msat`, if it is paid by `until`
    (unix seconds). Nothing comes off for the provider or his mint."""

    provider: str
    amount_msat: int
    invoice: str
    until: int


@dataclass(frozen=True, slots=True)
class Payout:
    """What paying an invoice from an account takes off it: `amount_msat`, and the mint's fee for
    it; a provider who takes more than `fee_max_msat` is not believed."""

    provider: str
    amount_msat: int
    fee_max_msat: int


@dataclass(frozen=True, slots=True)
class PaidOut:
    """An invoice that was paid: it took `paid_msat` off the account, `fee_msat` of that on top."""

    balance: Balance
    paid_msat: int
    fee_msat: int


def _agreed(_payout: Payout) -> None:
    """Any price will do."""


class Accounts:
    """Accounts with providers."""

    def __init__(self, world: World, buyer: Buyer) -> None:
        self._world = world
        self._buyer = buyer
        self._exchange = Exchange(world, buyer)

    def key(self, provider: str) -> str:
        """The key (hex) that owns our account with a provider, and that another may allow."""
        return self._world.buyer(provider).pubkey

    async def balance(self, offer: Offer) -> Balance:
        """Ask the provider. Raises RemoteError for an unsigned answer, WorldError for silence."""
        line = line_to(self._world, offer)
        statements = self._buyer.settler.statements
        since = await statements.known(offer.provider)
        shown = json.loads(since.event) if since.event else None
        answer = await self._exchange.ask(
            offer, lambda reply: Query(reply=reply, what="balance", statement=shown)
        )
        proved = await statements.proved(offer.provider, line.buyer.pubkey, answer.statement, since)
        found = await statements.lowered(since, proved, offer.provider)
        await self._world.store.commit(*Purchases.statement(offer.provider, proved))
        statement = proved[1]
        return Balance(offer.provider, statement.balance_msat, statement.seq, tuple(found))

    # in

    async def top_up(self, offer: Offer, amount_sat: int, *, pays: str = "") -> Balance:
        """Put coins into the account; the user's own mint is preferred. Raises as `ask` does.

        `pays`: the order whose cost this is.
        """
        mint = await self._mint(offer, amount_sat)
        async with self._buyer.begin("topup", offer.provider, pays) as purchase:
            try:
                coins = await self._world.purse.send(purchase.token_op, mint, "sat", amount_sat)
            except NostrllmError as error:
                await self._buyer.settler.give_up(purchase, error.code, definite=True)
                raise
            text = encode_token(coins)
            errand = Errand(lambda reply: TopUp(reply=reply, token=text), coins)
            return await self._told(offer, purchase, errand)

    async def _mint(self, offer: Offer, amount_sat: int) -> str:
        """A mint the provider accepts where the wallet holds so much."""
        coins = offer.coins.values()
        fill = {one.mint for one in coins if one.unit == "sat" and one.percent <= FULL}
        held = {
            mint: units
            for (mint, unit), units in (await self._world.purse.balance()).items()
            if unit == "sat" and mint in fill and units >= amount_sat
        }
        if not held:
            raise LocalError("the wallet has not enough coins he accepts", code="wallet-empty")
        return max(held, key=lambda mint: (mint == self._world.mint, held[mint]))

    async def fill(
        self, offer: Offer, amount_sat: int, show: Callable[[Filling], object], wait_s: float
    ) -> Balance | None:
        """Fill the account by Lightning: `show` is handed the invoice, which is on disk by then.

        Waits up to `wait_s` for its payment; None if that has not come, and then `resume` sees to
        it. Raises RemoteError for a refusal and for an invoice of another amount.
        """
        msat = amount_sat * MSAT_PER_SAT

        async def shown(purchase: Purchase, answer: Answer) -> Purchase:
            purchase = await self.invoiced(purchase, answer)
            filling = Filling(offer.provider, msat, purchase.to_pay, purchase.to_pay_by)
            show(filling)
            return purchase

        async with self._buyer.begin("topup", offer.provider) as purchase:
            errand = Errand(
                lambda reply: TopUp(reply=reply, lightning_msat=msat),
                known={"paid_msat": msat, "fee_msat": 0},
                told=shown,
                patience_s=wait_s,
            )
            done = await self._exchange.carry_out(offer, purchase, errand)
        return None if done is None else told(offer.provider, done[1])

    async def invoiced(self, purchase: Purchase, answer: Answer) -> Purchase:
        """Keep the invoice that an answer brings. Raises RemoteError when it is not as asked."""
        bargain, text = purchase.bargain, answer.invoice or ""
        try:
            invoice = parse_invoice(text)
            if bargain is None or invoice.amount_msat != bargain.paid_msat:
                raise RemoteError(
                    "the provider's invoice is of another amount", code="payment-invoice-invalid"
                )
        except RemoteError as error:
            await self._buyer.settler.give_up(purchase, error.code, definite=True)
            raise
        until = min(invoice.expires_at, answer.expires_at or invoice.expires_at)
        return await self._buyer.purchases.invoiced(purchase, invoice.text, until)

    async def fillings(self) -> list[Filling]:
        """The invoices that fill accounts and are not known to be paid, oldest first."""
        return [
            Filling(one.provider, one.bargain.paid_msat, one.to_pay, one.to_pay_by)
            for one in await self._buyer.purchases.to_pay()
            if one.bargain is not None
        ]

    # out

    async def refund(self, offer: Offer) -> Balance:
        """Take the account's whole coins back into the wallet, at mints the user chose.

        Coins of another mint stay with the purchase until the user has chosen that one too, and
        `resume` takes them. Raises as `ask` does.
        """
        async with self._buyer.begin("refund", offer.provider) as purchase:
            return await self._told(offer, purchase, Errand(lambda reply: Refund(reply=reply)))

    async def pay_out(
        self, offer: Offer, text: str, agree: Callable[[Payout], object] = _agreed
    ) -> PaidOut:
        """Have the provider pay a Lightning invoice from the account.

        `agree` is told what that takes before anything is sent, and may raise. Raises RemoteError
        `payment-invoice-invalid`, `account-insufficient`, `payment-lightning-failed`; WorldError
        while it is not known how it ended, when `resume` finds out.
        """
        invoice = payable(text, self._world.square.now_s())
        msat = invoice.amount_msat or 0
        payout = Payout(offer.provider, msat, LIGHTNING_FEE_MSAT + msat // 20)
        agree(payout)
        async with self._buyer.begin("refund", offer.provider) as purchase:
            errand = Errand(
                lambda reply: Refund(reply=reply, invoice=invoice.text),
                known={"invoice": invoice.text, "ceiling_msat": msat + payout.fee_max_msat},
            )
            done = await self._exchange.carry_out(offer, purchase, errand)
        assert done is not None
        answer, ending = done
        paid = answer.paid_msat or 0
        return PaidOut(told(offer.provider, ending), paid, max(0, paid - msat))

    async def _told(self, offer: Offer, purchase: Purchase, errand: Errand) -> Balance:
        done = await self._exchange.carry_out(offer, purchase, errand)
        assert done is not None
        return told(offer.provider, done[1])


def payable(text: str, now_s: int) -> Invoice:
    """An invoice that a provider can pay. Raises RemoteError `payment-invoice-invalid`."""
    invoice = parse_invoice(text.strip().removeprefix("lightning:"))
    if invoice.amount_msat is None:
        raise RemoteError("the invoice has no amount", code="payment-invoice-invalid")
    if invoice.expires_at < now_s + LEFT_S_MIN:
        raise RemoteError(
            f"the invoice must be good for {LEFT_S_MIN // 60} more minutes",
            code="payment-invoice-invalid",
        )
    return invoice
