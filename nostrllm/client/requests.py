"""Paying payment requests (NUT-18): the coins that are asked for, delivered as is asked for.

The request is written down before the token is made, and the same token is delivered again until
that is known to have worked; one that was not delivered can be taken back, unless it is locked to
the payee.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nostrllm.client.dm import dm_relays
from nostrllm.client.payment import takes_locks
from nostrllm.client.wallet import Coins, Wallet
from nostrllm.client.world import World
from nostrllm.core import coins
from nostrllm.core.money import UNIT_MSAT
from nostrllm.crypto.keys import derive
from nostrllm.errors import LocalError, NostrllmError, RemoteError, WorldError
from nostrllm.ports import Conflict, Filter, Row, Signer, Web, Write
from nostrllm.purse.till import keyset_in_use
from nostrllm.wire import creqb, kinds
from nostrllm.wire.event import Draft, Event, rumor
from nostrllm.wire.nip19 import parse_profile
from nostrllm.wire.payment_request import (
    LockWanted,
    Payload,
    PaymentRequest,
    Transport,
    encode_payload,
    encode_request,
    parse_request,
)
from nostrllm.wire.token import Token, find_tokens, normal_url, parse_token

#: Coins that a token for a request has at most, nearly: one for each bit.
_FEE_TRIES: Final = 64
#: The payee's word is waited for so long; he need not say any.
REPLY_S: Final = 4.0
#: A payment stays on relays so long.
KEPT_S: Final = 30 * 86_400
_KEY_FORM: Final = re.compile(r"0[23][0-9a-f]{64}")
_HARMLESS: Final = (("sigflag", "SIG_INPUTS"), ("n_sigs", "1"))


@dataclass(frozen=True, slots=True)
class RequestPrice:
    """What paying a request costs: `amount` units for the payee, `his_fee` for the mint when he
    takes them, and `fee` for the mint to make them. `locked`: nobody but he can spend them, ever.
    """

    mint: str
    unit: str
    amount: int
    his_fee: int
    fee: int
    payee: str
    description: str
    locked: bool


@dataclass(frozen=True, slots=True)
class PaidRequest:
    """A request that was paid under a name; `reply` is what the payee said to it, `back` coins that
    he sent back."""

    name: str
    price: RequestPrice
    reply: str = ""
    back: Coins | None = None


def _agreed(_price: RequestPrice) -> None:
    """Any price will do."""


def is_request(text: str) -> bool:
    """Is this meant as a payment request?"""
    return text.strip().lower().startswith(("creqa", "creqb1"))


def parse(text: str) -> PaymentRequest:
    """A request in either form (NUT-18, NUT-26). Raises RemoteError."""
    bare = text.strip()
    return creqb.parse_request(bare) if bare.lower().startswith("creqb1") else parse_request(bare)


class Requests:
    """Pays requests of others."""

    def __init__(self, world: World, wallet: Wallet, web: Web) -> None:
        self._world = world
        self._wallet = wallet
        self._web = web

    async def pay(
        self,
        text: str,
        amount: int | None = None,
        agree: Callable[[RequestPrice], object] = _agreed,
    ) -> PaidRequest:
        """Pay a request; `amount` where it names none.

        `agree` is told the price before anything is written down, and may raise. Raises RemoteError
        for a request that cannot be read or paid, and for a payee who does not take it, the coins
        being back if they are not his alone; LocalError `payment-request-paid`, `wallet-empty`;
        WorldError while it is not delivered, when `resume` delivers it and `reclaim` takes it back.
        """
        request = parse(text)
        way = _way(request)
        key = _key(request.lock)
        if _is_once(request) and await self._world.store.read(
            "payment_once_of", request_id=request.id
        ):
            raise _paid_before()
        price = await self._price(request, way, _amount(request, amount))
        agree(price)
        name, at = self._wallet.new_name(), self._world.square.now_s()
        await self._begin(name, request, at)
        try:
            token = await self._world.purse.send_fresh(
                name, price.mint, price.unit, price.amount + price.his_fee, key
            )
        except LocalError:
            await self._move(name, "failed")
            raise
        reply, back = await self._deliver(name, request, (token, at), REPLY_S)
        return PaidRequest(name, price, reply, back)

    async def resume(self) -> None:
        """Deliver what a crash or a relay left undelivered, unless it was taken back."""
        for row in await self._world.store.read("payment_open"):
            with contextlib.suppress(NostrllmError):
                await self._resume(row)

    async def _resume(self, row: Row) -> None:
        purse, name = self._world.purse, str(row["id"])
        if not await purse.knows(name):
            await self._move(name, "failed")
            return
        if (await purse.run(name)).state == "PREPARED":
            return
        token = await purse.token_of(name)
        if token is None or await purse.came_back(name):
            await self._move(name, "failed")
            return
        request = parse_request(row["request"])
        await self._deliver(name, request, (token, int(row["created_at"])), 0.0)

    async def _begin(self, name: str, request: PaymentRequest, at: int) -> None:
        values = {
            "id": name,
            "request": encode_request(request),
            "request_id": request.id or "",
            "single_use": int(_is_once(request)),
            "at": at,
        }
        try:
            await self._world.store.commit(Write("payment_insert", values))
        except Conflict:
            raise _paid_before() from None

    async def _move(self, name: str, state: str) -> None:
        values = {"id": name, "state": state, "at": self._world.square.now_s()}
        await self._world.store.commit(Write("payment_move", values))

    # what it costs

    async def _price(self, request: PaymentRequest, way: Transport, amount: int) -> RequestPrice:
        world, unit = self._world, request.unit or "sat"
        wanted = {normal_url(url) for url in request.mints}
        held = {
            mint: units
            for (mint, its), units in (await world.purse.balance()).items()
            if its == unit and units >= amount and (not wanted or mint in wanted)
        }
        first: NostrllmError | None = None
        for mint in sorted(held, key=lambda mint: (mint != world.mint, -held[mint])):
            try:
                if request.lock is not None and not await takes_locks(world, mint):
                    raise RemoteError("this mint knows no locks", code="payment-mint-unaccepted")
                his = await self._his_fee(mint, unit, amount)
                fee = await world.purse.send_fee(mint, unit, amount + his)
            except NostrllmError as error:
                first = first or error
                continue
            named = (request.description or "", request.lock is not None)
            return RequestPrice(mint, unit, amount, his, fee, _payee(way), *named)
        where = " or ".join(sorted(wanted)) or "any mint"
        empty = LocalError(f"this needs {amount} {unit} at {where}", code="wallet-empty")
        raise first or empty

    async def _his_fee(self, mint: str, unit: str, amount: int) -> int:
        """What the mint takes of the payee, so much being to be left (NUT-02)."""
        keysets = await self._world.mints.at(mint).keysets()
        for his in range(_FEE_TRIES):
            pieces = coins.split(amount + his)
            keyset = keyset_in_use(keysets, unit, pieces)
            if his * 1_000 >= len(pieces) * keyset.fee_ppk:
                return his
        raise RemoteError("the mint's fee is out of range", code="payment-mint-unaccepted")

    # delivering

    async def _deliver(
        self, name: str, request: PaymentRequest, what: tuple[Token, int], wait_s: float
    ) -> tuple[str, Coins | None]:
        token, at = what
        text, way = encode_payload(Payload(request.id, token)), _way(request)
        try:
            if way.kind == "post":
                await self._web.post(way.target, text)
                await self._move(name, "delivered")
                return "", None
            return await self._send(name, way, (text, at), wait_s)
        except RemoteError as error:  # a definite no
            await self._back(name, error)
            raise
        except WorldError as error:
            back = "" if request.lock else f", `nostrllm wallet reclaim {name}` takes it back"
            message = f"{error.message}; `nostrllm wallet resume` tries again{back}"
            raise WorldError(message, code=error.code) from error

    async def _back(self, name: str, error: RemoteError) -> None:
        """Take the coins back that nobody wanted; those that are locked stay with the payment."""
        try:
            await self._wallet.reclaim(name)
        except NostrllmError as why:
            raise RemoteError(
                f"{error.message}; the coins of {name} are not back: {why.message}",
                code=error.code,
            ) from error
        await self._move(name, "failed")

    async def _send(
        self, name: str, way: Transport, what: tuple[str, int], wait_s: float
    ) -> tuple[str, Coins | None]:
        """By a private message (NIP-17) of a key made for it; the same one each time."""
        square, profile = self._world.square, parse_profile(way.target)
        relays = square.reachable(profile.relays) if profile.relays else ()
        relays = relays or await dm_relays(square, profile.pubkey)
        me = square.keyring.signer(derive(self._world.seed, "pay", name))
        letter = rumor(Draft(kinds.DM, what[0], what[1], (("p", profile.pubkey),)), me.pubkey)
        wrap = await me.wrap(letter, profile.pubkey, expiration=square.now_s() + KEPT_S)
        mine = Filter(kinds=(kinds.GIFT_WRAP,), tags={"p": (me.pubkey,)})
        async with square.relays.subscribe(
            f"pay-{me.pubkey[:8]}", [mine], to=relays, signer=me, stored_s=3 * 86_400.0
        ) as inbox:
            await square.publish(wrap, relays)
            await self._move(name, "delivered")
            said: list[str] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    async for event in inbox:
                        said += await _said(me, event, profile.pubkey)
                        if said and find_tokens(said[-1])[0]:
                            break
        return await self._heard(name, "\n".join(said))

    async def _heard(self, name: str, text: str) -> tuple[str, Coins | None]:
        """What the payee said; coins that he signed in it are ours again."""
        tokens, rest = find_tokens(text)
        back = None
        for token in tokens[:1]:
            with contextlib.suppress(NostrllmError):
                signed = {one.secret: one.witness for one in parse_token(token).proofs}
                outcome = await self._world.purse.reclaim(name, unlock=signed.get)
                if outcome.state == "DONE":
                    back = Coins(outcome.mint, outcome.unit, outcome.net, outcome.fee)
                    await self._move(name, "failed")
        return rest.strip(), back


async def _said(me: Signer, wrap: Event, payee: str) -> list[str]:
    """The message in a wrap, if it is the payee's."""
    try:
        inner = await me.unwrap(wrap)
    except RemoteError:
        return []
    return [inner.content] if inner.pubkey == payee and inner.kind == kinds.DM else []


