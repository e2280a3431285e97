"""Programs and persons who buy, each of whom remembers what he paid and counts what comes back."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from nostrllm.core import coins
from nostrllm.core.parts import Assemblies
from nostrllm.errors import MintRefused
from nostrllm.ports import Filter
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.event import Draft, Event, Rumor, rumor
from nostrllm.wire.token import Proof, Token, encode_token, find_tokens, parse_token
from tests.sim.keys import SimKeyring
from tests.sim.life import Life
from tests.sim.locking import Locked
from tests.sim.loop import START_S
from tests.sim.mint import URL, SimMint
from tests.sim.network import RELAYS, Network, SimRelays

Verdict = wire.Result | wire.Refused | wire.Answer
Kind = Literal["order", "account", "topup", "refund", "question", "payment", "locked"]
Wish = Callable[[str], Awaitable[None]]

_CODE: Final = re.compile(r"\[([a-z-]+)\]$")


@dataclass
class Sent:
    """A letter that asks for something, and every different final reply to it.

    `honest`: nobody else was given its coins and they are good. `insists_s`: how long he waits for
    the reply before he sends it again.
    """

    kind: Kind
    letter: Rumor
    question: str = ""
    proofs: tuple[Proof, ...] = ()
    honest: bool = True
    insists_s: float = 30.0
    ceiling_msat: int = 0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    locked: Locked | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Habits:
    """How often one wishes for something (at most), and how long he waits between (at most)."""

    wishes: int
    apart_s: float


class Client:
    """Somebody with a key, coins, and a subscription to his letters."""

    def __init__(
        self,
        name: str,
        habits: Habits,
        mint: SimMint,
        network: Network,
        keyring: SimKeyring,
        rng: random.Random,
    ) -> None:
        self.name = name
        self.habits = habits
        self.mint = mint
        self.network = network
        self.rng = rng
        self.me = keyring.signer()
        self.reply = keyring.signer()
        self.relays = SimRelays(network, name, Life(None, rng))
        self.sent: dict[str, Sent] = {}
        self.wrong: list[str] = []
        self.bought = self.melted = self.melt_fees = 0
        self._own: list[tuple[Proof, ...]] = []
        self._tokens_seen: set[str] = set()
        self._assemblies = Assemblies()

    # coins

    def coins(self, amount: int) -> tuple[Proof, ...]:
        """Fresh coins, remembered as bought."""
        self.bought += amount
        proofs = self.mint.issue(coins.split(amount), self.rng)
        self._own.append(proofs)
        return proofs

    def forged(self, amount: int) -> tuple[Proof, ...]:
        """Coins with somebody else's signatures on them."""
        return tuple(
            replace(proof, secret=self.rng.randbytes(32).hex()) for proof in self.coins(amount)
        )

    def melt(self, proofs: Sequence[Proof]) -> None:
        """Turn coins into money. Raises MintRefused."""
        self.melted += self.mint.melt(proofs)
        self.melt_fees += self.mint.fee(len(proofs))

    def got(self, text: str) -> None:
        """A token came: it must be worth what it says."""
        if text in self._tokens_seen:
            return
        self._tokens_seen.add(text)
        try:
            self.melt(parse_token(text).proofs)
        except MintRefused as error:
            self.wrong.append(f"{self.name}: change cannot be spent: {error}")

    def melt_what_is_left(self) -> None:
        """The coins he never gave away for good."""
        for proofs in self._own:
            left = [proof for proof in proofs if self.mint.unspent([proof])]
            if left:
                self.melt(left)

    # letters

    def write(self, kind: Kind, content: str, to: str, **fields: Any) -> Sent:
        """A letter that is not sent yet."""
        number = kinds.DM if kind == "question" or content[:1] != "{" else kinds.MESSAGE
        tags = (("p", to),) if number == kinds.DM else ()
        now = int(asyncio.get_running_loop().time())
        letter = rumor(Draft(number, content, now, tags), self.me.pubkey)
        insists_s = self.rng.choice((15.0, 30.0, 120.0))
        sent = Sent(kind, letter, insists_s=insists_s, **fields)
        self.sent[letter.id] = sent
        return sent

    async def insist(self, sent: Sent, to: str) -> None:
        """Send a letter, in one wrap or several, again and again until it is answered."""
        while not sent.done.is_set():
            for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
                await self.post(sent.letter, to)
            try:
                async with asyncio.timeout(sent.insists_s * self.rng.uniform(0.5, 1.5)):
                    await sent.done.wait()
            except TimeoutError:
                continue

    async def post(self, letter: Rumor, to: str) -> None:
        """Publish one wrap of a letter."""
        wrap = await self.me.wrap(letter, to, ephemeral=self.rng.random() < 0.2)
        await self.relays.publish(wrap)

    async def listen(self) -> None:
        """Hear what comes, for ever."""
        keys = (self.me.pubkey, self.reply.pubkey)
        wanted = Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": keys})
        async with self.relays.subscribe("mine", [wanted], stored_s=200_000) as events:
            async for event in events:
                await self._open(event)

    async def _open(self, event: Event) -> None:
        signer = self.me if event.value("p") == self.me.pubkey else self.reply
        letter = await signer.unwrap(event)
        if letter.kind == kinds.PART:
            whole = self._assemblies.add(letter, asyncio.get_running_loop().time())
            if whole is None:
                return
            letter = whole
        if letter.kind == kinds.DM:
            self.hear(letter.content)
        elif letter.kind == kinds.MESSAGE:
            self.hear_message(wire.parse_from_provider(letter.content))
        else:
            self.wrong.append(f"{self.name}: a letter of kind {letter.kind}")

    def hear(self, text: str) -> None:
        """A text in a direct message."""
        raise NotImplementedError

    def hear_message(self, message: Any) -> None:
        """A message of the protocol."""
        raise NotImplementedError


