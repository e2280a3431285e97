"""A scripted provider on real relays and a real mint, which can misbehave in many ways.

It speaks through the same wire objects and adapters as the true one, and does what `Manners` say.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import nprofile
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core import parts
from nostrllm.core.money import cost_msat, unit_msat
from nostrllm.core.stream import pad
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import RemoteError
from nostrllm.ports import Filter, Keyring, Relays, Signer
from nostrllm.purse import Purse
from nostrllm.wire import kinds
from nostrllm.wire.announcement import (
    Announcement,
    ModelOffer,
    Price,
    Profile,
    announcement_draft,
    price_draft,
    price_pages,
)
from nostrllm.wire.event import Draft, Event, Rumor, rumor
from nostrllm.wire.message import Wire
from nostrllm.wire.order import (
    Accepted,
    AcceptedTerms,
    AccountPayment,
    Ack,
    Answer,
    Cancel,
    Change,
    Chunk,
    LockedPayment,
    NewOutputs,
    Order,
    Problem,
    Query,
    Refund,
    Refused,
    ReplyTo,
    Result,
    Statement,
    TopUp,
    Usage,
    parse_from_client,
)
from nostrllm.wire.receipt import Details, receipt_draft
from nostrllm.wire.token import Token, encode_token, parse_token
from tests.roles.locksmith import Locksmith, Locksmithing

MODEL = ModelOffer(
    id="parrot",
    name="Parrot",
    context=4_096,
    max_tokens=512,
    parameters=["temperature"],
    price=Price(input=1_000_000, output=20_000_000, request=500),
)
DAY_S = 86_400


@dataclass
class Manners:
    """How the counterpart behaves; as made, it is honest."""

    pieces: Sequence[str] = ("Polly ", "wants ", "a cracker.")
    shuffle_chunks: bool = False
    stream_other: bool = False
    stray_chunks: int = 0
    refuse: str | None = None
    refuse_like_an_order: bool = False
    fail: str | None = None
    deaf: bool = False
    silent: bool = False
    mute: bool = False
    take_and_be_silent: bool = False
    accept_late: bool = False
    accepted_by_stranger: bool = False
    accepted_for_more: bool = False
    overcharge_msat: int = 0
    charge_beyond_ceiling: bool = False
    prompt_tokens: int = 12
    wrong_sha: bool = False
    other_model: bool = False
    short_change: int = 0
    broken_change: bool = False
    no_change: bool = False
    forged_receipt: bool = False
    receipt_of_other: bool = False
    twice: bool = False
    by_stranger_too: bool = False
    unsigned_statement: bool = False
    fee_extra_msat: int = 0
    credit_all: bool = False
    unbooked: bool = False
    unstated: bool = False
    swallow_msat: int = 0
    locked: Locksmithing = field(default_factory=Locksmithing)
    other_coins: bool = False
    stalls: str = ""
    refund_at: str = ""
    before_result: Callable[[], None] = lambda: None


@dataclass
class Counterpart:
    """One provider; `orders`, `acks` and `queries` are what it heard."""

    relays: Relays
    keyring: Keyring
    identity: Signer
    purse: Purse
    relay_url: str
    mint_url: str
    name: str
    model: ModelOffer = MODEL
    mints: tuple[str, ...] = ()
    manners: Manners = field(default_factory=Manners)
    orders: list[tuple[Rumor, Order]] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    news: list[NewOutputs] = field(default_factory=list)
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    queries: list[str] = field(default_factory=list)
    results: dict[str, tuple[ReplyTo, Result]] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    smith: Locksmith = field(default_factory=Locksmith)
    seq: int = 0
    announced_at: int = 0
    clock: SystemClock = field(default_factory=SystemClock)
    acked: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pubkey(self) -> str:
        """Its key."""
        return self.identity.pubkey

    def now_s(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())

    # what it announces

    async def announce(self, *, lives_s: int = 600, promises_s: int = 600, late_s: int = 0) -> None:
        """Publish announcement and price list, dated `late_s` ahead."""
        now = self.announced_at = max(self.now_s() + late_s, self.announced_at + 1)
        pages = price_pages([self.model], seq=1, valid_until=now + promises_s)
        for page in pages:
            draft = price_draft(page, "main", now, now + DAY_S)
            await self._publish(await self.identity.sign(draft))
        announcement = Announcement(
            pubkey=self.pubkey,
            d="main",
            created_at=now,
            expiration=now + lives_s,
            mints=self.mints or (self.mint_url,),
            relays=(self.relay_url,),
            payment_key=self.smith.key,
            instance="test",
            price_seq=1,
            price_root=pages[0].root,
            profile=Profile(name=self.name),
        )
        address = nprofile(self.pubkey, [self.relay_url])
        draft = announcement_draft(announcement, nprofile=address, version="0")
        await self._publish(await self.identity.sign(draft))

    async def _publish(self, event: Event) -> None:
        published = await self.relays.publish(event)
        assert published.ok, published.failed

    # what it does with what it hears

    async def serve(self) -> None:
        """Answer for ever, one message after another."""
        wraps = Filter(
            kinds=(kinds.GIFT_WRAP, kinds.GIFT_WRAP_EPHEMERAL), tags={"p": (self.pubkey,)}
        )
        assembly = parts.Assemblies()
        async with self.relays.subscribe(
            "orders", [wraps], signer=self.identity, stored_s=3 * DAY_S
        ) as inbox:
            await self.announce()
            async for wrap in inbox:
                if self.manners.deaf:
                    continue
                inner: Rumor | None = await self.identity.unwrap(wrap)
                if inner is not None and inner.kind == kinds.PART:
                    inner = assembly.add(inner, self.clock.monotonic())
                if inner is not None:
                    await self._hear(inner)

    async def _hear(self, letter: Rumor) -> None:
        if letter.id in {known.id for known, _ in self.orders}:
            return
        match parse_from_client(letter.content):
            case Order() as order:
                self.orders.append((letter, order))
                self.heard.set()
                await self.answer(letter, order)
            case Query() as query:
                await self._query(letter, query)
            case Ack(order=order_id):
                self.acks.append(order_id)
                self.acked.set()
            case TopUp() as topup:
                await self._topup(letter, topup)
            case Refund() as refund:
                await self._refund(letter, refund)
            case NewOutputs() as news:
                self.news.append(news)
                await self._renewed(letter, news)
            case Cancel(order=order_id):
                self.cancelled.append(order_id)
                self.cancel.set()

    async def _query(self, letter: Rumor, query: Query) -> None:
        self.queries.append(query.what)
        if query.what == "order" and self.manners.stalls:
            to = letter.id if self.manners.stalls == "us" else "f" * 64
            await self.say(query.reply, Answer(to=to, state="running"))
            return
        if query.what == "order":
            known = query.order in self.results
            if known and not self.manners.take_and_be_silent:
                await self.say(*self.results[query.order or ""])
            state = "settled" if known else "unknown"
            await self.say(query.reply, Answer(to=letter.id, state=state))
            return
        statement = await self.statement(letter.pubkey)
        await self.say(query.reply, Answer(to=letter.id, statement=statement.as_dict()))

    async def _renewed(self, letter: Rumor, news: NewOutputs) -> None:
        order = next(order for old, order in self.orders if old.id == news.order)
        _, result = self.results[news.order]
        payment = order.payment.model_copy(update={"outputs": news.outputs})
        again = order.model_copy(update={"payment": payment})
        manners = replace(self.manners.locked, stale=False)
        settled = await self.smith.settle(self.purse, letter.id, again, result, manners, news.order)
        assert settled is not None
        await self.say(order.reply, settled)

    async def _topup(self, letter: Rumor, topup: TopUp) -> None:
        if self.manners.refuse is not None:
            problem = Problem(code=self.manners.refuse, message="no")
            no: Wire = Answer(to=letter.id, problem=problem)
            if self.manners.refuse_like_an_order:
                no = Refused(order=letter.id, problem=problem)
            await self.say(topup.reply, no)
            return
        token = parse_token(topup.token)
        outcome = await self.purse.receive(letter.id, token)
        self.credit(letter.pubkey, outcome.net * unit_msat(token.unit))
        statement = await self.statement(letter.pubkey)
        await self.say(topup.reply, Answer(to=letter.id, statement=statement.as_dict()))

    async def _refund(self, letter: Rumor, refund: Refund) -> None:
        units = self.balances.get(letter.pubkey, 0) // 1_000 - 2
        self.credit(letter.pubkey, -units * 1_000)
        units -= self.manners.short_change
        mint = self.manners.refund_at or self.mint_url
        token = await self.purse.send(letter.id, mint, "sat", units)
        statement = await self.statement(letter.pubkey)
        answer = Answer(to=letter.id, statement=statement.as_dict(), change=_change(token))
        await self.say(refund.reply, answer)

    def credit(self, account: str, msat: int) -> None:
        """Change a balance."""
        self.seq += 1
        booked = 0 if self.manners.unbooked else msat - self.manners.swallow_msat
        self.balances[account] = max(0, self.balances.get(account, 0) + booked)

    async def statement(self, account: str) -> Event:
        """Kind 25428."""
        content = Statement(
            account=account, seq=self.seq, balance_msat=self.balances.get(account, 0)
        )
        draft = Draft(kinds.STATEMENT, content.as_json(), self.now_s())
        event = await self.identity.sign(draft)
        if self.manners.unsigned_statement:
            return replace(event, sig="0" * 128)
        return event

    # an order

    async def answer(self, letter: Rumor, order: Order) -> None:
        manners = self.manners
        if manners.refuse is not None:
            await self._refuse(letter, order, manners.refuse)
            return
        if manners.silent:
            return
        session = self.keyring.signer()
        held, fee_msat = await self._pay(letter, order)
        if manners.take_and_be_silent:
            return
        accepted = await self._accepted(letter, order, session)
        if not manners.accept_late:
            await self._accept(letter, order, session, accepted)
        await self._stream(order, session)
        if manners.accept_late:
            await self._accept(letter, order, session, accepted)
        result = await self._result(letter, order, (held, fee_msat), accepted)
        self.results[letter.id] = (order.reply, result)
        if manners.locked.settles_first:
            await self._settle(letter, order, result)
        manners.before_result()
        if manners.by_stranger_too:
            forged = result.model_copy(update={"text": "forged", "sha256": _sha("forged")})
            await self.say(order.reply, forged, by=self.keyring.signer())
        await self.say(order.reply, result)
        if manners.twice:
            await self.say(order.reply, result)
        if not manners.locked.settles_first:
            await self._settle(letter, order, result)

    async def _refuse(self, letter: Rumor, order: Order, code: str) -> None:
        self.manners.before_result()
        problem = Problem(code=code, message="not today")
        release = self.smith.released(order, self.manners.locked)
        if self.manners.locked.release == "taken":
            assert await self.take(letter, order)
        await self.say(order.reply, Refused(order=letter.id, problem=problem, release=release))

    async def _settle(self, letter: Rumor, order: Order, result: Result) -> None:
        """Have locked coins swapped, and say so."""
        locked = isinstance(order.payment, LockedPayment) and not self.manners.locked.swaps_first
        if not locked or (not result.cost_msat and self.manners.locked.release != "taken"):
            return
        settled = await self.smith.settle(self.purse, letter.id, order, result, self.manners.locked)
        self.settled.set()
        if settled is not None and settled.credit_msat:
            self.credit(letter.pubkey, settled.credit_msat)
            statement = (await self.statement(letter.pubkey)).as_dict()
            settled = settled.model_copy(update={"statement": statement})
        if settled is not None:
            await self.say(order.reply, settled)

    async def take(self, letter: Rumor, order: Order) -> bool:
        """Swap locked coins without a word; were they still there?"""
        token = parse_token(order.payment.token)  # type: ignore[union-attr]
        return (await self.smith.swapped(self.purse, letter.id, token)).state == "DONE"

    async def _pay(self, letter: Rumor, order: Order) -> tuple[Token | None, int]:
        if isinstance(order.payment, AccountPayment):
            return None, 0
        token = parse_token(order.payment.token)
        if isinstance(order.payment, LockedPayment):
            if not self.manners.locked.swaps_first:
                fee = await self.smith.fee(self.purse, token)
                return token, fee * unit_msat(token.unit) + self.manners.fee_extra_msat
            outcome = await self.smith.swapped(self.purse, letter.id, token)
        else:
            outcome = await self.purse.receive(letter.id, token)
        if outcome.state != "DONE":
            problem = Problem(code="payment-token-spent", message="gone")
            await self.say(order.reply, Refused(order=letter.id, problem=problem))
            raise RemoteError("the token was spent", code="payment-token-spent")
        return token, outcome.fee * unit_msat(token.unit) + self.manners.fee_extra_msat

    async def _accepted(self, letter: Rumor, order: Order, session: Signer) -> Event:
        terms = AcceptedTerms(
            order=letter.id,
            client=letter.pubkey,
            price=order.price,
            model=order.model,
            ceiling_msat=order.ceiling_msat + (1_000 if self.manners.accepted_for_more else 0),
            payment=self._paid_with(letter, order),
            session=session.pubkey,
        )
        signer = self.keyring.signer() if self.manners.accepted_by_stranger else self.identity
        return await signer.sign(Draft(kinds.ACCEPTED, terms.as_json(), self.now_s()))

    def _paid_with(self, letter: Rumor, order: Order) -> str:
        """sha256 over the sorted Ys of the coins; the order's id where an account pays."""
        if self.manners.other_coins:
            return "0" * 64
        if isinstance(order.payment, AccountPayment):
            return letter.id
        token = parse_token(order.payment.token)
        ys = sorted(y_of(proof.secret) for proof in token.proofs)
        return _sha("".join(ys))

    async def _accept(self, letter: Rumor, order: Order, session: Signer, accepted: Event) -> None:
        message = Accepted(order=letter.id, event=accepted.as_dict(), session=session.pubkey)
        await self.say(order.reply, message)

    async def _stream(self, order: Order, session: Signer) -> None:
        if order.chunk_ms is None:
            return
        pieces = ["Nobody "] if self.manners.stream_other else self.manners.pieces
        numbered = list(enumerate(pieces))
        if self.manners.shuffle_chunks:
            numbered = [*reversed(numbered), numbered[0]]
        for number in range(self.manners.stray_chunks):
            await self._chunk(order.reply, self.keyring.signer(), Chunk(seq=number, text="stray"))
        for number, text in numbered:
            await self._chunk(order.reply, session, Chunk(seq=number, text=text))

    async def _chunk(self, reply: ReplyTo, session: Signer, chunk: Chunk) -> None:
        content = await session.encrypt(pad(chunk.as_json()), reply.key)
        draft = Draft(kinds.CHUNK, content, self.now_s(), (("p", reply.key),))
        await self.relays.publish(await session.sign(draft), to=reply.relays)

    async def _result(
        self, letter: Rumor, order: Order, paid: tuple[Token | None, int], accepted: Event
    ) -> Result:
        manners = self.manners
        text = "".join(manners.pieces)
        usage = Usage(prompt=manners.prompt_tokens, completion=len(manners.pieces))
        token, fee_msat = paid
        cost = 0 if manners.fail else cost_msat(self.model.price, usage) + manners.overcharge_msat
        if manners.charge_beyond_ceiling:
            cost = order.ceiling_msat + 1_000
        change, signed, release, credit = None, None, None, 0
        if isinstance(order.payment, LockedPayment) and not manners.locked.swaps_first:
            assert token is not None
            if cost:
                signed, credit = self.smith.promise(order, token, fee_msat + cost, manners.locked)
            else:
                release, fee_msat = self.smith.released(order, manners.locked), 0
        elif token is not None:
            change, credit = await self._change(letter, token, fee_msat + cost)
        else:
            self.credit(letter.pubkey, -cost)
        statement = None
        if (credit or isinstance(order.payment, AccountPayment)) and not manners.unstated:
            self.credit(letter.pubkey, credit)
            statement = (await self.statement(letter.pubkey)).as_dict()
        receipt, details = await self._receipt(letter, order, usage, cost)
        return Result(
            order=letter.id,
            text="" if manners.fail else text,
            sha256="0" * 64 if manners.wrong_sha else _sha("" if manners.fail else text),
            finish_reason="stop",
            model="cuckoo" if manners.other_model else order.model,
            usage=usage,
            cost_msat=cost,
            fee_msat=fee_msat,
            change=change,
            signed=signed,
            release=release,
            credit_msat=credit,
            statement=statement,
            accepted=accepted.as_dict(),
            receipt=receipt.as_dict() if receipt else None,
            details=details.model_dump() if receipt else None,
            problem=Problem(code=manners.fail, message="broke") if manners.fail else None,
        )

    async def _change(
        self, letter: Rumor, token: Token, spent_msat: int
    ) -> tuple[Change | None, int]:
        coin = unit_msat(token.unit)
        rest = max(0, token.amount * coin - spent_msat)
        units, credit = rest // coin, rest % coin
        if self.manners.no_change:
            return None, credit
        if self.manners.credit_all:
            return None, rest
        units -= self.manners.short_change
        if units <= 1:
            return None, rest
        made = await self.purse.send(f"{letter.id}:change", token.mint, token.unit, units)
        change = _change(made)
        if self.manners.broken_change:
            bad = Token(made.mint, made.unit, tuple(_bent(proof) for proof in made.proofs))
            return change.model_copy(update={"token": encode_token(bad)}), credit
        return change, credit

    async def _receipt(
        self, letter: Rumor, order: Order, usage: Usage, cost: int
    ) -> tuple[Event | None, Details]:
        details = Details(
            order="0" * 64 if self.manners.receipt_of_other else letter.id,
            price=order.price,
            mint=self.mint_url,
            cost_msat=cost,
            usage=usage,
            nonce=secrets.token_hex(32),
        )
        if not cost:
            return None, details
        draft = receipt_draft(order.c, order.model, details, self.now_s())
        event = await self.identity.sign(draft)
        if self.manners.forged_receipt:
            event = replace(event, sig="0" * 128)
        return event, details

    async def say(self, reply: ReplyTo, message: Wire, *, by: Signer | None = None) -> None:
        """Send one message to a reply key, in parts if need be."""
        if self.manners.mute:
            return
        signer = by or self.identity
        now = self.now_s()
        whole = rumor(Draft(kinds.MESSAGE, message.as_json(), now), signer.pubkey)
        letters = [whole]
        if not parts.fits(whole):
            letters = [rumor(draft, signer.pubkey) for draft in parts.split(whole, now)]
        for letter in letters:
            wrap = await signer.wrap(letter, reply.key, expiration=now + DAY_S)
            await self.relays.publish(wrap, to=reply.relays)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _change(token: Token) -> Change:
    return Change(mint=token.mint, unit=token.unit, amount=token.amount, token=encode_token(token))


