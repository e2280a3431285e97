"""Nutshell's own wallet as a peer: `python nutshell.py FOLDER`, in FOLDER, with a HOME of its own.

The same lines as the other peers; amounts in sat. It reads and writes files where it stands, and
prints as it likes, so our lines keep the real standard output for themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from cashu.core.nuts import nut18, nut26
from cashu.wallet.helpers import deserialize_token_from_string, receive
from cashu.wallet.wallet import Wallet

Command = Callable[..., Awaitable[Any]]


class Peer:
    """The commands, over one wallet."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._wallet: Wallet

    async def open(self, mint: str) -> None:
        """A wallet at this mint; it swallows every error here, so look for keysets."""
        self._wallet = await Wallet.with_db(mint, self._folder, name="wallet", unit="sat")
        await self._wallet.load_mint()
        assert self._wallet.keysets

    async def fund(self, amount: int) -> int:
        """The mint's invoices pay themselves when they are looked at."""
        quote = await self._wallet.request_mint(amount)
        await self._wallet.get_mint_quote(quote.quote)
        await self._wallet.mint(amount, quote_id=quote.quote)
        return await self.balance()

    async def token(self, amount: int, version: int = 4, dleq: bool = False) -> str:
        """A token of exactly this amount, with the mint's proofs (NUT-12) if asked."""
        await self._wallet.load_proofs(reload=True)
        _, send = await self._wallet.swap_to_send(self._wallet.proofs, amount, set_reserved=True)
        return str(
            await self._wallet.serialize_proofs(send, include_dleq=dleq, legacy=version == 3)
        )

    async def receive(self, token: str) -> int:
        """What came in, after the mint's fee."""
        before = await self.balance()
        await receive(self._wallet, deserialize_token_from_string(token))
        return await self.balance() - before

    async def asked(self, request: str) -> dict[str, Any]:
        """What a payment request says, as this library reads it and writes it again."""
        read = nut18.deserialize(request)
        again = [nut18.serialize(read), nut26.serialize(read)]
        return {**read.model_dump(exclude_none=True), "again": again}

    async def payload(self, request: str, amount: int | None = None) -> dict[str, str]:
        """The text that pays it (NUT-18): locked as it says, with 1 sat for the mint's fee.

        Asked to add the fee to locked coins, this version's wallet miscounts its outputs.
        """
        asked = nut18.deserialize(request)
        assert asked.nut10 is not None
        lock = await self._wallet.create_p2pk_lock(asked.nut10.d)
        await self._wallet.load_proofs(reload=True)
        _, send = await self._wallet.swap_to_send(
            self._wallet.proofs,
            (amount or asked.a or 0) + 1,
            secret_lock=lock,
            set_reserved=True,
        )
        proofs = [proof.to_dict(include_dleq=True) for proof in send]
        body = {"id": asked.i, "mint": self._wallet.url, "unit": asked.u, "proofs": proofs}
        assert asked.t is not None
        return {"text": json.dumps(body), "target": asked.t[0].a}

    async def balance(self) -> int:
        """What is there and not given away."""
        await self._wallet.load_proofs(reload=True)
        return int(self._wallet.available_balance.amount)


async def main(folder: str) -> None:
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        peer = Peer(folder)
        while line := await asyncio.to_thread(sys.stdin.readline):
            fields = json.loads(line)
            command: Command = getattr(peer, fields.pop("do"))
            try:
                answer = {"ok": await command(**fields)}
            except Exception as error:  # noqa: BLE001  the other end of the pipe judges it
                answer = {"error": f"{type(error).__name__} {error}"}
            answers.write(json.dumps(answer) + "\n")


asyncio.run(main(sys.argv[1]))