class Person(Client):
    """Asks one thing in one direct message with a token in it."""

    async def act(self, provider: str) -> None:
        """Wait a while, then ask."""
        rng = self.rng
        await asyncio.sleep(rng.uniform(0, self.habits.apart_s * 2.5))
        amount = rng.randrange(10, 200)
        proofs = self.coins(amount)
        question = f"{self.name}?"
        token = encode_token(Token(URL, "sat", proofs))
        topup = rng.random() < 0.2
        text = f"/topup {token}" if topup else f"{question} {token}"
        sent = self.write("question", text, provider, proofs=proofs)
        sent.question = "" if topup else question
        sent.ceiling_msat = amount * 1_000
        async with asyncio.TaskGroup() as group:
            group.create_task(self.insist(sent, provider))
            if rng.random() < 0.2:
                group.create_task(self._cancel(provider))

    async def _cancel(self, provider: str) -> None:
        await asyncio.sleep(self.rng.uniform(0, 10))
        now = int(asyncio.get_running_loop().time())
        draft = Draft(kinds.DM, "/cancel", now, (("p", provider),))
        await self.post(rumor(draft, self.me.pubkey), provider)

    def hear(self, text: str) -> None:
        """An answer, what it cost, change, or a refusal."""
        for token in find_tokens(text)[0]:
            self.got(token)
        for sent in self.sent.values():
            if text not in sent.texts:
                sent.texts.append(text)
            code = _CODE.search(text)
            refused = code is not None and "Nothing was taken" in text
            if text.startswith("Cost ") or refused or "added. Your balance" in text:
                sent.done.set()


