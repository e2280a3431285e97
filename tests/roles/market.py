"""A provider in this process and people who write to it, over a real relay and a real mint."""

from __future__ import annotations

import asyncio
import json
import secrets
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import nprofile, to_nsec
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.core.parts import Assemblies
from nostrllm.core.stream import unpad
from nostrllm.ports import Filter, Signer, Store, Subscription
from nostrllm.provider.daemon import Daemon
from nostrllm.provider.shop import World
from nostrllm.purse import Purse
from nostrllm.service.config import ProviderConfig
from nostrllm.service.provider import opened
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_announcement, parse_price_page
from nostrllm.wire.event import Draft, Event, Rumor, rumor
from nostrllm.wire.token import Token, encode_token, find_tokens, parse_token

MODEL = "smollm2-135m"
WAIT_S = 30.0
CLOCK = SystemClock()
KEYRING = LocalKeyring(CLOCK)

CONFIG = """
[provider]
name = "Test Stall"
state = "{state}"
key_file = "{state}/nsec"
relays = {relays}
mints = ["{mint}"]
nip04 = true
payment_sat_max = 2000
balance_sat_max = 5000
drain_s = 5.0
{provider}

{backend}

[[model]]
id = "smollm2-135m"
upstream = "smollm2"
context = 2048
max_tokens = 64
input_msat_per_mtok = 20_000_000
output_msat_per_mtok = 60_000_000
request_msat = 1_000

[[model]]
id = "free"
upstream = "smollm2"
context = 100_000
input_msat_per_mtok = 0
output_msat_per_mtok = 0
"""


BACKEND = """
[[backend]]
kind = "openai"
url = "{engine}"
slots = 2
"""


def config_text(
    state: Path,
    relays: list[str],
    mint: str,
    engine: str,
    provider: str = "",
    *,
    backend: str = BACKEND,
) -> str:
    """A provider's TOML file; the key beside it is made on the way."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = state / "nsec"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(to_nsec(secrets.token_bytes(32)))
    return CONFIG.format(
        state=state,
        relays=json.dumps(relays),
        mint=mint,
        backend=backend.format(engine=engine),
        provider=provider,
    )


@dataclass
class Stall:
    """A provider that runs, and how to stop it."""

    daemon: Daemon
    world: World
    stop: asyncio.Event

    @property
    def pubkey(self) -> str:
        """Whom to write to."""
        return self.world.identity.pubkey

    async def books(self) -> dict[str, int]:
        """The ledger's balances; they sum to zero or the ledger is broken."""
        rows = await self.world.store.read("posting_balances")
        balances = {str(row["account"]): int(row["msat"]) for row in rows}
        assert sum(balances.values()) == 0
        return {name: msat for name, msat in balances.items() if msat}

    async def orders(self) -> list[dict[str, Any]]:
        """Every stored order's state and money."""
        return [dict(row) for row in await self.world.store.read("orders_all")]


@asynccontextmanager
async def selling(text: str) -> AsyncIterator[Stall]:
    """A provider for this configuration, announced and listening; drained at the end."""
    config = ProviderConfig.model_validate(tomllib.loads(text))
    shop = config.shop("0.0.0")
    async with opened(config, shop) as (world, seed):
        address = nprofile(world.identity.pubkey, shop.relays)
        daemon = Daemon(world, shop, seed=seed, nprofile=address)
        stop, ready = asyncio.Event(), asyncio.Event()

        async def announced() -> None:
            ready.set()

        async with asyncio.TaskGroup() as group:
            running = group.create_task(daemon.run(stop, announced))
            async with asyncio.timeout(WAIT_S):
                await ready.wait()
            try:
                yield Stall(daemon, world, stop)
            finally:
                stop.set()
                await running


FromClient = wire.ClientMessage


