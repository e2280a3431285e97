"""Payment requests (NUT-18): what a person is sent when money is missing, and who was sent it.

A request's id is made of the message that it answers and our seed: nobody guesses it, and the same
message asks by the same id again. The store knows who asked and for how much; the question itself
waits in memory only, for it is a prompt.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nostrllm.core.plain_lock import is_plain_lock
from nostrllm.ports import Row, Write
from nostrllm.provider.admit import Letter
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.shop import Shop, World
from nostrllm.wire.payment_request import LockWanted, PaymentRequest, Transport

#: Questions that wait for their money, and for how long.
WAITING_MAX: Final = 512
WAIT_S: Final = 86_400

UNIT: Final = "sat"

#: Which NIP the coins come by.
_BY_NIP17: Final = (("n", "17"),)


@dataclass(frozen=True, slots=True)
class Payee:
    """Whom wallets pay: where (nprofile), locked to which key.

    `name` makes the id of a request for a message.
    """

    nprofile: str
    key: PaymentKey
    name: Callable[[str], str]

    def unlock(self, secret: str) -> str | None:
        """The witness of a coin that is locked to us alone; None for any other lock."""
        return self.key.unlock(secret) if is_plain_lock(secret, self.key.public) else None


class Requests:
    """Makes requests, knows whose each is, and keeps the questions that wait for one."""

    def __init__(self, world: World, shop: Shop, payee: Payee) -> None:
        self._world = world
        self._shop = shop
        self._payee = payee
        self._waiting: OrderedDict[str, tuple[int, Letter]] = OrderedDict()

    def ask(
        self, letter: Letter, amount: int, *, waits: bool
    ) -> tuple[PaymentRequest, list[Write]]:
        """The request that answers a letter, and the rows to commit with the reply.

        `amount`: sat to be had after the mint's fee, 0 for as much as one likes. `waits`: the
        letter is a question that runs once this is paid.
        """
        name = self._payee.name(letter.id)
        if waits:
            self._waiting[name] = (self._world.now_s(), letter)
            self._waiting.move_to_end(name)
            while len(self._waiting) > WAITING_MAX:
                self._waiting.popitem(last=False)
        values = {
            "id": name,
            "author": letter.author,
            "dialect": letter.address.dialect,
            "reply_key": letter.address.key,
            "reply_relays": json.dumps(letter.address.relays),
            "question": letter.id if waits else "",
            "amount": amount,
            "at": self._world.now_s(),
        }
        return self._request(name, amount), [Write("request_put", values)]

    async def last(self, author: str) -> PaymentRequest | None:
        """The newest request of this author that was not paid."""
        rows = await self._world.store.read("request_last", author=author)
        return self._request(rows[0]["id"], int(rows[0]["amount"])) if rows else None

    def _request(self, name: str, amount: int) -> PaymentRequest:
        return PaymentRequest(
            id=name,
            amount=amount or None,
            unit=UNIT,
            single_use=True,
            mints=self._shop.filling("sat"),
            description=self._shop.name,
            transports=(Transport("nostr", self._payee.nprofile, _BY_NIP17),),
            lock=LockWanted("P2PK", self._payee.key.public),
        )

    async def of(self, name: str | None) -> Row | None:
        """The stored request of this id."""
        rows = await self._world.store.read("request_get", id=name or "")
        return rows[0] if rows else None

    # questions that wait

    def waits(self, name: str) -> bool:
        """Does the question of this request still stand?"""
        since, _ = self._waiting.get(name, (-WAIT_S, None))
        return self._world.now_s() - since < WAIT_S

    def take(self, name: str) -> Letter | None:
        """The question of this request, if it still stands; it waits no longer."""
        stands = self.waits(name)
        _, letter = self._waiting.pop(name, (0, None))
        return letter if stands else None

    def withdraw(self, author: str) -> int:
        """Forget the questions of an author that wait. Returns how many there were."""
        names = [name for name, (_, one) in self._waiting.items() if one.author == author]
        for name in names:
            del self._waiting[name]
        return len(names)