class Program(Client):
    """Buys by the protocol: orders for tokens and from an account, top-ups, refunds, cancels."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._number = 0
        self._writing: asyncio.TaskGroup | None = None
        self._run_at = START_S + self.habits.apart_s * 3.5

    async def act(self, provider: str) -> None:
        """A few things at random times, each in its own right."""
        rng, wishes = self.rng, self.wishes()
        async with asyncio.TaskGroup() as group:
            self._writing = group
            for _ in range(rng.randint(1, self.habits.wishes)):
                await asyncio.sleep(rng.uniform(0, self.habits.apart_s))
                await rng.choice(wishes)(provider)
            if rng.random() < 0.5:  # all who do ask in the same moment
                await asyncio.sleep(max(0.0, self._run_at - asyncio.get_running_loop().time()))
                await self._refund(provider)

    def wishes(self) -> list[Wish]:
        """What there is to do."""
        return [
            *(self._order, self._order, self._topup, self._account, self._account),
            *(self._refund, self._order_twice, self._steal, self._forge),
        ]

    def hear_message(self, message: Any) -> None:
        """Count the change; a final reply ends the letter it names."""
        change = getattr(message, "change", None)
        if change is not None:
            self.got(change.token)
        number = message.to if isinstance(message, wire.Answer) else message.order
        sent = self.sent.get(number)
        if sent is None or isinstance(message, wire.Accepted):
            return
        if isinstance(message, wire.Answer) and message.state not in ("done", "refused"):
            return
        sent.verdicts[message.as_json()] = message
        sent.done.set()

    def _to(self) -> wire.ReplyTo:
        return wire.ReplyTo(key=self.reply.pubkey, relays=list(RELAYS))

    def _price(self, provider: str) -> str:
        lists = [
            event
            for url in RELAYS
            for event in self.network.stored[url].values()
            if event.kind == kinds.PRICE_LIST and event.pubkey == provider
        ]
        newest = max(lists, key=lambda event: (event.created_at, event.id), default=None)
        return newest.id if newest else "ab" * 32

    async def _send(self, sent: Sent, provider: str) -> Sent:
        assert self._writing is not None
        self._writing.create_task(self.insist(sent, provider))
        if sent.kind in ("order", "account") and self.rng.random() < 0.2:
            self._writing.create_task(self._cancel(sent, provider))
        self._writing.create_task(self._chat(sent, provider))
        return sent

    async def _chat(self, sent: Sent, provider: str) -> None:
        """Ask how it stands, and say that the reply came; both are of no consequence."""
        if self.rng.random() < 0.2:
            await asyncio.sleep(self.rng.uniform(0, 60))
            query = wire.Query(reply=self._to(), what="order", order=sent.letter.id)
            await self._say(query, provider)
        await sent.done.wait()
        if self.rng.random() < 0.2:
            await self._say(wire.Ack(reply=self._to(), order=sent.letter.id), provider)

    async def _cancel(self, sent: Sent, provider: str) -> None:
        await asyncio.sleep(self.rng.uniform(0, 8))
        await self._say(wire.Cancel(reply=self._to(), order=sent.letter.id), provider)

    async def _say(
        self, message: wire.Cancel | wire.Query | wire.Ack | wire.NewOutputs, provider: str
    ) -> None:
        now = int(asyncio.get_running_loop().time())
        draft = Draft(kinds.MESSAGE, message.as_json(), now)
        await self.post(rumor(draft, self.me.pubkey), provider)

    async def _buy(
        self,
        provider: str,
        payment: wire.TokenPayment | wire.AccountPayment | wire.LockedPayment,
        model: str = "m",
        **fields: Any,
    ) -> Sent:
        rng = self.rng
        self._number += 1
        question = f"{self.name}-{self._number}?"
        body = wire.ChatRequest(
            messages=[wire.ChatMessage(role="user", content=question)],
            max_tokens=rng.choice((None, 20, 64)),
        )
        now = int(asyncio.get_running_loop().time())
        order = wire.Order(
            reply=self._to(),
            model=model,
            body=body,
            price=self._price(provider),
            payment=payment,
            change=rng.choice(("ecash", "ecash", "account")),
            deadline=now + rng.randrange(20, 200),
            chunk_ms=rng.choice((None, 50)),
            c="cd" * 32,
            ceiling_msat=fields["ceiling_msat"],
        )
        by_kind: dict[str, Kind] = {"token": "order", "account": "account", "locked": "locked"}
        sent = self.write(by_kind[payment.kind], order.as_json(), provider, **fields)
        sent.question = question
        return await self._send(sent, provider)

    async def _pay(self, provider: str, proofs: tuple[Proof, ...], *, honest: bool) -> Sent:
        token = encode_token(Token(URL, "sat", proofs))
        worth = sum(proof.amount for proof in proofs) * 1_000
        ceiling = worth if self.rng.random() < 0.5 else worth * 3 // 4
        payment = wire.TokenPayment(token=token)
        return await self._buy(
            provider, payment, proofs=proofs, honest=honest, ceiling_msat=ceiling
        )

    async def _order(self, provider: str) -> None:
        await self._pay(provider, self.coins(self.rng.randrange(8, 200)), honest=True)

    async def _order_twice(self, provider: str) -> None:
        proofs = self.coins(self.rng.randrange(20, 200))
        await self._pay(provider, proofs, honest=False)
        await asyncio.sleep(self.rng.choice((0.0, 3.0)))
        if self.rng.random() < 0.3:
            await self._topup_with(provider, proofs, honest=False)
        else:
            await self._pay(provider, proofs, honest=False)

    async def _steal(self, provider: str) -> None:
        proofs = self.coins(self.rng.randrange(20, 200))
        await self._pay(provider, proofs, honest=False)
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        try:
            self.melt(proofs[: self.rng.choice((1, len(proofs)))])
        except MintRefused:
            return

    async def _forge(self, provider: str) -> None:
        await self._pay(provider, self.forged(self.rng.randrange(20, 200)), honest=False)

    async def _account(self, provider: str) -> None:
        ceiling = self.rng.randrange(5_000, 60_000)
        await self._buy(provider, wire.AccountPayment(), ceiling_msat=ceiling)

    async def _topup(self, provider: str) -> None:
        await self._topup_with(provider, self.coins(self.rng.randrange(20, 200)), honest=True)

    async def _topup_with(self, provider: str, proofs: tuple[Proof, ...], *, honest: bool) -> None:
        token = encode_token(Token(URL, "sat", proofs))
        message = wire.TopUp(reply=self._to(), token=token)
        sent = self.write("topup", message.as_json(), provider, proofs=proofs, honest=honest)
        await self._send(sent, provider)

    async def _refund(self, provider: str) -> None:
        message = wire.Refund(reply=self._to())
        # Two refunds in one second would be one rumor.
        await asyncio.sleep(1.0)
        await self._send(self.write("refund", message.as_json(), provider), provider)
