"""A paid order in one straight line: write it down, be paid, generate, settle, reply.

Whatever can fail is in the store before it is tried. A crash between two steps leaves a row whose
state says what is left to do; `recover.py` does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

import structlog

from nostrllm.core import ledger
from nostrllm.core.lock import is_locked
from nostrllm.core.order import Failed, Generated, Paid, PaymentRefused, Started
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import RemoteError, WorldError
from nostrllm.ports import Conflict, Signer, Write
from nostrllm.provider import draw
from nostrllm.provider.admit import Letter
from nostrllm.provider.backends import Backends
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.failover import Passage
from nostrllm.provider.generate import Brake, generate
from nostrllm.provider.invoices import used_before
from nostrllm.provider.locked import refused
from nostrllm.provider.meter import Meter
from nostrllm.provider.reply import RESULT_KEEP_S, Address, Letterbox
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.slots import Seat
from nostrllm.provider.stream import ChunkCast
from nostrllm.provider.ticket import Job, Ticket, Written, post
from nostrllm.purse import Outcome
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.order import Accepted, AcceptedTerms, Problem, Refused

#: How long a swap of unknown outcome is chased before recovery takes it over.
PENDING_PAUSE_S: Final = 2.0
PENDING_S: Final = 30
RETRY_AFTER: Final = {"busy": 10, "model-unavailable": 60, "rate-limited": 60, "work-required": 1}

#: An answer that is there sooner needs no acceptance before it.
ACCEPTED_AFTER_S: Final = 0.25

#: A person is told of a wait that is as long as this.
LONG_WAIT_S: Final = 10.0

#: A refusal carries no money: it is worth an hour of trying.
REFUSAL_KEEP_S: Final = 3_600
MESSAGE_CHARS: Final = 900

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Run:
    """An order that was placed and is not settled."""

    author: str
    brake: Brake
    passage: Passage


class Counter:
    """Runs orders: admits no more than there is room for, and knows those that run."""

    def __init__(
        self,
        world: World,
        shop: Shop,
        letterbox: Letterbox,
        settler: Settler,
        conduct: Conduct,
    ) -> None:
        self._world = world
        self._shop = shop
        self._letterbox = letterbox
        self._settler = settler
        self._conduct = conduct
        self._locks = settler.locks
        self.backends = Backends(world, shop)
        self.meter = Meter(
            dict(shop.backends),
            lambda model_id: shop.model(model_id).backend,
            world.clock.monotonic,
        )
        self._running: dict[str, _Run] = {}
        self.closing = False

    @property
    def open_orders(self) -> int:
        """Orders that were placed and are not settled, in this process."""
        return len(self._running)

    def serves(self, author: str) -> bool:
        """Is this process working on an order of this key?"""
        return any(run.author == author for run in self._running.values())

    def runs(self, order_id: str) -> bool:
        """Is this process working on the order?"""
        return order_id in self._running

    def check_room(self, model_id: str, author: str) -> None:
        """Refuse before anything is looked at. Raises RemoteError `busy`, `model-unavailable`."""
        if self.closing:
            raise RemoteError("the provider is closing; ask another one", code="busy")
        self.backends.check(model_id, author)

    def cancel(self, order_id: str) -> bool:
        """Stop a running order. False if it is not running here."""
        running = self._running.get(order_id)
        if running is not None:
            running.brake.cancel()
            running.passage.give_up()
        return running is not None

    def _check_author(self, job: Job) -> None:
        """Nobody fills the shop alone. Raises RemoteError `busy`."""
        own = sum(run.author == job.ticket.author for run in self._running.values())
        if own >= self._shop.orders_per_author_max:
            raise RemoteError("so many of your orders are running already", code="busy")

    # the line

    def _sit_down(self, job: Job) -> _Run:
        """A place in the line of a back-end. Raises RemoteError `busy`, `model-unavailable`."""
        clock = self._world.clock
        passage = Passage(self.backends, clock, job, self._shop.prefixes)
        return _Run(job.ticket.author, Brake(clock.now), passage)

    async def serve(self, job: Job) -> None:
        """Take an admitted order to its end. Raises RemoteError before anything is taken."""
        if job.id in self._running:
            return
        self._check_author(job)
        self._running[job.id] = run = self._sit_down(job)
        try:
            session = self._world.keyring.signer()
            accepted = await self._accept(job, session)
            job = replace(job, ticket=replace(job.ticket, accepted=json.dumps(accepted.as_dict())))
            if await self._place(job):
                await self._finish(job, run, session, accepted)
        finally:
            run.passage.leave()
            del self._running[job.id]

    async def _finish(self, job: Job, run: _Run, session: Signer, accepted: Event) -> None:
        """All that follows the commit. Nobody is told "nothing was taken" any more: what fails here
        is finished, or paid back, by recovery."""
        try:
            paid = await self._pay(job)
            if paid is not None:
                await self._work(paid, run, session, accepted)
        except Exception:  # the supervisor of one order, whose row says what is left to do
            log.exception("order_crashed", order=job.id[:16])

    async def _place(self, job: Job) -> bool:
        """Commit the order, its coins' claim and the swap to run, before the mint is asked.

        False when there is such an order already. Raises RemoteError or StoreError if not stored.
        """
        now = self._world.now_s()
        writes = [job.ticket.insert(now), *job.beside]
        if job.plan is not None:
            writes += job.plan.writes
        elif job.lock is not None:
            writes += self._locks.accepted(job.lock)
        else:
            writes += draw.taken(job.ticket, now)
        try:
            await self._commit(job.ticket, writes)
        except Conflict as conflict:
            if conflict.name == "order_insert":
                return False
            raise _claimed(conflict) from None
        log.info("order_placed", order=job.id[:16], funding=job.ticket.order.funding)
        return True

    async def _commit(self, ticket: Ticket, writes: Sequence[Write]) -> None:
        """Commit a new order; those of the same account that end meanwhile know of its hold."""
        order = ticket.order
        if order.funding != "account" or not order.net_msat:
            await self._world.store.commit(*writes)
            return
        balances = self._settler.balances
        held = (await balances.of(ticket.account)).moved(-order.net_msat)
        with balances.moving(ticket.account, held):
            await self._world.store.commit(*writes)

    async def _pay(self, job: Job) -> Job | None:
        """The job once its money is ours; None when it never will be, or recovery sees to it."""
        if job.plan is None:
            return job
        told = False
        until_s = min(self._world.now_s() + PENDING_S, job.ticket.deadline)
        while True:
            outcome = await self._world.purse.run(job.id, paid_writes(job.ticket, self._world))
            if outcome.state == "DONE":
                net = outcome.net * job.ticket.order.unit_msat
                return job.with_order(job.ticket.order.handle(Paid(net)))
            if outcome.state == "REJECTED":
                await self.tell_refused(job.ticket, outcome)
                await self._charge(job, outcome)
                return None
            if not told:
                told = True
                await self._tell_pending(job.ticket)
            if self._world.now_s() >= until_s or self.closing:
                return None
            await self._world.clock.sleep(PENDING_PAUSE_S)

    async def _work(self, job: Job, run: _Run, session: Signer, accepted: Event) -> None:
        cast = ChunkCast(self._world, job.ticket.address, session, job.chunk_s)
        async with asyncio.TaskGroup() as group:
            # The model need not wait until a relay has confirmed this.
            told = self._tell_accepted(job, run.passage.seat, cast.begun, session, accepted)
            telling = group.create_task(told)
            job, written, event = await self._generate(job, run, cast)
            run.passage.leave()
            await self._settler.settle(job.ticket, event, written)
            telling.cancel()
        await self._weigh(job, event)
        log.info("order_settled", order=job.id[:16], outcome=type(event).__name__)

    async def _charge(self, job: Job, outcome: Outcome) -> None:
        """Count it against the client if he spent the coins elsewhere."""
        if outcome.code == "payment-token-spent" and not outcome.suspect:
            who, when = job.ticket.author, job.said_at
            await self._conduct.note(who, "double-spend", said_at=when, message=job.id)

    async def _weigh(self, job: Job, event: Generated | Failed) -> None:
        """Remember whether the answer was paid for, or was free and no wish of the client."""
        if isinstance(event, Generated) and event.useful:
            await self._conduct.paid(job.ticket.author)
        elif event.code != "cancelled":
            await self._conduct.note(job.ticket.author, "free-failure")

    async def _tell_accepted(
        self, job: Job, seat: Seat, begun: asyncio.Event, session: Signer, accepted: Event
    ) -> None:
        """Send the acceptance to a program when a stream begins, or the answer takes its time; to a
        person only how long the wait is, if it is long.

        The result repeats it, so a lost one, or one that a quick answer overtakes, is no loss.
        """
        address = job.ticket.address
        if address.dialect != "client":
            if seat.waits and seat.wait_s >= LONG_WAIT_S:
                text = f"You are number {seat.ahead + 1} in line: about {round(seat.wait_s)} s."
                await self._letterbox.send(await self._letterbox.seal(address, [text]))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACCEPTED_AFTER_S):
                await begun.wait()
        message = Accepted(
            order=job.id,
            event=accepted.as_dict(),
            session=session.pubkey,
            ahead=seat.ahead if seat.waits else 0,
            wait_s=ceil(seat.wait_s) if seat.waits else None,
        )
        await self._letterbox.send(await self._letterbox.seal(address, message, keep_s=3_600))

    async def _generate(
        self, job: Job, run: _Run, cast: ChunkCast
    ) -> tuple[Job, Written, Generated | Failed]:
        """Wait for the turn, and write. Who gives up in the line pays nothing."""
        turned = await run.passage.seat.turn(job.ticket.deadline - self._world.clock.now())
        if not turned and run.brake.ending == "cancelled":
            return job, Written(), Failed("cancelled")
        if not turned or self._world.now_s() >= job.ticket.deadline:
            return job, Written(), Failed("deadline")
        job = job.with_order(job.ticket.order.handle(Started()))
        with self.meter.writing(job.ticket.model) as told:
            written, event = await generate(run.passage, job, run.brake, cast.emit)
            told(written.usage)
        await cast.close(failed=isinstance(event, Failed))
        return job, written, event

    async def _accept(self, job: Job, session: Signer) -> Event:
        """What we bind ourselves to, signed: kind 25427."""
        ticket = job.ticket
        terms = AcceptedTerms(
            order=ticket.id,
            client=ticket.author,
            price=ticket.price_id,
            model=ticket.model,
            ceiling_msat=ticket.order.ceiling_msat,
            payment=job.payment,
            session=session.pubkey,
        )
        draft = Draft(kinds.ACCEPTED, terms.as_json(), self._world.now_s())
        return await self._world.identity.sign(draft)

    # saying no

    async def refuse(
        self,
        letter: Letter,
        code: str,
        message: str,
        release: Sequence[str] | None = None,
        taken: str = "Nothing was taken.",
        *,
        retry_after_s: int | None = None,
    ) -> None:
        """Tell the asker why not, and what was `taken`. The order of this id will never run.

        `release` gives him back what he had locked to us.
        """
        problem = Problem(
            code=code,
            message=message[:MESSAGE_CHARS],
            retry_after_s=RETRY_AFTER.get(code) if retry_after_s is None else retry_after_s,
        )
        said = refusal(letter.address, letter.id, problem, taken)
        if release and isinstance(said, Refused):
            said = said.model_copy(update={"release": list(release)})
        keep_s = RESULT_KEEP_S if release else REFUSAL_KEEP_S
        outgoing = await self._letterbox.seal(letter.address, said, keep_s=keep_s)
        if code in ("rate-limited", "work-required") and not release:
            self._log_refused(letter, code)
            await self._letterbox.send(outgoing)
            return
        heard = {"id": letter.id, "wrap": letter.wrap, "at": self._world.now_s()}
        stored = self._letterbox.store(letter.id, outgoing, keep_s=keep_s)
        await self._world.store.commit(Write("heard_note", heard), *stored)
        self._letterbox.post(letter.id, outgoing)
        self._log_refused(letter, code)

    def _log_refused(self, letter: Letter, code: str) -> None:
        """`took_ms`: from when the message came off the relay until its refusal was on the way."""
        took_s = self._world.clock.monotonic() - letter.heard_at
        log.info("order_refused", order=letter.id[:16], code=code, took_ms=round(took_s * 1_000, 1))

    async def tell_refused(self, ticket: Ticket, outcome: Outcome | None = None) -> None:
        """Store and send the refusal of an order whose payment the mint did not take."""
        row = (await self._world.store.read("order_get", id=ticket.id))[0]
        code = str(row["code"]) or "payment-token-invalid"
        message, taken = "the mint did not take the token", "Nothing was taken."
        if outcome is not None and outcome.suspect:
            log.error("mint_suspect", order=ticket.id[:16], mint=ticket.mint)
            message = "the mint's answer was wrong, so your coins may be gone there"
            taken = "We got nothing; the evidence is kept."
        problem = Problem(code=code, message=message)
        said = refusal(ticket.address, ticket.id, problem, taken)
        if isinstance(said, Refused):
            said = said.model_copy(update={"release": await self._released(ticket)})
        outgoing = await self._letterbox.seal(ticket.address, said)
        await self._world.store.commit(*self._letterbox.store(ticket.id, outgoing))
        self._letterbox.wake()

    async def _released(self, ticket: Ticket) -> list[str] | None:
        """What takes back a locked token that was to be swapped first, and that the mint refused.

        Its coins stay claimed by this order, so that they pay for no other. None for coins that are
        not locked to us, or not there any more, or while the mint does not say.
        """
        purse = self._world.purse
        proofs = await purse.inputs_of(ticket.id)
        locked = all(is_locked(proof.secret) for proof in proofs)
        if not locked or await purse.state_of(ticket.id) != "REJECTED":
            return None
        try:
            mint = self._world.mints.at(ticket.mint)
            states = await mint.states([y_of(proof.secret) for proof in proofs])
        except WorldError:
            return None
        return self._locks.release(proofs) if set(states) == {"UNSPENT"} else None

    async def _tell_pending(self, ticket: Ticket) -> None:
        if ticket.address.dialect != "client":
            text = (
                "The mint has not answered yet whether it took your token. I keep asking; you get "
                "the answer, or your money back. [payment-pending]"
            )
            await self._letterbox.send(await self._letterbox.seal(ticket.address, [text]))


def refusal(
    address: Address, order_id: str, problem: Problem, taken: str
) -> Refused | Sequence[str]:
    """The refusal in the asker's dialect; `taken` says what became of a person's money."""
    if address.dialect == "client":
        return Refused(order=order_id, problem=problem)
    return [f"{problem.message}. {taken} [{problem.code}]"]


def _claimed(conflict: Conflict) -> RemoteError:
    """Why the coins or the balance cannot pay for this order."""
    if (why := refused(conflict)) is not None:
        return why
    if (why := draw.refused(conflict.name)) is not None:
        return why
    if conflict.name == "melt_insert":
        return used_before()
    if conflict.name == "subscription_is":
        return RemoteError("your plan ended meanwhile; ask again", code="price-changed")
    message = "these coins were used here before"
    return RemoteError(message, code="payment-token-spent", fraud="replay")


def paid_writes(ticket: Ticket, world: World) -> Callable[[Outcome], list[Write]]:
    """What is committed together with a swap's outcome, now or after a restart."""

    def then(outcome: Outcome) -> list[Write]:
        now = world.now_s()
        if outcome.state == "DONE":
            net = outcome.net * ticket.order.unit_msat
            ticket.order.handle(Paid(net))
            place = ledger.coins(ticket.mint, ticket.unit)
            paid = (ticket.id, place, net, ticket.order.unit_msat)
            return [
                Write("order_paid", {"id": ticket.id, "net_msat": net, "at": now}, rows=1),
                *post(f"paid:{ticket.id}", ledger.token_paid(*paid), now),
            ]
        ticket.order.handle(PaymentRefused(outcome.code))
        refused = {"id": ticket.id, "code": outcome.code or "payment-token-invalid", "at": now}
        return [Write("order_refused", refused, rows=1)]

    return then
