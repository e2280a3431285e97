"""The client as a library: adapters joined to the role, behind one object.

async with nostrllm.Client(relays=[…], mint="https://…") as client:
    answer = client.ask("What is a relay?")
    async for text in answer:
        print(text, end="")
    print(answer.result.cost_msat)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypedDict, Unpack

from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.keys_sdk import parse_pubkey, to_npub
from nostrllm.adapters.mint_cashu import CashuMints
from nostrllm.adapters.relays_websockets import WebsocketRelays
from nostrllm.adapters.signer_local import LocalKeyring
from nostrllm.adapters.store_sqlite import SqliteStore
from nostrllm.client.account import Accounts, Balance
from nostrllm.client.answer import Answer
from nostrllm.client.ask import Buyer
from nostrllm.client.discover import Catalogue, Listing, Offer
from nostrllm.client.keepsakes import Keepsakes
from nostrllm.client.quote import Prompt, Question
from nostrllm.client.resume import resume
from nostrllm.client.settle import Outcome
from nostrllm.client.world import Square, World
from nostrllm.core.money import UNIT_MSAT
from nostrllm.errors import ConfigError, LocalError, StoreError, WorldError
from nostrllm.purse import Purse
from nostrllm.service.relaylist import default_relays
from nostrllm.service.secrets import key_made_once, private_folder, seed_made_once
from nostrllm.wire.token import normal_url

#: The environment's word for where a user's programs keep what is theirs.
XDG_DATA_HOME: Final = "XDG_DATA_HOME"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client lives: its private folder, its relays, and the mint it prefers."""

    state: Path
    relays: tuple[str, ...]
    mint: str | None = None


class Wishes(TypedDict, total=False):
    """What `Client.ask` takes besides the prompt; see `client.quote.Question`."""

    provider: str | None
    model: str | None
    max_tokens: int | None
    max_msat: int | None
    pay: Literal["token", "account"]
    change: Literal["ecash", "account"]
    stream: bool
    deadline_s: float
    parameters: Mapping[str, Any]
    on_quote: Any


def place(
    *,
    state: Path | str | None = None,
    relays: Sequence[str] = (),
    mint: str | None = None,
    devnet: Path | str | None = None,
) -> Place:
    """The client's place from what was said and from defaults; `devnet` names a devnet.json.

    Raises ConfigError for a file or URL that is none.
    """
    if devnet is not None:
        path = Path(devnet).absolute()
        path = path / "devnet.json" if path.is_dir() else path
        found = _devnet(path)
        state = state or path.parent / "client"
        relays, mint = relays or found[0], mint or found[1]
    urls = tuple(relays) or (*default_relays("inbox"), *default_relays("discovery"))
    if not all(url.startswith(("ws://", "wss://")) for url in urls):
        raise ConfigError("a relay's URL begins with wss:// or ws://")
    folder = _data_home() / "nostrllm" / "client" if state is None else Path(state)
    return Place(
        folder.absolute(), tuple(dict.fromkeys(urls)), None if mint is None else normal_url(mint)
    )


@asynccontextmanager
async def market(where: Place) -> AsyncIterator[Market]:
    """The public part alone: no key, no wallet, no lock; any number at a time."""
    clock = SystemClock()
    keyring = LocalKeyring(clock)
    relays = WebsocketRelays(where.relays, keyring, clock)
    async with relays:
        yield Market(Square(relays, keyring, clock, where.relays))


class Market:
    """What anybody can see."""

    def __init__(self, square: Square) -> None:
        self.square = square
        self.catalogue = Catalogue(square.relays, square.clock)

    async def listings(self) -> list[Listing]:
        """Every provider whose heartbeat is alive, with his models and prices."""
        return await self.catalogue.listings()

    async def listing(self, provider: str) -> Listing:
        """One provider, by npub, hex or name. Raises LocalError `provider-unknown`."""
        wanted = provider_key(provider)
        found = [
            one
            for one in await self.catalogue.listings()
            if wanted in (one.announcement.pubkey, one.announcement.profile.name)
        ]
        if len(found) != 1:
            what = "several providers have that name" if found else "that provider is not there"
            raise LocalError(f"{what}; use his public key", code="provider-unknown")
        return found[0]

    async def pubkey(self, provider: str) -> str:
        """A provider's key in hex; a name is looked up. Raises LocalError `provider-unknown`."""
        wanted = provider_key(provider)
        if len(wanted) == 64:
            return wanted
        return (await self.listing(provider)).announcement.pubkey

    async def offer(self, provider: str) -> Offer:
        """Any one offer of a provider: how he is reached. Raises LocalError."""
        offers = (await self.listing(provider)).offers
        if not offers:
            raise LocalError("that provider offers nothing now", code="provider-unknown")
        return offers[0]


