"""The client as a library: adapters joined to the role, behind one object.

async with nostrllm.Client(relays=[…], mint="https://…") as client:
    answer = client.ask("What is a relay?")
    async for text in answer:
        print(text, end="")
    print(answer.result.cost_msat)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Final, ParamSpec

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import parse_pubkey
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.adapters.web import PublicWeb
from nostrllm.client import dm, follow, review
from nostrllm.client.answer import Answer
from nostrllm.client.ask import Buyer
from nostrllm.client.dm import Conversation
from nostrllm.client.exchange import Balance
from nostrllm.client.keepsakes import Bought, Keepsakes, Kept
from nostrllm.client.lnurl import Resolved, resolve
from nostrllm.client.quote import Question
from nostrllm.client.requests import Requests
from nostrllm.client.resume import late_answers, seen
from nostrllm.client.resume import resume as resume_open
from nostrllm.client.review import ReadReview
from nostrllm.client.settle import Outcome
from nostrllm.client.wallet import Wallet
from nostrllm.client.world import Square, World
from nostrllm.errors import ConfigError, LocalError, StoreError
from nostrllm.purse import Purse
from nostrllm.service.accounts import AccountBook
from nostrllm.service.market import Market, provider_key
from nostrllm.service.place import place
from nostrllm.service.secrets import key_made_once, private_folder, seed_made_once
from nostrllm.wire.review import Review

Wishes = ParamSpec("Wishes")

#: What stays open is looked at so often while a client runs.
RESUME_S: Final = 300.0


def _asking(
    made: Callable[Wishes, Question],
) -> Callable[
    [Callable[[Client, Question], Answer]], Callable[Concatenate[Client, Wishes], Answer]
]:
    """Give a method that takes a Question the arguments that a Question is made of.

    They are listed once, where they are explained: in `client.quote.Question`.
    """

    def given(
        ask: Callable[[Client, Question], Answer],
    ) -> Callable[Concatenate[Client, Wishes], Answer]:
        def with_wishes(client: Client, /, *prompt: Wishes.args, **wishes: Wishes.kwargs) -> Answer:
            return ask(client, made(*prompt, **wishes))

        with_wishes.__doc__ = ask.__doc__
        return with_wishes

    return given


class Client:
    """Buys answers, keeps a wallet, writes reviews; use it as `async with`, in one task.

    The state folder (mode 0700) holds the identity's key, the seed of wallet and pseudonyms, and
    the database; one process uses it at a time. `wallet` is the ecash, `requests` pays
    payment requests, `accounts` is what providers hold for us, `market` what anybody sees.
    """

    wallet: Wallet
    requests: Requests
    accounts: AccountBook
    market: Market

    def __init__(
        self,
        *,
        state: Path | str | None = None,
        relays: Sequence[str] = (),
        mint: str | None = None,
        devnet: Path | str | None = None,
    ) -> None:
        """See `place` for the defaults. Raises ConfigError."""
        self._local = devnet is not None
        self.place = place(state=state, relays=relays, mint=mint, devnet=devnet)
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resuming = asyncio.Lock()

    async def __aenter__(self) -> Client:
        """Open the state folder, connect, and finish in the background what is open.

        Raises LocalError `busy` while another process uses the folder, ConfigError, StoreError.
        """
        try:
            await self._open()
        except BaseException:
            await self._stack.__aexit__(None, None, None)
            raise
        return self

    async def _open(self) -> None:
        where, enter = self.place, self._stack.enter_async_context
        folder = private_folder(where.state)
        clock = SystemClock()
        keyring = LocalKeyring(clock)
        store = await enter(SqliteStore.open(folder / "client.db", ("purse", "client")))
        identity = keyring.signer(key_made_once(folder / "identity"))
        seed = seed_made_once(folder / "seed")
        mints = await enter(CashuMints())
        relays = await enter(WebsocketRelays(where.relays, keyring, clock))
        square = Square(relays, keyring, clock, where.relays)
        purse = Purse(store, mints, clock, seed)
        self._world = World(square, store, purse, mints, identity, seed, where.mint)
        self.wallet = Wallet(self._world)
        self.market = Market(square)
        self._buyer = Buyer(self._world, self.market.catalogue)
        self._web = await enter(PublicWeb(local=self._local))
        self.requests = Requests(self._world, self.wallet, self._web)
        self.accounts = AccountBook(self._world, self.market, self._buyer, self.followed)
        self._keepsakes = Keepsakes(self._world)
        self._group = await enter(asyncio.TaskGroup())
        self._start(self._keep())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; an order under way stays in the store and is finished by the next client."""
        for task in self._tasks:
            task.cancel()
        # not the block's error: a group inside would wrap it
        await self._stack.__aexit__(None, None, None)

    @property
    def pubkey(self) -> str:
        """The identity that signs reviews and lists; it never buys."""
        return self._world.identity.pubkey

    # answers

    @_asking(Question)
    def ask(self, question: Question) -> Answer:
        """Ask; the order is on its way at once, whoever reads.

        Takes the prompt (a text, or OpenAI messages) and the wishes that `Question` lists.
        `provider` may be an npub as well. Errors come out of the Answer.
        """
        answer = Answer()
        try:
            if question.provider is not None:
                question = replace(question, provider=provider_key(question.provider))
            if question.of is not None:
                question = replace(question, of=parse_pubkey(question.of))
        except ConfigError as error:
            answer._fail(error)
            return answer
        self._start(self._bring(question, answer))
        return answer

    async def purchases(self, count: int = 20) -> list[Bought]:
        """What was bought, newest first."""
        return await self._keepsakes.purchases(count)

    async def due(self) -> list[Bought]:
        """Answers that were given and never paid for, their locked coins being back; each is paid
        into the account with its provider when he is found."""
        return await self._keepsakes.due()

    async def late(self) -> list[Outcome]:
        """Answers that came after nobody waited any more; each stays until it was `seen`."""
        return await late_answers(self._buyer)

    async def seen(self, late: Iterable[Outcome]) -> None:
        """The user has these late answers; their texts are forgotten."""
        await seen(self._buyer, late)

    async def resume(self) -> list[Outcome]:
        """Finish what is open: orders, wallet operations, invoices that were paid meanwhile.

        Returns `late`.
        """
        await self._resume()
        await self.wallet.resume()
        await self.requests.resume()
        return await self.late()

    # the account with a provider, who is named by npub, hex or name

    async def balance(self, provider: str) -> Balance:
        """The account with a provider, as he signs it now."""
        return await self.accounts.balance(provider)

    async def last_balance(self, provider: str) -> Balance | None:
        """The account as the provider last signed it; he is not asked."""
        return await self._keepsakes.statement(await self.market.pubkey(provider))

    async def topup(self, provider: str, amount_sat: int) -> Balance:
        """Put coins from the wallet into the account with a provider.

        Anybody may bear any name, so one by name must be on our own list. Raises LocalError
        `provider-unknown`.
        """
        return await self.accounts.topup(provider, amount_sat)

    async def refund(self, provider: str) -> Balance:
        """Take the balance with a provider back into the wallet, in whole coins."""
        return await self.accounts.refund(provider)

    async def resolve(self, address: str, amount_msat: int) -> Resolved:
        """A Lightning invoice of this amount from a Lightning address or LNURL; see
        `client.lnurl.resolve` for what it raises."""
        return await resolve(self._web, address, amount_msat)

    # what the identity says in public, and in private

    async def receipt(self, provider: str) -> Kept | None:
        """The latest receipt of a provider, with the salt that opens it."""
        return await self._keepsakes.receipt(await self.market.pubkey(provider))

    async def review(
        self, provider: str, stars: int, text: str = "", *, with_receipt: bool = True
    ) -> ReadReview:
        """Rate a provider with 1 to 5 stars, over an older review; the latest receipt goes along.

        With it readers see that we bought, and the provider which order was ours. Raises LocalError
        for stars or a text out of bounds, RelayError.
        """
        key = await self.market.pubkey(provider)
        kept = await self._keepsakes.receipt(key) if with_receipt else None
        d = kept.d if kept is not None else (await self.market.listing(key)).announcement.d
        said = Review(
            author=self.pubkey,
            provider=key,
            d=d,
            rating=stars,
            text=text,
            created_at=self._world.square.now_s(),
            model=None if kept is None else kept.model,
            receipt=None if kept is None else kept.event,
            salt=None if kept is None else kept.salt,
        )
        event = await review.publish(self._world.square, self._world.identity, said)
        if kept is not None:
            await self._keepsakes.reviewed(kept.event.id)
        return ReadReview(event.id, said, kept is not None)

    async def reviews(self, provider: str) -> list[ReadReview]:
        """What people say of a provider: the newest word of each, newest first."""
        return await self.market.reviews(provider)

    async def followed(self) -> list[str]:
        """Our own public list of providers: their keys, in its order."""
        return await follow.followed(self._world.square, self.pubkey)

    async def follow(self, provider: str) -> list[str]:
        """Put a provider on our list; returns it."""
        key = await self.market.pubkey(provider)
        return await follow.follow(self._world.square, self._world.identity, key)

    async def unfollow(self, provider: str) -> list[str]:
        """Take a provider off our list; returns it."""
        key = await self.market.pubkey(provider)
        return await follow.unfollow(self._world.square, self._world.identity, key)

    @asynccontextmanager
    async def converse(self, peer: str) -> AsyncIterator[Conversation]:
        """Direct messages (NIP-17) with anybody, named by npub or hex, or with a provider by name.

        Raises RelayError.
        """
        key = await self.market.pubkey(peer)
        async with dm.converse(self._world.square, self._world.identity, key) as talk:
            yield talk

    # in the background

    async def _bring(self, question: Question, answer: Answer) -> None:
        """Supervise one order: however it ends, the answer's reader is told."""
        try:
            answer._finish(await self._buyer.ask(question, answer))
            answer._close()
        except asyncio.CancelledError:
            answer._fail(
                LocalError("the client was closed before the answer came", code="cancelled")
            )
            raise
        except Exception as error:  # noqa: BLE001 - told to the reader, who raises it
            answer._fail(error)

    async def _keep(self) -> None:
        """Finish what is open, again and again: locked coins come back only after their time."""
        while True:
            await self._resume()
            await self._world.square.clock.sleep(RESUME_S)

    async def _resume(self) -> None:
        async with self._resuming:
            try:
                await resume_open(self._world, self._buyer)
            except StoreError as error:
                raise LocalError(error.message, code=error.code) from error

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