def _is_once(request: PaymentRequest) -> bool:
    """Is it for one payment, and can it be told from others?"""
    return bool(request.single_use and request.id)


def _paid_before() -> LocalError:
    message = "this payment request is for one payment, and you made it before"
    return LocalError(message, code="payment-request-paid")


def _amount(request: PaymentRequest, amount: int | None) -> int:
    if request.amount is not None and amount not in (None, request.amount):
        raise LocalError(f"it asks for {request.amount}", code="config-invalid")
    wanted = request.amount if request.amount is not None else amount
    if not wanted:
        raise LocalError("say how much: it does not", code="config-invalid")
    if (request.unit or "sat") not in UNIT_MSAT:
        raise RemoteError("it asks for another unit", code="payment-mint-unaccepted")
    return wanted


def _way(request: PaymentRequest) -> Transport:
    """How it is delivered. Raises RemoteError when there is none that we know."""
    for way in request.transports:
        by_nip17 = not way.tags or ("n", "17") in way.tags
        if way.kind == "post" or (way.kind == "nostr" and by_nip17):
            return way
    raise RemoteError("the payment request names no way to deliver that we know")


def _payee(way: Transport) -> str:
    """Who is paid, for a person: a URL, or a key in hex."""
    return way.target if way.kind == "post" else parse_profile(way.target).pubkey


def _key(wanted: LockWanted | None) -> str:
    """The key that coins are to be locked to, for ever; "" for none. Raises RemoteError."""
    if wanted is None:
        return ""
    plain = set(wanted.tags) <= set(_HARMLESS)
    if wanted.kind != "P2PK" or not plain or not _KEY_FORM.fullmatch(wanted.data):
        message = "it asks for a lock of a kind that we do not make"
        raise RemoteError(message, code="payment-token-locked-wrong")
    return wanted.data
