"""The user's ecash: a few verbs over the purse, each of which ends well or raises."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nostrllm.client.locked import promised_units
from nostrllm.client.payment import RECEIVED, chosen_mints
from nostrllm.client.purchases import Purchase, Purchases
from nostrllm.client.world import World
from nostrllm.core.money import UNIT_MSAT
from nostrllm.errors import ConfigError, RemoteError, WorldError
from nostrllm.ports import MintQuote, Row, Write
from nostrllm.purse import Plan
from nostrllm.purse.operation import Outcome
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.order import Result
from nostrllm.wire.token import encode_token, parse_token

#: BOLT 11: bech32, in capitals or not.
_INVOICE: Final = re.compile(r"[a-z0-9]+|[A-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Coins:
    """What came in: `amount` units, the mint's `fee` being taken off already."""

    mint: str
    unit: str
    amount: int
    fee: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A token to give away, and the name to take it back by."""

    name: str
    mint: str
    unit: str
    amount: int
    token: str


@dataclass(frozen=True, slots=True)
class Price:
    """What paying an invoice costs: `amount` units, and `fee_max` on top at most."""

    mint: str
    unit: str
    amount: int
    fee_max: int


@dataclass(frozen=True, slots=True)
class Paid:
    """An invoice that was paid, under the name that finds it again; `fee` is what came on top.

    `preimage` proves the payment to whoever has the invoice; "" if the mint does not tell it, or
    another one.
    """

    name: str
    mint: str
    unit: str
    amount: int
    fee: int
    preimage: str = ""


def _agreed(_price: Price) -> None:
    """Any price will do."""


@dataclass(frozen=True, slots=True)
class LockedCoins:
    """Coins that only a provider can take until a time (unix seconds, the mint's clock).

    `name` is the operation that sent them. What nobody has taken by then comes back by itself.
    """

    name: str
    mint: str
    unit: str
    amount: int
    until: int


class Wallet:
    """Coins at any number of mints; `mint` None means the one that `preferred_mint` names."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._purse = world.purse

    async def preferred_mint(self) -> str:
        """The mint to fund at and send from: the chosen one, else where most of the money is.

        Only mints that the user chose before: coins that a provider sent choose none. Raises
        ConfigError when there is none.
        """
        if self._world.mint is not None:
            return self._world.mint
        chosen = await chosen_mints(self._world)
        held = {pot: units for pot, units in (await self.balance()).items() if pot[0] in chosen}
        if not held:
            raise ConfigError("name a mint you trust: --mint URL")
        return max(held, key=lambda pot: held[pot] * UNIT_MSAT.get(pot[1], 0))[0]

    async def balance(self) -> Mapping[tuple[str, str], int]:
        """(mint, unit) → units that can be spent."""
        return await self._purse.balance()

    async def locked(self) -> list[LockedCoins]:
        """What is locked to providers and still ours, by when it comes back.

        Of coins that paid for an answer that is their change.
        """
        owed = {one.token_op: _left(one) for one in await Purchases(self._world).owed()}
        found = [
            LockedCoins(name, lock.mint, lock.unit, owed.get(name, lock.amount), lock.locktime)
            for name, lock in (await self._purse.locked()).items()
        ]
        ours = [coins for coins in found if coins.amount]
        return sorted(ours, key=lambda coins: (coins.until, coins.name))

    async def fund(self, amount: int, unit: str = "sat", *, mint: str | None = None) -> MintQuote:
        """A Lightning invoice (`request`) whose payment brings `amount` units; then `claim` it.

        Raises MintRefused, OutcomeUnknown; RemoteError for what is no invoice.
        """
        quote = await self._purse.fund(mint or await self.preferred_mint(), amount, unit)
        if not _INVOICE.fullmatch(quote.request):  # it goes to a terminal, and to whoever pays
            raise RemoteError("the mint's invoice is none")
        return quote

    async def claim(self, quote: str, *, wait_s: float = 0.0) -> Coins | None:
        """The coins of an invoice, waiting up to `wait_s` for its payment; None while unpaid.

        Raises LocalError `not-found`; WorldError when they were issued before.
        """
        outcome = await self._purse.claim_quote(quote, wait_s=wait_s)
        if outcome.state == "PREPARED" and outcome.code == "payment-pending":
            return None
        return _coins(outcome)

    async def send(
        self, amount: int, unit: str = "sat", *, mint: str | None = None, name: str | None = None
    ) -> Sent:
        """A token of `amount` units: whoever has it has the money. The mint's fee comes on top.

        `name` (see `new_name`) finds it again: the same one gives the same token, and `reclaim`
        takes it back. Raises LocalError `wallet-empty`, OutcomeUnknown while the mint is silent.
        """
        name = name or self.new_name()
        token = await self._purse.send(name, mint or await self.preferred_mint(), unit, amount)
        return Sent(name, token.mint, token.unit, token.amount, encode_token(token))

    @staticmethod
    def new_name() -> str:
        """A name for a token, to be known before it is made."""
        return f"wallet:{secrets.token_hex(8)}"

    async def receive(self, token: str) -> Coins:
        """Take in a token (NUT-00 text); locked coins too, if those whose they are signed them.

        Raises RemoteError for one that is none, or was taken before; WorldError while the mint is
        silent, when the same call finishes it later.
        """
        parsed = parse_token(token)
        name = f"{RECEIVED}{hashlib.sha256(token.encode()).hexdigest()[:32]}"
        if await self._purse.state_of(name) == "DONE":
            raise RemoteError("this token was received before", code="payment-token-spent")
        signed = {proof.secret: proof.witness for proof in parsed.proofs}
        return _coins(await self._purse.receive(name, parsed, unlock=signed.get))

    async def reclaim(self, name: str) -> Coins:
        """Take back a token that `send` made under this name and nobody took.

        Raises RemoteError `payment-token-spent`, LocalError `not-found`, WorldError.
        """
        return _coins(await self._purse.reclaim(name))

    async def pay(
        self,
        invoice: str,
        *,
        mint: str | None = None,
        name: str | None = None,
        agree: Callable[[Price], None] = _agreed,
    ) -> Paid:
        """Have a mint pay a Lightning invoice (BOLT 11, with an amount) with sat coins.

        `agree` is told the price before anything is set aside, and may raise. The same name never
        pays twice: it gives what became of the first time. Raises RemoteError
        `payment-invoice-invalid`, LocalError `wallet-empty`; WorldError when it was not paid, and
        while the mint does not say, when `resume` finishes it.
        """
        name, preimage = name or self.new_name(), ""
        begun = await self._purse.knows(name)
        if not begun:
            mint = mint or await self.preferred_mint()
            quote = await self._purse.quote_melt(mint, "sat", invoice)

            def beside(plan: Plan) -> Sequence[Write]:
                agree(Price(plan.mint, plan.unit, plan.amount, plan.fee))
                return ()

            await self._purse.place_melt(name, mint, quote, beside)
        outcome = await self._purse.run(name)
        if outcome.state != "DONE":
            pending = outcome.state == "PREPARED"
            said = "the mint has not said yet" if pending else "the invoice was not paid"
            raise WorldError(said, code=outcome.code or "payment-pending")
        if not begun:
            with contextlib.suppress(WorldError):  # it is paid, with or without this
                paid = await self._world.mints.at(outcome.mint).melt_quote(quote.quote)
                preimage = _proven(paid.preimage, invoice)
        return Paid(name, outcome.mint, outcome.unit, outcome.amount, outcome.fee, preimage)

    async def history(self, count: int = 20) -> list[Row]:
        """The last operations, newest first: id, kind, mint, unit, state, amount, fee, times."""
        return await self._purse.history(count)

    async def scan(self, *, mint: str | None = None, unit: str = "sat") -> int:
        """Units found at a mint by the seed alone: after a loss of the database."""
        return await self._purse.scan(mint or await self.preferred_mint(), unit)

    async def resume(self) -> None:
        """Finish what a crash or a silent mint left open, and claim invoices paid meanwhile."""
        for name, kind in await self._purse.pending():
            if kind != "ladder":  # an order's, which is finished with the order
                await self._purse.run(name)
        for quote in await self._purse.quotes():
            with contextlib.suppress(WorldError):
                await self._purse.claim_quote(str(quote["id"]))


def _left(purchase: Purchase) -> int:
    """What of an order's locked coins is ours after its result, in units."""
    bargain, result = purchase.bargain, purchase.reply
    if bargain is None or not isinstance(result, Result):
        return 0
    return promised_units(bargain, result)


def _proven(preimage: str, invoice: str) -> str:
    """The preimage if it is that of the invoice (32 bytes, in hex), else ""."""
    try:
        digest = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
    except ValueError:
        return ""
    return preimage if digest == parse_invoice(invoice).payment_hash else ""


def _coins(outcome: Outcome) -> Coins:
    """What an operation brought. Raises WorldError when it is not ours, or not yet."""
    if outcome.state != "DONE":
        pending = outcome.state == "PREPARED"
        what = "the mint has not said yet; try again" if pending else "the mint refused it"
        raise WorldError(what, code=outcome.code or "payment-pending")
    return Coins(outcome.mint, outcome.unit, outcome.net, outcome.fee)