def _bent(proof: Any) -> Any:
    """The same coin with a secret that the mint never signed, and no proof to the contrary."""
    return type(proof)(proof.id, proof.amount, secrets.token_hex(32), proof.C)


@asynccontextmanager
async def counterpart(
    folder: Path,
    relay_url: str,
    mint_url: str,
    *,
    before: Counterpart | None = None,
    **manners: Any,
) -> AsyncIterator[Counterpart]:
    """A provider that serves as long as the block lasts, with 200 sat of its own for change.

    `before`: as it was before it was stopped, with another purse; it does not hear orders again.
    """
    clock = SystemClock()
    keyring = LocalKeyring(clock)
    identity = before.identity if before is not None else keyring.signer()
    async with (
        SqliteStore.open(f"{folder}-counterpart.db", ("purse",)) as store,
        CashuMints() as mints,
        WebsocketRelays([relay_url], keyring, clock) as relays,
    ):
        purse = Purse(store, mints, clock, secrets.token_bytes(64))
        quote = await purse.fund(mint_url, 200)
        assert (await purse.claim_quote(quote.quote, wait_s=10)).state == "DONE"
        name = f"Bird {identity.pubkey[:8]}"
        bird = Counterpart(relays, keyring, identity, purse, relay_url, mint_url, name)
        bird.manners = Manners(**manners)
        if before is not None:
            bird.orders, bird.seq, bird.balances = before.orders, before.seq, before.balances
            bird.announced_at = before.announced_at
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(bird.serve())
            await _announced(bird)
            try:
                yield bird
            finally:
                serving.cancel()


async def _announced(bird: Counterpart) -> None:
    """Wait until the relay has its announcement."""
    wanted = Filter(kinds=(kinds.ANNOUNCEMENT,), authors=(bird.pubkey,))
    async with asyncio.timeout(20):
        async with bird.relays.subscribe("own", [wanted]) as seen:
            async for _ in seen:
                return
