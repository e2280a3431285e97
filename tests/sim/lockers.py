"""Programs that pay by locked tokens: well, twice, after a refusal, and with a spoiled ladder."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from nostrllm.errors import MintRefused
from nostrllm.wire import kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import parse_announcement
from nostrllm.wire.token import BlindSignature, Dleq, Token, encode_token
from tests.sim.clients import Program, Sent, Wish
from tests.sim.locking import Locked, ladder, lock, rungs_by_name, spoil
from tests.sim.mint import URL
from tests.sim.network import RELAYS


class Locker(Program):
    """Takes its change from the provider's hands or from the mint's, as it comes."""

    def wishes(self) -> list[Wish]:
        """Mostly an honest order."""
        return [self._lock, self._lock, self._lock_twice, self._lock_again, self._lock_spoiled]

    def hear_message(self, message: Any) -> None:
        """Take back what is released, and check every signature that is handed over."""
        if isinstance(message, wire.Settled):
            self._settled(message)
            return
        super().hear_message(message)
        if isinstance(message, wire.Result | wire.Refused):
            sent = self.sent.get(message.order)
            if sent is not None and sent.locked is not None:
                self._ended(sent.locked, message)

    def melt_what_is_left(self) -> None:
        """All outputs that the mint has signed, and locked coins whose time is over."""
        super().melt_what_is_left()
        for sent in self.sent.values():
            if sent.locked is None:
                continue
            signed = sent.locked.signed(self.mint)
            left = [proof for proof in signed if self.mint.unspent([proof])]
            for proofs in (left, sent.locked.back(self.mint, late=True)):
                if proofs:
                    self.melt(proofs)

    def _ended(self, locked: Locked, message: wire.Result | wire.Refused) -> None:
        if isinstance(message, wire.Result) and message.signed is not None:
            locked.promised = message.signed.amount
        if message.release is None or locked.release:
            return
        secrets = [proof.secret for proof in locked.proofs]
        locked.release = dict(zip(secrets, message.release, strict=True))
        try:
            self.melt(locked.back(self.mint, late=False))
        except MintRefused as error:
            self.wrong.append(f"{self.name}: released coins cannot be spent: {error}")

    def _settled(self, message: wire.Settled) -> None:
        sent = self.sent.get(message.order)
        if sent is None or sent.locked is None:
            self.wrong.append(f"{self.name}: word of a change that is not his")
            return
        locked = sent.locked
        locked.credited |= message.credit_msat > 0
        locked.is_stale = message.problem is not None and not locked.handed
        if message.signed is None:
            return
        for one in message.signed.signatures:
            signature = BlindSignature(one.amount, one.id, one.C_, Dleq(one.e, one.s))
            try:
                locked.rungs[one.B_].coin(self.mint, signature)
            except (LookupError, ValueError):
                self.wrong.append(f"{self.name}: change that is not signed")
            locked.handed[one.B_] = signature
        if sum(one.amount for one in message.signed.signatures) != message.signed.amount:
            self.wrong.append(f"{self.name}: change that is not what it says")

    async def _watch(self, sent: Sent, locked: Locked, provider: str) -> None:
        """Give other outputs whenever they are asked for, until the change is there."""
        await sent.done.wait()
        while locked.promised and not (locked.handed or locked.credited):
            await asyncio.sleep(20.0)
            number = sent.letter.id
            if locked.is_stale:
                rungs = ladder(self.mint, locked.worth, self.rng)
                locked.rungs |= rungs_by_name(rungs)
                outputs = [wire.Output(**one.output.as_dict()) for one in rungs]
                await self._say(
                    wire.NewOutputs(reply=self._to(), order=number, outputs=outputs), provider
                )
            elif self.rng.random() < 0.5:
                await self._say(wire.Query(reply=self._to(), what="order", order=number), provider)

    def _payment_key(self, provider: str) -> str:
        """The key to lock to, as announced; "" before it is."""
        for url in RELAYS:
            for event in self.network.stored[url].values():
                if event.kind == kinds.ANNOUNCEMENT and event.pubkey == provider:
                    return parse_announcement(event).payment_key
        return ""

    async def _locked(self, provider: str) -> Locked:
        """Fresh coins that only he can spend for a few hours, and outputs for the change."""
        while not (key := self._payment_key(provider)):  # noqa: ASYNC110  nobody says
            await asyncio.sleep(1.0)
        amount = self.rng.randrange(8, 200)
        locktime = int(asyncio.get_running_loop().time()) + self.rng.randrange(5_000, 20_000)
        proofs, refunds = lock(self.mint, amount, (key, locktime), self.rng)
        self.bought += amount
        return Locked(proofs, refunds, rungs_by_name(ladder(self.mint, amount, self.rng)))

    async def _pay_locked(
        self, provider: str, locked: Locked, *, honest: bool = True, model: str = "m"
    ) -> None:
        outputs = [wire.Output(**one.output.as_dict()) for one in locked.rungs.values()]
        token = encode_token(Token(URL, "sat", locked.proofs))
        payment = wire.LockedPayment(token=token, outputs=outputs)
        ceiling = locked.worth * (1_000 if self.rng.random() < 0.5 else 750)
        fields: dict[str, Any] = {"locked": locked, "honest": honest, "ceiling_msat": ceiling}
        sent = await self._buy(provider, payment, model=model, **fields)
        assert self._writing is not None
        self._writing.create_task(self._watch(sent, locked, provider))

    async def _lock(self, provider: str) -> None:
        await self._pay_locked(provider, await self._locked(provider))

    async def _lock_twice(self, provider: str) -> None:
        """The same coins for two orders, with other outputs: one of them is refused."""
        await self._two(provider, "m")

    async def _lock_again(self, provider: str) -> None:
        """Coins that a refusal gives back, offered once more."""
        await self._two(provider, "unheard-of")

    async def _two(self, provider: str, model: str) -> None:
        locked = await self._locked(provider)
        rungs = rungs_by_name(ladder(self.mint, locked.worth, self.rng))
        other = replace(locked, rungs=rungs, release={}, handed={})
        await self._pay_locked(provider, locked, honest=False, model=model)
        await asyncio.sleep(self.rng.choice((0.0, 3.0, 30.0)))
        await self._pay_locked(provider, other, honest=False)

    async def _lock_spoiled(self, provider: str) -> None:
        """One of the outputs is signed before the provider has it signed."""
        locked = await self._locked(provider)
        await self._pay_locked(provider, locked)
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        self.bought += spoil(self.mint, locked, self.rng)