@dataclass
class Buyer:
    """A key, a wallet and relays; speaks both dialects by hand."""

    me: Signer
    purse: Purse
    store: Store
    relays: WebsocketRelays
    mint: str
    letters: Subscription
    _assemblies: Assemblies = field(default_factory=Assemblies)

    async def token(self, amount: int) -> str:
        """A token of exactly this many sat."""
        made = await self.purse.send(secrets.token_hex(8), self.mint, "sat", amount)
        return encode_token(made)

    async def worth(self, text: str) -> int:
        """Receive the token in a text; what came in, after the mint's fee."""
        [token], _ = find_tokens(text)
        outcome = await self.purse.receive(secrets.token_hex(8), parse_token(token))
        assert outcome.state == "DONE"
        return outcome.net

    # a person

    async def say(self, to: str, text: str, *, age_s: int = 0, also: tuple[str, ...] = ()) -> Rumor:
        """Write a direct message (NIP-17)."""
        tags = tuple(("p", key) for key in (to, *also))
        letter = rumor(Draft(kinds.DM, text, int(CLOCK.now()) - age_s, tags), self.me.pubkey)
        await self.send(letter, to)
        return letter

    async def send(self, letter: Rumor, to: str, copies: int = 1) -> None:
        """Wrap and publish a letter."""
        for _ in range(copies):
            wrap = await self.me.wrap(letter, to)
            published = await self.relays.publish(wrap)
            assert published.ok, published.failed

    async def heard(self, author: str) -> str:
        """The next direct message from `author`."""
        async with asyncio.timeout(WAIT_S):
            async for event in self.letters:
                letter = await self.me.unwrap(event)
                if letter.pubkey == author and letter.kind == kinds.DM:
                    return letter.content
        raise AssertionError

    async def heard_until(self, author: str, mark: str) -> list[str]:
        """Direct messages up to and with the first that contains `mark`."""
        said: list[str] = []
        while not said or mark not in said[-1]:
            said.append(await self.heard(author))
        return said

    # a program

    async def price(self, provider: str) -> str:
        """The id of the newest price list."""
        wanted = Filter(kinds=(kinds.PRICE_LIST,), authors=(provider,))
        events = await self.relays.fetch([wanted])
        parse_price_page(events[0])
        return events[0].id

    async def order(
        self,
        provider: str,
        payment: wire.TokenPayment | wire.LockedPayment | wire.AccountPayment,
        *,
        reply: Signer,
        **fields: Any,
    ) -> wire.Order:
        """A complete order; `fields` replace what it has."""
        relay = self.relays.status()[0].url
        values: dict[str, Any] = {
            "reply": wire.ReplyTo(key=reply.pubkey, relays=[relay]),
            "model": MODEL,
            "body": question("What is the capital of France?"),
            "price": await self.price(provider),
            "ceiling_msat": 60_000,
            "payment": payment,
            "deadline": int(CLOCK.now()) + 30,
            "c": "ab" * 32,
            "chunk_ms": 50,
        }
        return wire.Order(**{**values, **fields})

    def message(self, content: FromClient) -> Rumor:
        """The rumor that carries a message of our protocol."""
        draft = Draft(kinds.MESSAGE, content.as_json(), int(CLOCK.now()))
        return rumor(draft, self.me.pubkey)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Replies]:
        """A fresh reply key and what comes to it."""
        key = KEYRING.signer()
        async with AsyncExitStack() as stack:
            subscriptions = []
            for kind in (kinds.GIFT_WRAP, kinds.CHUNK):
                wanted = Filter(kinds=(kind,), tags={"p": (key.pubkey,)})
                name = f"reply-{kind}-{key.pubkey[:8]}"
                subscriptions.append(
                    await stack.enter_async_context(
                        self.relays.subscribe(name, [wanted], stored_s=200_000)
                    )
                )
            yield Replies(key, subscriptions[0], subscriptions[1])


@dataclass
class Replies:
    """What a provider sends to a reply key."""

    key: Signer
    wraps: Subscription
    chunks: Subscription
    assemblies: Assemblies = field(default_factory=Assemblies)

    async def next(self) -> wire.Accepted | wire.Refused | wire.Result | wire.Settled | wire.Answer:
        """The next whole message."""
        async with asyncio.timeout(WAIT_S):
            async for event in self.wraps:
                letter: Rumor | None = await self.key.unwrap(event)
                assert letter is not None
                if letter.kind == kinds.PART:
                    letter = self.assemblies.add(letter, CLOCK.now())
                if letter is not None:
                    return wire.parse_from_provider(letter.content)
        raise AssertionError

    async def result(self) -> wire.Result:
        """The next message that is a result."""
        while True:
            message = await self.next()
            if isinstance(message, wire.Result):
                return message

    async def stream(self, session: str) -> str:
        """The chunks of a session key up to its end, in order."""
        pieces: dict[int, str] = {}
        async with asyncio.timeout(WAIT_S):
            async for event in self.chunks:
                assert event.pubkey == session
                text = await self.key.decrypt(event.content, session)
                chunk = wire.parse_chunk(unpad(text))
                pieces[chunk.seq] = chunk.text
                if chunk.frame in ("close", "abort"):
                    break
        return "".join(pieces[n] for n in sorted(pieces))


def question(text: str, **fields: Any) -> wire.ChatRequest:
    """A request that the small model answers sensibly."""
    system = wire.ChatMessage(role="system", content="You are a helpful assistant.")
    asked = wire.ChatMessage(role="user", content=text)
    return wire.ChatRequest(messages=[system, asked], **{"max_tokens": 24, **fields})


@asynccontextmanager
async def buying(relay: str, mint: str, tmp: Path, amount: int = 500) -> AsyncIterator[Buyer]:
    """Somebody with a funded wallet."""
    me = KEYRING.signer()
    async with (
        SqliteStore.open(tmp / f"{me.pubkey[:8]}.db", ("purse",)) as store,
        CashuMints() as mints,
        WebsocketRelays([relay], KEYRING, CLOCK) as relays,
    ):
        purse = Purse(store, mints, CLOCK, secrets.token_bytes(64))
        if amount:
            quote = await purse.fund(mint, amount)
            outcome = await purse.claim_quote(quote.quote, wait_s=WAIT_S)
            assert outcome.state == "DONE"
        mine = Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (me.pubkey,)})
        async with relays.subscribe("dm", [mine], stored_s=200_000) as letters:
            yield Buyer(me, purse, store, relays, mint, letters)


def announced(events: list[Event], provider: str) -> list[Event]:
    """The provider's announcement among others."""
    return [event for event in events if parse_announcement(event).pubkey == provider]


def as_token(text: str) -> Token:
    """The token in a text."""
    [token], _ = find_tokens(text)
    return parse_token(token)
