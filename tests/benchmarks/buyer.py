"""A program that buys: one order over relays, timed at the points a user notices."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from nostrllm.core.stream import unpad
from nostrllm.errors import WorldError
from nostrllm.wire import order as wire
from tests.benchmarks.stage import Stage
from tests.roles.market import CLOCK, Buyer, Replies, question

CEILING_MSAT = 60_000
TOKEN_SAT = 64


@dataclass(frozen=True, slots=True)
class Bought:
    """One answer: when its first piece and its result were there, and in how many events it came.

    Of the stream; it is none when nobody wanted one.

    Seconds count from the moment the wrapped order was handed to the relay connection.
    """

    first_s: float
    result_s: float
    chunks: int


@dataclass(frozen=True, slots=True)
class Shopper:
    """A buyer at one stage, who has looked up the price."""

    buyer: Buyer
    stage: Stage
    price: str
    chunk_ms: int | None = 250

    async def top_up(self, amount: int) -> None:
        """Put so many sat into the account."""
        async with self.buyer.listening() as replies:
            token = await self.buyer.token(amount)
            top_up = wire.TopUp(reply=self._reply(replies), token=token)
            await self.buyer.send(self.buyer.message(top_up), self.stage.provider_pubkey)
            answer = await replies.next()
            if not isinstance(answer, wire.Answer) or answer.problem is not None:
                raise WorldError("the provider did not take the top-up")

    async def buy(self, token: str | None = None) -> Bought:
        """One order, paid by a token or else from the account; not acknowledged, as our client
        does where a relay confirms what it takes."""
        payment = wire.TokenPayment(token=token) if token else wire.AccountPayment()
        async with self.buyer.listening() as replies:
            order = wire.Order(
                reply=self._reply(replies),
                model="model",
                body=question("What is the capital of France?"),
                price=self.price,
                ceiling_msat=CEILING_MSAT,
                payment=payment,
                deadline=int(CLOCK.now()) + 120,
                c="ab" * 32,
                chunk_ms=self.chunk_ms,
            )
            letter = self.buyer.message(order)
            wrap = await self.buyer.me.wrap(letter, self.stage.provider_pubkey)
            began = time.perf_counter()
            stream = _Stream(replies)
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(stream.read())
                await self.buyer.relays.publish(wrap)
                await _result(replies)
                ended = time.perf_counter()
                reading.cancel()
        return Bought((stream.first or ended) - began, ended - began, stream.events)

    def _reply(self, replies: Replies) -> wire.ReplyTo:
        return wire.ReplyTo(key=replies.key.pubkey, relays=[self.stage.relay.url])


async def _result(replies: Replies) -> wire.Result:
    """The result. Raises WorldError when the order was refused or failed."""
    while True:
        message = await replies.next()
        if isinstance(message, wire.Refused):
            raise WorldError(f"the order was refused: {message.problem.code}")
        if isinstance(message, wire.Result):
            if message.problem is not None:
                raise WorldError(f"the order failed: {message.problem.code}")
            return message


@dataclass(slots=True)
class _Stream:
    """The stream as it comes: when its first piece was there, and of how many events it was.

    A relay may lose an event of it, so nobody waits for its end.
    """

    replies: Replies
    first: float | None = None
    events: int = 0

    async def read(self) -> None:
        """Until cancelled."""
        async for event in self.replies.chunks:
            text = await self.replies.key.decrypt(event.content, event.pubkey)
            wire.parse_chunk(unpad(text))
            self.first = self.first or time.perf_counter()
            self.events += 1
