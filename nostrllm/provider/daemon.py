"""The provider: listens, sells, answers, and finishes what it began.

Inbox → Daemon.deliver → Talk | Admission → Counter.serve → Settler → Letterbox
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from nostrllm.core.allowance import Allowance
from nostrllm.core.conduct import KINDS
from nostrllm.core.pace import Pace
from nostrllm.crypto.keys import derive, is_public_key
from nostrllm.errors import NostrllmError, RemoteError, StoreError
from nostrllm.ports import Row, Write
from nostrllm.provider.accounts import Accounts
from nostrllm.provider.admit import Admission, Letter, Wish, outputs_in
from nostrllm.provider.allowances import Allowances
from nostrllm.provider.announce import Announcer
from nostrllm.provider.backend import BackendStatus
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.deposits import Deposits
from nostrllm.provider.door import Door
from nostrllm.provider.handout import Handout
from nostrllm.provider.inbox import Inbox
from nostrllm.provider.lightning import Lightning
from nostrllm.provider.locked import Locks
from nostrllm.provider.melts import Melts
from nostrllm.provider.memberships import Memberships
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.payments import Payments
from nostrllm.provider.plans import Plans
from nostrllm.provider.pricer import Pricer
from nostrllm.provider.quarantine import Quarantine
from nostrllm.provider.recover import Recovery
from nostrllm.provider.redeem import Redeemer
from nostrllm.provider.reply import Address, Letterbox
from nostrllm.provider.requests import Payee, Requests
from nostrllm.provider.serve import Counter
from nostrllm.provider.settle import Settler
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.stock import Stock
from nostrllm.provider.subscribers import Subscribers
from nostrllm.provider.talk import Talk
from nostrllm.provider.trial import Trials
from nostrllm.wire import order as wire
from nostrllm.wire.payment_request import is_payload
from nostrllm.wire.token import find_tokens

#: Letters that are worked on at once beside the orders; beyond, the relays' queues wait.
LETTERS_MAX: Final = 256

#: How long the last replies may take after the last order.
DRAIN_REPLIES_S: Final = 5.0

log = structlog.get_logger()


#: A mint that has not said for so long what became of a request is shown to the operator.
WAITING_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon at a glance."""

    orders_open: int
    relays_up: int
    relays: int
    outbox_waiting: int
    dropped: dict[str, int]
    accepting: bool
    waiting: list[Row]  # for the word of a mint: see Purse.waiting
    backends: list[BackendStatus]