class Client:
    """Buys answers, keeps a wallet, writes reviews; use it as `async with`, in one task.

    The state folder (mode 0700) holds the identity's key, the seed of wallet and pseudonyms, and
    the database; one process uses it at a time.
    """

    def __init__(
        self,
        *,
        state: Path | str | None = None,
        relays: Sequence[str] = (),
        mint: str | None = None,
        devnet: Path | str | None = None,
    ) -> None:
        """See `place` for the defaults. Raises ConfigError."""
        self.place = place(state=state, relays=relays, mint=mint, devnet=devnet)
        self.late: list[Outcome] = []
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resuming = asyncio.Lock()

    async def __aenter__(self) -> Client:
        """Open the state folder, connect, and finish in the background what is open.

        Raises LocalError while another process uses the folder, ConfigError, StoreError.
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
        try:
            store = await enter(SqliteStore.open(folder / "client.db", ("purse", "client")))
        except ConfigError:
            raise
        except LocalError as error:
            message = f"another command uses {folder}: wait for it, or give another --state"
            raise LocalError(message, code="busy") from error
        identity = keyring.signer(key_made_once(folder / "identity"))
        seed = seed_made_once(folder / "seed")
        mints = await enter(CashuMints())
        relays = await enter(WebsocketRelays(where.relays, keyring, clock))
        self.wallet = Purse(store, mints, clock, seed)
        square = Square(relays, keyring, clock, where.relays)
        self.world = World(square, store, self.wallet, mints, identity, seed, where.mint)
        self.market = Market(square)
        self._buyer = Buyer(self.world, self.market.catalogue)
        self.accounts = Accounts(self.world, self._buyer)
        self.keepsakes = Keepsakes(self.world)
        self._group = await enter(asyncio.TaskGroup())
        self._start(self._resume())

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
        return self.world.identity.pubkey

    def ask(self, prompt: Prompt, **wishes: Unpack[Wishes]) -> Answer:
        """Ask; the order is on its way at once, whoever reads.

        `prompt`: a text, or OpenAI messages. Errors come out of the Answer.
        """
        answer = Answer()
        try:
            question = Question(prompt, **wishes)
            if question.provider is not None:
                wishes["provider"] = provider_key(question.provider)
                question = Question(prompt, **wishes)
        except ConfigError as error:
            answer.fail(error)
            return answer
        self._start(self._bring(question, answer))
        return answer

    async def preferred_mint(self) -> str:
        """The mint to fund at and send from: the chosen one, else where most of the money is.

        Raises ConfigError when neither is known.
        """
        if self.place.mint is not None:
            return self.place.mint
        held = await self.wallet.balance()
        if not held:
            raise ConfigError("name a mint you trust: --mint URL")
        return max(held, key=lambda pot: held[pot] * UNIT_MSAT.get(pot[1], 0))[0]

    async def balance(self, provider: str) -> Balance:
        """The account with a provider (npub, hex or name), as he signs it now."""
        return await self.accounts.balance(await self.market.offer(provider))

    async def topup(self, provider: str, amount: int) -> Balance:
        """Put `amount` sat from the wallet into the account with a provider."""
        offer = await self.market.offer(provider)
        accepted = [normal_url(url) for url in offer.announcement.mints]
        held = {
            mint: units
            for (mint, unit), units in (await self.wallet.balance()).items()
            if unit == "sat" and mint in accepted
        }
        mint = max(held, key=lambda url: (held[url] >= amount, url == self.place.mint), default="")
        if held.get(mint, 0) < amount:
            raise LocalError("the wallet has not enough coins he accepts", code="wallet-empty")
        return await self.accounts.top_up(offer, (mint, "sat", amount))

    async def refund(self, provider: str) -> Balance:
        """Take the balance with a provider back into the wallet, in whole coins."""
        return await self.accounts.refund(await self.market.offer(provider))

    async def resume(self) -> list[Outcome]:
        """Finish what is open: orders, wallet operations, quotes that were paid meanwhile.

        Returns the answers that came late, those found since the start too.
        """
        await self._resume()
        for op_id, _ in await self.wallet.pending():
            await self.wallet.run(op_id)
        for quote in await self.wallet.quotes():
            with contextlib.suppress(WorldError):
                await self.wallet.claim_quote(str(quote["id"]))
        late, self.late = self.late, []
        return late

    async def _bring(self, question: Question, answer: Answer) -> None:
        """Supervise one order: however it ends, the answer's reader is told."""
        try:
            answer.finish(await self._buyer.ask(question, answer))
        except asyncio.CancelledError:
            answer.fail(
                LocalError("the client was closed before the answer came", code="cancelled")
            )
            raise
        except Exception as error:  # noqa: BLE001 - told to the reader, who raises it
            answer.fail(error)

    async def _resume(self) -> None:
        async with self._resuming:
            try:
                self.late += await resume(self.world, self._buyer)
            except StoreError as error:
                raise LocalError(error.message, code=error.code) from error

    def _start(self, work: Any) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def provider_key(text: str) -> str:
    """npub, nprofile or hex as hex; anything else is a name and stays as it is.

    Raises ConfigError for a key that is damaged.
    """
    bare = text.removeprefix("nostr:")
    is_key = bare.startswith(("npub1", "nprofile1", "nsec1")) or len(bare) == 64
    return parse_pubkey(text) if is_key else text


def npub(pubkey: str) -> str:
    """A public key as people write it."""
    return to_npub(pubkey)


def _devnet(path: Path) -> tuple[tuple[str, ...], str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(content["relays"]), str(content["mint"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} does not describe a devnet that runs") from None


def _data_home() -> Path:
    stated = os.environ.get(XDG_DATA_HOME)
    return Path(stated) if stated else Path.home() / ".local" / "share"


__all__ = ["Client", "Market", "Place", "market", "npub", "place", "provider_key"]
