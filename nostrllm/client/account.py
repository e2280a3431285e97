"""The account that a client's pseudonym has with a provider: balance, top-up, refund.

Every reply carries a statement that the provider signed; the one with the highest number is kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from nostrllm.client.ask import Buyer, line_to
from nostrllm.client.bargain import Bargain, account_statement
from nostrllm.client.discover import Offer
from nostrllm.client.letters import EXPIRY_S, Line, letter, post, whisper
from nostrllm.client.purchases import Purchase, Purchases
from nostrllm.client.replies import Listening, Replies, listen
from nostrllm.client.settle import refusal
from nostrllm.client.world import World
from nostrllm.core.money import unit_msat
from nostrllm.errors import LocalError, NostrllmError, RemoteError, WorldError
from nostrllm.ports import Signer
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Answer, Query, Refund, Refused, ReplyTo, TopUp
from nostrllm.wire.token import Token, encode_token, normal_url

WAIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Balance:
    """An account as the provider signed it; amounts in msat."""

    provider: str
    balance_msat: int
    seq: int


class Accounts:
    """Accounts with providers."""

    def __init__(self, world: World, buyer: Buyer) -> None:
        self._world = world
        self._buyer = buyer

    async def balance(self, offer: Offer) -> Balance:
        """Ask the provider. Raises RemoteError for an unsigned answer, WorldError for silence."""
        line = line_to(self._world, offer)
        signer = self._world.square.keyring.signer()
        async with listen(self._world.square, self._listening(signer, offer)) as replies:
            query = Query(reply=self._reply_to(signer), what="balance")
            asked = await whisper(self._world.square, line, query)
            answer = await self._answer(replies, asked.id)
        if answer.problem is not None:
            raise refusal(answer.problem)
        return await self._keep(line, answer)

    async def top_up(self, offer: Offer, token: tuple[str, str, int]) -> Balance:
        """Put coins, as (mint, unit, amount), into the account. Raises as `ask` does."""
        mint, unit, amount = token
        if mint not in {normal_url(url) for url in offer.announcement.mints}:
            raise LocalError("that mint is not accepted there", code="payment-mint-unaccepted")
        purchase = await self._buyer.purchases.reserve("topup", offer.provider)
        try:
            coins = await self._world.purse.send(purchase.token_op, mint, unit, amount)
        except NostrllmError as error:
            await self._buyer.settler.give_up(purchase, error.code, definite=True)
            raise
        signer = self._world.reply(purchase.n)
        message = TopUp(reply=self._reply_to(signer), token=encode_token(coins))
        return await self._transact(offer, purchase, message, coins)

    async def refund(self, offer: Offer) -> Balance:
        """Take the account's whole coins back into the wallet. Raises as `ask` does."""
        purchase = await self._buyer.purchases.reserve("refund", offer.provider)
        signer = self._world.reply(purchase.n)
        return await self._transact(offer, purchase, Refund(reply=self._reply_to(signer)), None)

    async def _transact(
        self, offer: Offer, purchase: Purchase, message: Wire, coins: Token | None
    ) -> Balance:
        """Send a message that moves money, and settle its answer."""
        world, line = self._world, line_to(self._world, offer)
        signer = world.reply(purchase.n)
        async with listen(world.square, self._listening(signer, offer)) as replies:
            try:
                whole = letter(world.square, line, message)
                bargain = self._bargain(offer, purchase, coins)
                purchase = await self._buyer.purchases.sent(purchase, whole.id, bargain)
                await post(world.square, line, whole, bargain.deadline + EXPIRY_S)
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
        await self._buyer.settler.settle(purchase, answer)
        return await self._keep(line, answer)

    def _bargain(self, offer: Offer, purchase: Purchase, coins: Token | None) -> Bargain:
        square = self._world.square
        return Bargain(
            what=purchase.what,
            provider=offer.provider,
            d=offer.announcement.d,
            relays=offer.announcement.relays,
            reply_relays=square.reply_relays,
            buyer=self._world.buyer(offer.provider).pubkey,
            pay="none" if coins is None else "token",
            mint="" if coins is None else coins.mint,
            mints=offer.announcement.mints,
            unit="sat" if coins is None else coins.unit,
            paid_msat=0 if coins is None else coins.amount * unit_msat(coins.unit),
            deadline=square.now_s() + int(WAIT_S),
        )

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

    async def _keep(self, line: Line, answer: Answer) -> Balance:
        """The account as the answer's statement proves it. Raises RemoteError."""
        event, statement = account_statement(line.provider, line.buyer.pubkey, answer.statement)
        if not self._world.square.keyring.verify(event):
            raise RemoteError("the account statement is not signed by the provider")
        writes = Purchases.statement(line.provider, (event, statement))
        await self._world.store.commit(*writes)
        return Balance(line.provider, statement.balance_msat, statement.seq)

    def _reply_to(self, signer: Signer) -> ReplyTo:
        return ReplyTo(key=signer.pubkey, relays=list(self._world.square.reply_relays))

    def _listening(self, signer: Signer, offer: Offer) -> Listening:
        return Listening(signer, offer.provider, self._world.square.reply_relays)