class Daemon:
    """All parts of a provider, joined. `seed` derives payment keys and salts."""

    def __init__(self, world: World, shop: Shop, *, seed: bytes, nprofile: str) -> None:
        self._world = world
        self._shop = shop
        self._key = PaymentKey(seed)
        payee = Payee(
            nprofile, self._key, lambda letter_id: derive(seed, "request", letter_id).hex()[:32]
        )
        self.announcer = Announcer(world, shop, payment_key=self._key, nprofile=nprofile)
        self._letterbox = Letterbox(world, shop.relays)
        self.conduct = Conduct(world.store, world.clock, shop.blocked)
        self.trials = Trials(world, shop, self._key)
        self._locks = Locks(world, shop, self._key, self.trials)
        self._settler = Settler(world, self._letterbox, self._locks)
        self._counter = Counter(world, shop, self._letterbox, self._settler, self.conduct)
        self.stock = Stock(world, self.announcer, self._counter.backends)
        self.pricer = Pricer(
            world, shop, self.announcer, self._counter.backends, self._counter.meter
        )
        self.subscribers = Subscribers(world, shop, self._letterbox)
        self._admission = Admission(
            world, shop, self.announcer, self.conduct, self._locks, self.subscribers
        )
        self.door = Door(world, shop, self.conduct, self._admission.has_means, self._counter.serves)
        self.announcer.work = lambda: self.door.bits
        self._plans = Plans(world, shop, self._letterbox, self._settler, self.subscribers)
        self._allowances = Allowances(world, self._letterbox)
        self._handout = Handout(world, self._letterbox, self._settler, self.conduct)
        self.redeemer = Redeemer(world, self._locks, self._handout)
        self._settler.on_due = self.redeemer.wake
        self.redeemer.stop_order = self._counter.cancel
        self.redeemer.doubt = self.trials.doubt
        self._locks.answers = self.redeemer.answers
        self._accounts = Accounts(
            world, shop, self._admission, self._letterbox, self._settler, self.conduct
        )
        requests = Requests(world, shop, payee)
        self._payments = Payments(world, shop, self._accounts, self._letterbox, requests, payee)
        self._payments.on_paid = self._take_up
        deposits = Deposits(world, shop, self._accounts, self._letterbox, self.conduct)
        melts = Melts(world, self._accounts, self._letterbox)
        self.lightning = Lightning(world, self._letterbox, deposits, melts)
        self.talk = Talk(
            world,
            shop,
            self.announcer,
            self._accounts,
            self.lightning,
            self._counter,
            self._letterbox,
            requests,
            Memberships(self._plans, self._allowances, self._admission),
            lambda order_id: derive(seed, "salt", order_id).hex(),
        )
        self._settler.on_answer = self.talk.remember
        self.recovery = Recovery(
            world, self._counter, self._settler, self._accounts, self._payments
        )
        self.quarantine = Quarantine(world, shop, self.announcer)
        self.conduct.is_wary_of_all = lambda: self.quarantine.is_on
        self._inbox = Inbox(world, shop, self._deliver)
        self._room = asyncio.Semaphore(LETTERS_MAX + shop.orders_max)
        self._group: asyncio.TaskGroup | None = None
        self._in_hand: set[str] = set()
        self._pace = Pace(shop.letters_per_minute_max)

    # life

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Recover, announce, sell until `stop`, then drain: closing notice, finish, deliver."""
        await self.conduct.open()
        await self.subscribers.open()
        await self.announcer.open()
        await self.quarantine.open()
        self._key.open(self.announcer.instance, await self.announcer.former())
        await self.stock.open()
        await self.announcer.rates.look()
        await self.pricer.begin()
        await self.announcer.promise()
        await self.recovery.sweep()
        await self._payments.tell_lost()
        async with asyncio.TaskGroup() as background:
            tasks = [
                background.create_task(self._supervised(work))
                for work in (
                    self._letterbox.run,
                    self._listen,
                    self.announcer.run,
                    self.announcer.watch,
                    self.announcer.follow_rates,
                    self.pricer.run,
                    self._tell_work,
                    self.recovery.run,
                    self.subscribers.run,
                    self.lightning.deposits.run,
                    self.lightning.melts.run,
                    self.redeemer.run,
                    self.trials.run,
                    self._counter.backends.run,
                    self.stock.run,
                )
            ]
            async with asyncio.TaskGroup() as announcing:
                announcing.create_task(self.announcer.introduce())
                announcing.create_task(self.announcer.publish())
            await on_ready()
            await stop.wait()
            await self._drain()
            for task in tasks:
                task.cancel()

    async def _listen(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._inbox.run()

    async def _tell_work(self) -> None:
        await self.door.run(self.announcer.publish_unless_usurped)

    async def _supervised(self, work: Callable[[], Awaitable[None]]) -> None:
        """One background part; a fault in it is logged and it begins again."""
        while True:
            try:
                await work()
            except (NostrllmError, ExceptionGroup):
                log.exception("part_failed", part=work.__qualname__)
            await self._world.clock.sleep(1.0)

    async def _drain(self) -> None:
        self._counter.closing = True
        await self.stock.keep()
        log.info("draining", orders=self._counter.open_orders)
        await self.announcer.close()
        give_up = self._world.clock.monotonic() + self._shop.drain_s
        while self._counter.open_orders and self._world.clock.monotonic() < give_up:
            await self._world.clock.sleep(0.05)
        # What is left is settled at the next start.
        with suppress(NostrllmError, ExceptionGroup, TimeoutError):
            async with asyncio.timeout(DRAIN_REPLIES_S):
                await self.redeemer.sweep()
        await self._letterbox.drain(DRAIN_REPLIES_S)

    async def status(self) -> Status:
        """How the daemon stands."""
        relays = self._world.relays.status()
        waiting = await self._world.store.read("outbox_waiting_count")
        silent = await self._world.purse.waiting(WAITING_S)
        return Status(
            orders_open=self._counter.open_orders,
            relays_up=sum(relay.connected for relay in relays),
            relays=len(relays),
            outbox_waiting=int(waiting[0]["n"]),
            dropped=dict(self._inbox.dropped),
            backends=self._counter.backends.status,
            accepting=not self._counter.closing and not self.announcer.usurped,
            waiting=silent,
        )

    # letters

    async def _deliver(self, letter: Letter) -> None:
        """Take a letter off the relays' hands; waits when too many are being worked on."""
        assert self._group is not None
        if letter.id in self._in_hand:
            return
        await self._room.acquire()
        self._in_hand.add(letter.id)
        self._group.create_task(self._handled(letter))

    async def _handled(self, letter: Letter) -> None:
        try:
            try:
                await self._handle(letter)
            except NostrllmError as error:
                await self._say_no(letter, error)
        except Exception:  # the supervisor of all letters: one bad letter must not end the daemon
            log.exception("letter_crashed", letter=letter.id[:16])
        finally:
            self._in_hand.discard(letter.id)
            self._room.release()

    async def _handle(self, letter: Letter) -> None:
        if letter.address.dialect != "client" and is_payload(letter.text):
            if not await self._known(letter):
                await self._payments.take(letter)
            return
        pace = self._pace.count(letter.author, self._world.clock.monotonic())
        if pace == "tell":
            raise RemoteError("you write faster than I can read", code="rate-limited")
        if pace == "drop" or not await self.door.lets_in(letter) or await self._known(letter):
            return
        if self.announcer.usurped:  # the other daemon answers; whatever we did, he might do too
            return
        if letter.address.dialect == "client":
            await self._handle_message(letter)
            return
        if self.quarantine.is_stale(letter):
            await self._say_lost(letter)
            return
        await self._ask(await self.talk.hear(letter))

    async def _ask(self, wish: Wish | None) -> None:
        """Run a person's question; one that the account cannot pay is answered with a request."""
        if wish is None:
            return
        try:
            await self._order(wish)
        except RemoteError as error:
            if error.code != "account-insufficient":
                raise
            await self.talk.ask_for_more(wish, error)

    def _take_up(self, letter: Letter) -> None:
        """The money of a question has come: run it, beside what is being handled."""
        if self._group is not None:
            self._group.create_task(self._taken_up(letter))

    async def _taken_up(self, letter: Letter) -> None:
        try:
            try:
                await self._ask(await self.talk.again(letter))
            except NostrllmError as error:
                await self._say_no(letter, error)
            await self._payments.taken_up(letter.id)
        except Exception:  # the supervisor of one question: its money is in the account
            log.exception("question_crashed", letter=letter.id[:16])

    async def _known(self, letter: Letter) -> bool:
        """Was this acted on before? Sent anew by its author, it gets the stored reply again."""
        rows = await self._world.store.read("known_wrap", id=letter.id)
        if rows and rows[0]["wrap"] != letter.wrap:
            await self._letterbox.send_again(letter.id)
        return bool(rows)

    async def _order(self, wish: Wish, invoice: str | None = None) -> None:
        with self._counter.meter.order(wish):
            self._counter.check_room(wish.offer.id, wish.letter.author)
            job = await self._admission.admit(wish)
            await self._counter.serve(self.lightning.with_invoice(wish.letter, job, invoice))
        if invoice is not None:
            self.lightning.melts.wake()

    async def _handle_message(self, letter: Letter) -> None:
        message = wire.parse_from_client(letter.text)
        letter = letter.to(self._address(letter, message.reply))
        moves_money = isinstance(message, wire.Order | wire.TopUp | wire.Refund)
        if moves_money and self.quarantine.is_stale(letter):
            await self._say_lost(letter)
        else:
            await self._act(letter, message)

    async def _act(self, letter: Letter, message: wire.ClientMessage) -> None:
        match message:
            case wire.Order():
                await self._order(self._admission.wish(letter, message), message.invoice)
            case wire.TopUp() | wire.Refund():
                await self._move_money(letter, message)
            case wire.Allow() | wire.Disallow() | wire.Subscribe() | wire.Unsubscribe():
                await self._change_account(letter, message)
            case wire.Cancel():
                await self._cancel(letter, message.order)
            case wire.Ack():
                await self._ack(letter, message.order)
            case wire.Query():
                await self._query(letter, message)
            case wire.NewOutputs():
                await self._new_outputs(letter, message)

    async def _move_money(self, letter: Letter, message: wire.TopUp | wire.Refund) -> None:
        match message:
            case wire.TopUp(token=str(token)):
                await self._accounts.top_up(letter, token)
            case wire.TopUp(lightning_msat=int(msat)):
                await self.lightning.deposits.ask(letter, msat)
            case wire.Refund(invoice=str(invoice)):
                await self.lightning.melts.refund(letter, invoice)
            case wire.Refund():
                await self._accounts.refund(letter)

    async def _change_account(
        self,
        letter: Letter,
        message: wire.Allow | wire.Disallow | wire.Subscribe | wire.Unsubscribe,
    ) -> None:
        match message:
            case wire.Allow():
                wish = Allowance(
                    letter.author,
                    message.key,
                    message.limit_msat,
                    period_s=message.period_s or 0,
                    expires_at=message.expires_at or 0,
                )
                await self._allowances.allow(letter, wish)
            case wire.Disallow():
                await self._allowances.disallow(letter, message.key)
            case wire.Subscribe():
                most = message.price_msat
                await self._plans.subscribe(letter, message.plan, renew=message.renew, most=most)
            case wire.Unsubscribe():
                await self._plans.cancel(letter)

    def _address(self, letter: Letter, reply: wire.ReplyTo) -> Address:
        """Where a program wants its answer, less what no stranger may name. Raises RemoteError."""
        if not is_public_key(reply.key):
            raise RemoteError("reply.key: not a public key")
        return Address("client", letter.author, reply.key, self._letterbox.allowed(reply.relays))

    async def _own_order(self, letter: Letter, order_id: str | None) -> str | None:
        """The state of an order, a top-up or a refund that the letter's author asked for."""
        store = self._world.store
        rows = await store.read("order_get", id=order_id or "")
        rows = rows or await store.read("transfer_get", id=order_id or "")
        if not rows and (row := await self.lightning.row(order_id or "")) is not None:
            rows = [row]
        if not rows or rows[0]["author"] != letter.author:
            return None
        return "running" if self._counter.runs(order_id or "") else str(rows[0]["state"])

    async def _cancel(self, letter: Letter, order_id: str) -> None:
        if await self._own_order(letter, order_id):
            self._counter.cancel(order_id)

    async def _ack(self, letter: Letter, order_id: str) -> None:
        state = await self._own_order(letter, order_id)
        if state is not None and state != "closed":
            moved = {"id": order_id, "state": "closed", "was": "settled"}
            await self._world.store.commit(
                Write("order_move", {**moved, "at": self._world.now_s()}),
                Write("outbox_sent_of", {"owner": order_id}),
            )

    async def _new_outputs(self, letter: Letter, message: wire.NewOutputs) -> None:
        row = await self._own_order(letter, message.order)
        locked = await self._world.store.read("locked_get", id=message.order)
        if row is not None and locked and locked[0]["state"] == "due":
            await self._locks.replace_outputs(locked[0], outputs_in(message))
            self.redeemer.wake()

    async def _say_lost(self, letter: Letter) -> None:
        """Act on nothing that was written before a restore; a person's talk is passed over."""
        found = await self.quarantine.finding(letter.text)
        why = "my records of that time were lost, and this is not acted on"
        if letter.address.dialect == "client":
            await self._counter.refuse(letter, "message-stale", f"{why}. {found}")
        elif find_tokens(letter.text)[0]:
            await self._counter.refuse(letter, "message-stale", why, taken=found)

    async def _query(self, letter: Letter, query: wire.Query) -> None:
        if query.statement is not None:
            await self.quarantine.honour(letter.author, query.statement)
        statement = await self._accounts.statement(letter.author)
        state = None
        if query.what == "order":
            state = await self._own_order(letter, query.order) or "unknown"
            if state in ("settled", "closed", "done", "refused"):
                await self._letterbox.send_again(query.order or "")
                await self.lightning.send_again(query.order or "")
        allowances, plans, plan = None, None, None
        if query.what == "allowances":
            allowances = self._allowances.states(await self._allowances.of(letter.author))
        if query.what == "plans":
            plans, plan = self._plans.offers(), await self._plans.state(letter.author)
        answer = wire.Answer(
            to=letter.id,
            balance_msat=await self._accounts.balance_msat(letter.author),
            statement=statement.as_dict(),
            state=state,
            allowances=allowances,
            plans=plans,
            plan=plan,
        )
        outgoing = await self._letterbox.seal(letter.address, answer, keep_s=3_600)
        await self._letterbox.send(outgoing)

    async def _say_no(self, letter: Letter, error: NostrllmError) -> None:
        """Answer a letter that is refused, if there is anybody to answer to."""
        if isinstance(error, RemoteError) and error.fraud in KINDS:
            await self.conduct.note(
                letter.author,
                error.fraud,
                said_at=letter.created_at,
                message=letter.id,
            )
        if isinstance(error, StoreError) and is_payload(letter.text):
            return  # a wallet sends once: the relay brings it again, and it must not be known then
        if error.code == "client-blocked" and self.conduct.is_told(letter.author):
            return
        if letter.address.dialect == "client":
            reply = wire.parse_reply(letter.text)
            if reply is None or not is_public_key(reply.key):
                return
            letter = letter.to(self._address(letter, reply))
        release = await self._given_back(letter)
        retry_after_s = error.retry_after_s if isinstance(error, RemoteError) else None
        await self._counter.refuse(
            letter, error.code, error.message, release, retry_after_s=retry_after_s
        )

    async def _given_back(self, letter: Letter) -> list[str] | None:
        """What takes back the token of a refused order, if it is locked to us and to give."""
        if letter.address.dialect != "client":
            return None
        try:
            order = wire.parse_from_client(letter.text)
            if isinstance(order, wire.Order) and isinstance(order.payment, wire.LockedPayment):
                return await self._locks.give_back(self._admission.offered(letter, order.payment))
        except RemoteError:
            return None
        return None
