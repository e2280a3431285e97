"""The one call: choose an offer, pay, listen, verify, settle.

Readable from top to bottom in `Buyer.ask`. Every step that moves money is on disk before it is
taken; what a crash or a silent provider leaves open is finished by `resume`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from nostrllm.client.answer import Answer
from nostrllm.client.bargain import Bargain, Breach, What, accepted_terms, intact
from nostrllm.client.discover import Catalogue
from nostrllm.client.letters import (
    EXPIRY_S,
    Line,
    check_length,
    letter,
    line_to,
    mutter,
    post,
    whisper,
)
from nostrllm.client.locked import locked_until, prepare, room_for
from nostrllm.client.owed import Debts
from nostrllm.client.payment import paid_with
from nostrllm.client.payouts import Payouts
from nostrllm.client.purchases import Purchase, Purchases, Settled
from nostrllm.client.quote import Question, Quote, quote
from nostrllm.client.replies import Chunks, Listening, Message, Replies, listen
from nostrllm.client.settle import Outcome, Settler, broken, outcome, refusal, still
from nostrllm.client.statements import LATE_S, Known
from nostrllm.client.world import World
from nostrllm.errors import LocalError, NostrllmError, RelayError, RemoteError, WorldError
from nostrllm.ports import Write
from nostrllm.wire.event import Event
from nostrllm.wire.order import (
    Accepted,
    AccountPayment,
    Ack,
    Cancel,
    Order,
    Payment,
    Query,
    Refused,
    ReplyTo,
    Result,
    TokenPayment,
)
from nostrllm.wire.order import Answer as QueryAnswer
from nostrllm.wire.order import Settled as SettledMessage
from nostrllm.wire.token import encode_token

#: A silent provider is asked so often, and waited for so long each time.
QUERIES_MAX: Final = 2
QUERY_S: Final = 5.0
#: No answer is waited for longer than this after its first word was due; it is stopped then.
ANSWER_S_MAX: Final = 900
#: Who broke a bargain or was silent is not chosen for so long, except by name.
AVOIDED_S: Final = 86_400
#: What a provider calls an order that he works on; any other state is no reason to wait longer.
UNDER_WAY: Final = ("paying", "paid", "running")
#: The mint's signatures on the change are waited for so long; then it is asked itself.
SETTLE_S: Final = 30.0
#: So many words of his that overtake the result are kept.
EARLY_MAX: Final = 4
#: A catalogue caught between two versions of a price list shows no offers: ask again.
LOOKS_MAX: Final = 3
LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Deal:
    """One order under way: what was quoted, with whom we speak, and where he answers.

    `early`: what overtook the result.
    """

    question: Question
    quote: Quote
    line: Line
    reply: ReplyTo
    answer: Answer
    early: list[SettledMessage] = field(default_factory=list)


class Buyer:
    """Buys answers."""

    def __init__(self, world: World, catalogue: Catalogue) -> None:
        self._world = world
        self.catalogue = catalogue
        self.purchases = Purchases(world)
        self.settler = Settler(world, self.purchases)
        self.debts = Debts(world, self.purchases, self.settler)
        self.payouts = Payouts(world, self.settler)
        self._beginning = asyncio.Lock()
        self._under_way: set[int] = set()

    @asynccontextmanager
    async def begin(self, what: What, provider: str, pays: str = "") -> AsyncIterator[Purchase]:
        """A new purchase, which is this block's alone until it ends. `pays`: see `reserve`."""
        async with self._beginning:
            purchase = await self.purchases.reserve(what, provider, pays)
            self._under_way.add(purchase.n)
        try:
            yield purchase
        finally:
            self._under_way.discard(purchase.n)

    async def left_open(self) -> list[Purchase]:
        """Purchases that are not at their end and that nobody in this process works on."""
        async with self._beginning:
            open_now = [*await self.purchases.open(), *await self.purchases.owed()]
        return [purchase for purchase in open_now if purchase.n not in self._under_way]

    async def ask(self, question: Question, answer: Answer) -> Outcome:
        """Buy one answer; text goes to `answer` as it comes, and so does the end of it.

        Returns when its money is at its end too, or will not be for a while.

        Raises LocalError before anything is paid; RemoteError with the provider's code when he
        refused or failed, the coins being back; WorldError `provider-silent`, or
        `relay-unreachable` when no relay answers, or none took the order.
        """
        quoted = answer.quote = await self._quote(question)
        if question.on_quote is not None:
            question.on_quote(quoted)
        async with self.begin("order", quoted.offer.provider) as purchase:
            return await self._buy(question, quoted, answer, purchase)

    async def _buy(
        self, question: Question, quoted: Quote, answer: Answer, purchase: Purchase
    ) -> Outcome:
        signer = self._world.reply(purchase.n)
        urls = self._world.square.reply_relays
        deal = Deal(
            question,
            quoted,
            line_to(self._world, quoted.offer),
            ReplyTo(key=signer.pubkey, relays=list(urls)),
            answer,
        )
        listening = Listening(signer, quoted.offer.provider, urls, stream=question.stream)
        async with listen(self._world.square, listening) as replies:
            try:
                purchase = await self._place(deal, purchase)
                purchase, ended = await self._follow(deal, purchase, replies, Chunks(signer))
            except asyncio.CancelledError:
                await self._cancel(deal)
                raise
            if ended.pending_msat:
                answer._finish(ended)
                purchase = await self.debts.wait(purchase, replies, deal.early, SETTLE_S)
                ended = still(ended, purchase)
            if question.invoice is not None:
                answer._finish(replace(ended, pending_msat=ended.credit_msat))
                ended = await self.payouts.wait(purchase, replies, ended, SETTLE_S)
            return ended

    # before

    async def _quote(self, question: Question) -> Quote:
        question.body()  # a wrong question needs no relay
        error: NostrllmError | None = None
        for look in range(LOOKS_MAX):
            if look:
                await self._world.square.clock.sleep(LOOK_S)
            try:
                return await self._quoted(question, refresh=look > 0)
            except RelayError as exc:
                error = exc
            except LocalError as exc:
                if exc.code not in ("provider-unknown", "model-unknown"):
                    raise
                error = exc
        raise error or LocalError("no offer was found", code="provider-unknown")

    async def _quoted(self, question: Question, *, refresh: bool) -> Quote:
        every = await self.catalogue.offers(refresh=refresh)
        avoided = await self._avoided() if question.provider is None else set[str]()
        offers = [offer for offer in every if offer.provider not in avoided]
        try:
            return await quote(self._world, question, offers)
        except LocalError as error:
            if len(offers) == len(every):
                raise
            raise _left_out(error) from error

    async def _avoided(self) -> set[str]:
        """Providers who lately broke a bargain or left us without an answer."""
        now, avoided = self._world.square.now_s(), set()
        for purchase in await self.purchases.amiss(now - AVOIDED_S):
            due = purchase.bargain is None or purchase.bargain.deadline + LATE_S < now
            if purchase.to_pay and purchase.state == "sent":  # it is we who have not paid
                continue
            open_still = purchase.state in ("sent", "accepted")
            if not open_still or (due and purchase.n not in self._under_way):
                avoided.add(purchase.provider)
        return avoided

    async def _place(self, deal: Deal, purchase: Purchase) -> Purchase:
        """Make the coins, write the order down, send it. On an error the coins are taken back.

        A relay that did not say OK may have stored the order: then it stays open, unless its coins
        are still there to be taken back.
        """
        try:
            order, bargain, writes = await self._order(deal, purchase)
            whole = letter(self._world.square, deal.line, order)
            purchase = await self.purchases.sent(purchase, whole.id, bargain, writes)
            deal.answer.order_id = whole.id
            await post(self._world.square, deal.line, whole, order.deadline + EXPIRY_S)
        except RelayError as error:
            raise await self.settler.unsure(purchase, error) from error
        except NostrllmError as error:
            await self.settler.give_up(purchase, error.code, definite=True)
            raise
        return purchase

    async def _order(
        self, deal: Deal, purchase: Purchase
    ) -> tuple[Order, Bargain, Sequence[Write]]:
        world, quoted, question = self._world, deal.quote, deal.question
        payment: Payment = AccountPayment(of=question.of)
        writes: Sequence[Write] = ()
        known = await self.settler.statements.known(quoted.offer.provider)
        bargain = self._bargain(deal, known)
        order = self._unpaid(deal, bargain)
        check_length(world.square, deal.line, order, room=room_for(quoted.amount))
        if quoted.pay == "token":
            token = await world.purse.send(
                purchase.token_op, quoted.mint, quoted.unit, quoted.amount
            )
            payment = TokenPayment(token=encode_token(token))
            bargain = await paid_with(world, bargain, token)
        elif quoted.pay == "locked":
            ready = await prepare(world, purchase, question, quoted, bargain)
            payment, bargain, writes = ready.payment, ready.bargain, ready.writes
        if question.invoice is not None:
            writes = (*writes, self.payouts.noted(bargain))
        if question.change != "ecash":
            bargain = bargain.model_copy(update={"credit_msat_max": None})
        return order.model_copy(update={"payment": payment}), bargain, writes

    @staticmethod
    def _unpaid(deal: Deal, bargain: Bargain) -> Order:
        """The order before there are coins for it."""
        return Order(
            reply=deal.reply,
            model=bargain.model,
            body=deal.quote.body,
            price=bargain.price,
            ceiling_msat=deal.quote.ceiling_msat,
            payment=TokenPayment(token=""),
            change=deal.question.change,
            invoice=deal.question.invoice,
            deadline=bargain.deadline,
            end_by=bargain.deadline + ANSWER_S_MAX,
            chunk_ms=250 if deal.question.stream else None,
            c=bargain.c,
        )

    def _bargain(self, deal: Deal, known: Known) -> Bargain:
        """What is remembered of the order; the salt of its receipt is drawn here."""
        square, quoted = self._world.square, deal.quote
        announcement = quoted.offer.announcement
        return Bargain(
            provider=announcement.pubkey,
            d=announcement.d,
            relays=deal.line.relays,
            reply_relays=tuple(deal.reply.relays),
            buyer=deal.line.buyer.pubkey,
            offer=quoted.offer.model,
            price=quoted.offer.price_event_id,
            model=quoted.offer.model.id,
            pay=quoted.pay,
            mint=quoted.mint,
            unit=quoted.unit,
            unit_msat=quoted.unit_msat,
            fee_msat=0,
            seq=known.seq,
            balance_msat=known.balance_msat,
            known_at=known.at,
            ceiling_msat=quoted.ceiling_msat,
            size_bytes=quoted.body.size_bytes,
            messages=quoted.body.frames,
            deadline=square.now_s() + max(1, int(deal.question.deadline_s)),
            invoice=deal.question.invoice or "",
            of=deal.question.of or "",
            reviewer=self._world.identity.pubkey,
            salt=secrets.token_hex(32),
        )

    # after

    async def _follow(
        self, deal: Deal, purchase: Purchase, replies: Replies, chunks: Chunks
    ) -> tuple[Purchase, Outcome]:
        """Wait for the result; every new word of the provider's gives him more time, up to an
        end that nothing moves."""
        clock = self._world.square.clock
        patience_s = deal.question.deadline_s
        patient = clock.monotonic() + patience_s
        end, asked, queries = patient + ANSWER_S_MAX + QUERIES_MAX * QUERY_S, set[str](), 0
        while True:
            try:
                async with asyncio.timeout(max(0.0, min(patient, end) - clock.monotonic())):
                    message = await replies.next()
            except TimeoutError:
                if queries == QUERIES_MAX or clock.monotonic() >= end:
                    raise await self._silent(purchase) from None
                queries += 1
                query = self._query(deal, purchase)
                asked.add((await whisper(self._world.square, deal.line, query)).id)
                patient = clock.monotonic() + QUERY_S
                continue
            if isinstance(message, Event):
                heard = await self._chunk(deal, chunks, message)
            elif isinstance(message, Result) and message.order == purchase.id:
                if asked:  # a relay that took it told him so; here something went wrong
                    ack = Ack(reply=deal.reply, order=message.order)
                    await mutter(self._world.square, deal.line, ack)
                return await self._finish(deal, purchase, chunks, message)
            elif isinstance(message, QueryAnswer):
                heard = message.to in asked and message.state in UNDER_WAY
            else:
                purchase, heard = await self._message(deal, purchase, chunks, message)
            if heard:
                patient, queries = clock.monotonic() + patience_s, 0

    async def _chunk(self, deal: Deal, chunks: Chunks, event: Event) -> bool:
        text = await chunks.push(event)
        deal.answer._show(text or "")
        return bool(text)

    async def _message(
        self, deal: Deal, purchase: Purchase, chunks: Chunks, message: Message
    ) -> tuple[Purchase, bool]:
        """Anything but the result. Raises RemoteError for a refusal, the coins being back."""
        if isinstance(message, Refused) and message.order == purchase.id:
            raise await self._refused(purchase, message)
        if isinstance(message, SettledMessage) and message.order == purchase.id:
            deal.early.append(message)
            del deal.early[:-EARLY_MAX]
        news = purchase.accepted is None
        if news and isinstance(message, Accepted) and message.order == purchase.id:
            accepted = proved_acceptance(self._world, purchase, message.event, message.session)
            if accepted is not None:
                deal.answer.ahead, deal.answer.wait_s = message.ahead, message.wait_s
                if message.wait_s and deal.question.on_waiting is not None:
                    deal.question.on_waiting(message.ahead, message.wait_s)
                purchase = await self.purchases.accepted(purchase, accepted)
                deal.answer._show(await chunks.accepted(message.session))
                return purchase, True
        return purchase, False

    async def _finish(
        self, deal: Deal, purchase: Purchase, chunks: Chunks, result: Result
    ) -> tuple[Purchase, Outcome]:
        if purchase.accepted is None and result.accepted is not None:
            event = proved_acceptance(self._world, purchase, result.accepted)
            if event is not None:
                purchase = await self.purchases.accepted(purchase, event)
        honest = result.problem is None and intact(result)
        if honest:  # before the coins are fetched: the mint may take its time
            deal.answer._show(chunks.finish(result.text))
        found: tuple[Breach, ...] = ("stream-altered",) if chunks.diverged else ()
        purchase, ending = await self.settler.settle(purchase, result, found=found)
        if result.problem is not None:
            raise broken(refusal(result.problem), ending.breaches)
        if not honest:
            error = RemoteError("the answer does not match its own hash")
            raise broken(error, ending.breaches)
        receipt = None if ending.receipt is None else ending.receipt.event
        settled = Settled(purchase, result, tuple(ending.breaches), receipt)
        return purchase, outcome(settled, deal.quote.estimate_msat)

    async def _cancel(self, deal: Deal) -> None:
        """Nobody waits any more: tell the provider, who charges what he has generated.

        What comes back is taken by `resume`.
        """
        if deal.answer.order_id is not None:
            cancel = Cancel(reply=deal.reply, order=deal.answer.order_id)
            await mutter(self._world.square, deal.line, cancel)

    async def _refused(self, purchase: Purchase, message: Refused) -> NostrllmError:
        error = refusal(message.problem)
        if await self.settler.refused(purchase, message):
            return error
        return RemoteError(
            f"{error.message}; and the coins of order {purchase.id} are not back yet"
            f"{locked_until(purchase)}",
            code=error.code,
        )

    async def _silent(self, purchase: Purchase) -> WorldError:
        back = await self.settler.give_up(purchase, "provider-silent")
        then = "the order stays open and is looked at again" + locked_until(purchase)
        if back:
            then = "your coins are back"
        return WorldError(
            f"the provider does not answer (order {purchase.id}); {then}", code="provider-silent"
        )

    @staticmethod
    def _query(deal: Deal, purchase: Purchase) -> Query:
        return Query(reply=deal.reply, what="order", order=purchase.id)


def _left_out(error: LocalError) -> LocalError:
    left_out = "those who broke a bargain or were silent within a day are left out unless named"
    return LocalError(f"{error.message} ({left_out})", code=error.code)


def proved_acceptance(
    world: World, purchase: Purchase, raw: dict[str, object], session: str | None = None
) -> Event | None:
    """The signed acceptance (kind 25427) of this very order, or None."""
    if purchase.bargain is None or purchase.id is None:
        return None
    try:
        terms, event = accepted_terms(purchase.bargain, purchase.id, raw)
    except RemoteError:
        return None
    named = session is None or terms.session == session
    return event if named and world.square.keyring.verify(event) else None
