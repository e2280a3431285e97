"""One message to a provider and his answer to it, where that is no order: balances, top-ups, plans.

What moves money is written down before it is sent, and its answer before anything is done with it,
so that `resume` finishes what a crash or a silent provider leaves open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from nostrllm.client.ask import Buyer
from nostrllm.client.bargain import Bargain, Breach
from nostrllm.client.discover import Offer
from nostrllm.client.letters import EXPIRY_S, Line, letter, line_to, post, whisper
from nostrllm.client.payment import paid_with
from nostrllm.client.purchases import Ending, Purchase
from nostrllm.client.replies import Listening, Replies, listen
from nostrllm.client.settle import refusal
from nostrllm.client.world import World
from nostrllm.errors import NostrllmError, RelayError, RemoteError, WorldError
from nostrllm.ports import Signer
from nostrllm.wire.message import Wire
from nostrllm.wire.order import Answer, Refused, ReplyTo
from nostrllm.wire.token import Token

WAIT_S: Final = 20.0
#: What an answer says of an invoice that is still to be paid.
WAITING: Final = "waiting"


@dataclass(frozen=True, slots=True)
class Balance:
    """An account as the provider signed it; amounts in msat.

    `breaches` names each way in which that, or what came with it, is not what was agreed.
    """

    provider: str
    balance_msat: int
    seq: int
    breaches: tuple[Breach, ...] = ()


@dataclass(frozen=True, slots=True)
class Errand:
    """A message that moves money, and what is known of it: `coins` that go with it, and further
    fields of its Bargain.

    `told` is handed an answer that is not the last one, an invoice; the last one is then waited for
    `patience_s`.
    """

    message: Callable[[ReplyTo], Wire]
    coins: Token | None = None
    known: dict[str, Any] | None = None
    told: Callable[[Purchase, Answer], Awaitable[Purchase]] | None = None
    patience_s: float = WAIT_S


class Exchange:
    """Sends and hears."""

    def __init__(self, world: World, buyer: Buyer) -> None:
        self._world = world
        self.buyer = buyer

    async def ask(self, offer: Offer, message: Callable[[ReplyTo], Wire]) -> Answer:
        """Ask what moves no money. Raises RemoteError for a refusal, WorldError for silence."""
        line = line_to(self._world, offer)
        signer = self._world.square.keyring.signer()
        async with listen(self._world.square, self._listening(signer, offer)) as replies:
            asked = await whisper(self._world.square, line, message(self._reply_to(signer)))
            answer = await _answer(replies, asked.id, WAIT_S)
        if answer.problem is not None:
            raise refusal(answer.problem)
        return answer

    async def carry_out(
        self, offer: Offer, purchase: Purchase, errand: Errand
    ) -> tuple[Answer, Ending] | None:
        """Send a message that moves money, and settle its answer; None while it still waits.

        Raises RemoteError for a refusal, the coins being back; WorldError for silence.
        """
        world, line = self._world, line_to(self._world, offer)
        signer = world.reply(purchase.n)
        message = errand.message(self._reply_to(signer))
        async with listen(world.square, self._listening(signer, offer)) as replies:
            try:
                whole = letter(world.square, line, message)
                bargain = await self._bargain(line, offer, purchase, errand)
                purchase = await self.buyer.purchases.sent(purchase, whole.id, bargain)
                await post(world.square, line, whole, bargain.deadline + EXPIRY_S)
            except RelayError as error:
                raise await self.buyer.settler.unsure(purchase, error) from error
            except NostrllmError as error:
                await self.buyer.settler.give_up(purchase, error.code, definite=True)
                raise
            try:
                answer = await _answer(replies, whole.id, WAIT_S)
                if errand.told is not None and answer.state == WAITING:
                    purchase = await errand.told(purchase, answer)
                    later = await _later(replies, whole.id, errand.patience_s)
                    if later is None:
                        return None
                    answer = later
            except WorldError as error:
                await self.buyer.settler.give_up(purchase, error.code)
                raise
        if answer.problem is not None:
            refused = refusal(answer.problem)
            await self.buyer.settler.give_up(purchase, refused.code, definite=True)
            raise refused
        _, ending = await self.buyer.settler.settle(purchase, answer)
        return answer, ending

    async def _bargain(
        self, line: Line, offer: Offer, purchase: Purchase, errand: Errand
    ) -> Bargain:
        square, coins = self._world.square, errand.coins
        known = await self.buyer.settler.statements.known(offer.provider)
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
            known_at=known.at,
            deadline=square.now_s() + int(WAIT_S),
        )
        bargain = bargain.model_copy(update=errand.known or {})
        return bargain if coins is None else await paid_with(self._world, bargain, coins)

    def _reply_to(self, signer: Signer) -> ReplyTo:
        return ReplyTo(key=signer.pubkey, relays=list(self._world.square.reply_relays))

    def _listening(self, signer: Signer, offer: Offer) -> Listening:
        return Listening(signer, offer.provider, self._world.square.reply_relays)


async def _answer(replies: Replies, to: str, wait_s: float, *, beyond: str = "") -> Answer:
    """The first answer to a message whose state is not `beyond`. Raises WorldError for silence."""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                message = await replies.next()
                if isinstance(message, Refused) and message.order == to:
                    return Answer(to=to, problem=message.problem)
                if not isinstance(message, Answer) or message.to != to:
                    continue
                if not beyond or message.state != beyond:
                    return message
    except TimeoutError:
        raise WorldError("the provider does not answer", code="provider-silent") from None


async def _later(replies: Replies, to: str, wait_s: float) -> Answer | None:
    """The answer after the one that waits; None if it does not come in time."""
    try:
        return await _answer(replies, to, wait_s, beyond=WAITING)
    except WorldError:
        return None


def told(provider: str, ending: Ending) -> Balance:
    """The account after money moved. Raises RemoteError when no statement can be believed."""
    if ending.statement is None:
        raise RemoteError("the provider broke the bargain: " + ", ".join(ending.breaches))
    statement = ending.statement[1]
    return Balance(provider, statement.balance_msat, statement.seq, tuple(ending.breaches))
