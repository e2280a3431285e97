"""The account that a client's pseudonym has with a provider: balance, top-up, refund.

Every reply carries a statement that the provider signed; the one with the highest number is kept.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Final

from nostrllm.client.ask import Buyer, line_to
from nostrllm.client.bargain import Bargain, Breach
from nostrllm.client.discover import Offer
from nostrllm.client.letters import EXPIRY_S, Line, letter, post, whisper
from nostrllm.client.payment import paid_with
from nostrllm.client.purchases import Ending, Purchase, Purchases
from nostrllm.client.replies import Listening, Replies, listen
from nostrllm.client.settle import refusal
from nostrllm.client.world import World
from nostrllm.errors import LocalError, NostrllmError, RelayError, RemoteError, WorldError
from nostrllm.ports import Signer
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Answer, Query, Refund, Refused, ReplyTo, TopUp
from nostrllm.wire.token import Token, encode_token

WAIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Balance:
    """An account as the provider signed it; amounts in msat.

    `breaches` names each way in which that, or what came with it, is not what was agreed.
    """

    provider: str
    balance_msat: int
    seq: int
    breaches: tuple[Breach, ...] = ()


class Accounts:
    """Accounts with providers."""

    def __init__(self, world: World, buyer: Buyer) -> None:
        self._world = world
        self._buyer = buyer

    async def balance(self, offer: Offer) -> Balance:
        """Ask the provider. Raises RemoteError for an unsigned answer, WorldError for silence."""
        line = line_to(self._world, offer)
        signer = self._world.square.keyring.signer()
        statements = self._buyer.settler.statements
        since = await statements.known(offer.provider)
        async with listen(self._world.square, self._listening(signer, offer)) as replies:
            shown = json.loads(since.event) if since.event else None
            query = Query(reply=self._reply_to(signer), what="balance", statement=shown)
            asked = await whisper(self._world.square, line, query)
            answer = await self._answer(replies, asked.id)
        if answer.problem is not None:
            raise refusal(answer.problem)
        proved = await statements.proved(offer.provider, line.buyer.pubkey, answer.statement, since)
        found = await statements.lowered(since, proved, offer.provider)
        await self._world.store.commit(*Purchases.statement(offer.provider, proved))
        statement = proved[1]
        return Balance(offer.provider, statement.balance_msat, statement.seq, tuple(found))

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
            signer = self._world.reply(purchase.n)
            message = TopUp(reply=self._reply_to(signer), token=encode_token(coins))
            return await self._transact(offer, purchase, message, coins)

    async def _mint(self, offer: Offer, amount_sat: int) -> str:
        """A mint the provider accepts where the wallet holds so much."""
        held = {
            mint: units
            for (mint, unit), units in (await self._world.purse.balance()).items()
            if unit == "sat" and mint in offer.announcement.mints and units >= amount_sat
        }
        if not held:
            raise LocalError("the wallet has not enough coins he accepts", code="wallet-empty")
        return max(held, key=lambda mint: (mint == self._world.mint, held[mint]))

    async def refund(self, offer: Offer) -> Balance:
        """Take the account's whole coins back into the wallet, at mints the user chose.

        Coins of another mint stay with the purchase until the user has chosen that one too, and
        `resume` takes them. Raises as `ask` does.
        """
        async with self._buyer.begin("refund", offer.provider) as purchase:
            signer = self._world.reply(purchase.n)
            message = Refund(reply=self._reply_to(signer))
            return await self._transact(offer, purchase, message, None)

    async def _transact(
        self, offer: Offer, purchase: Purchase, message: Wire, coins: Token | None
    ) -> Balance:
        """Send a message that moves money, and settle its answer."""
        world, line = self._world, line_to(self._world, offer)
        signer = world.reply(purchase.n)
        async with listen(world.square, self._listening(signer, offer)) as replies:
            try:
                whole = letter(world.square, line, message)
                bargain = await self._bargain(line, offer, purchase, coins)
                purchase = await self._buyer.purchases.sent(purchase, whole.id, bargain)
                await post(world.square, line, whole, bargain.deadline + EXPIRY_S)
            except RelayError as error:
                raise await self._buyer.settler.unsure(purchase, error) from error
            except NostrllmError as error:
                await self._buyer.settler.give_up(purchase, error.code, definite=True)
                raise
            try:
                answer = await self._answer(replies, whole.id)
            except WorldError as error:
                await self._buyer.settler.give_up(purchase, error.code)
                raise
        if answer.problem is not None:
            refused = refusal(answer.problem)
            await self._buyer.settler.give_up(purchase, refused.code, definite=True)
            raise refused
        _, ending = await self._buyer.settler.settle(purchase, answer)
        return _told(offer.provider, ending)

    async def _bargain(
        self, line: Line, offer: Offer, purchase: Purchase, coins: Token | None
    ) -> Bargain:
        square = self._world.square
        known = await self._buyer.settler.statements.known(offer.provider)
        bargain = Bargain(
            what=purchase.what,
            provider=offer.provider,
            d=offer.announcement.d,
            relays=line.relays,
            reply_relays=square.reply_relays,
            buyer=line.buyer.pubkey,
            pay="none" if coins is None else "token",
            mint="" if coins is None else coins.mint,
            mints=offer.announcement.mints,
            unit="sat" if coins is None else coins.unit,
            seq=known.seq,
            balance_msat=known.balance_msat,
            deadline=square.now_s() + int(WAIT_S),
        )
        return bargain if coins is None else await paid_with(self._world, bargain, coins)

    async def _answer(self, replies: Replies, to: str) -> Answer:
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    message = await replies.next()
                    if isinstance(message, Answer) and message.to == to:
                        return message
                    if isinstance(message, Refused) and message.order == to:
                        return Answer(to=to, problem=message.problem)
        except TimeoutError:
            raise WorldError("the provider does not answer", code="provider-silent") from None

    def _reply_to(self, signer: Signer) -> ReplyTo:
        return ReplyTo(key=signer.pubkey, relays=list(self._world.square.reply_relays))

    def _listening(self, signer: Signer, offer: Offer) -> Listening:
        return Listening(signer, offer.provider, self._world.square.reply_relays)


def _told(provider: str, ending: Ending) -> Balance:
    """The account after money moved. Raises RemoteError when no statement can be believed."""
    if ending.statement is None:
        raise RemoteError("the provider broke the bargain: " + ", ".join(ending.breaches))
    statement = ending.statement[1]
    return Balance(provider, statement.balance_msat, statement.seq, tuple(ending.breaches))
