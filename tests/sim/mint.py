"""A mint with real blind signatures, and the bad line that the provider has to it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

from nostrllm.crypto import bdhke
from nostrllm.crypto.keys import ORDER
from nostrllm.errors import MintRefused, OutcomeUnknown
from nostrllm.ports import Keyset, Melt, MeltQuote, MintQuote
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof, normal_url
from tests.sim.group import CURVE, Group
from tests.sim.life import Life
from tests.sim.weather import Weather

URL: Final = "https://mint.example"

_T = TypeVar("_T")


@cache
def _keys(group: Group, generation: int) -> dict[int, Any]:
    seeds = {1 << n: f"{generation} {n}".encode() for n in range(16)}
    return {amount: group.key(hashlib.sha256(seed).digest()) for amount, seed in seeds.items()}


@cache
def keyset_with(group: Group, generation: int, fee_ppk: int) -> Keyset:
    """A keyset of the mint, in use."""
    pairs = _keys(group, generation).items()
    keys = {amount: key.public_key.format().hex() for amount, key in pairs}
    return Keyset(bdhke.keyset_id_v1(keys, "sat", fee_ppk), "sat", True, fee_ppk, keys)


class SimMint:
    """The mint itself: what it signed, what is spent, and what it owes."""

    def __init__(self, fee_ppk: int, group: Group = CURVE) -> None:
        self._fee_ppk = fee_ppk
        self._group = group
        self.keysets: list[Keyset] = [keyset_with(group, 0, fee_ppk)]
        self.issued = self.melted = self.fees = 0
        self.spent: set[str] = set()
        self.pending: set[str] = set()
        self._signed: dict[str, BlindSignature] = {}

    @property
    def owed(self) -> int:
        """What all unspent coins are worth."""
        return self.issued - self.melted - self.fees

    def rotate(self) -> None:
        """Sign with other keys from now on; coins of the old ones stay good."""
        old = [replace(keyset, active=False) for keyset in self.keysets]
        self.keysets = [*old, keyset_with(self._group, len(old), self._fee_ppk)]

    # with customers whose line is good

    def issue(self, amounts: Sequence[int], rng: random.Random) -> tuple[Proof, ...]:
        """Coins for somebody, without proofs of signature."""
        self.issued += sum(amounts)
        secrets = [rng.randbytes(32).hex() for _ in amounts]
        return tuple(
            Proof(self.keysets[-1].id, amount, secret, self._c(self.keysets[-1].id, secret, amount))
            for amount, secret in zip(amounts, secrets, strict=True)
        )

    def melt(self, proofs: Sequence[Proof]) -> int:
        """Pay coins out; what they were worth after the fee. Raises MintRefused."""
        net = self._checked(proofs)
        self._spend(proofs)
        self.melted += net
        return net

    def unspent(self, proofs: Sequence[Proof]) -> bool:
        """Are all of them unspent?"""
        return not any(bdhke.y_of(proof.secret) in self.spent for proof in proofs)

    # NUT-03, NUT-07, NUT-09

    def swap(
        self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> list[BlindSignature]:
        """Raises MintRefused."""
        net = self._checked(inputs)
        if any(output.id != self.keysets[-1].id for output in outputs):
            raise MintRefused(12002, "the keyset is no longer in use")
        if any(output.B_ in self._signed for output in outputs):
            raise MintRefused(11003, "an output was signed before")
        if sum(output.amount for output in outputs) != net:
            raise MintRefused(11005, "inputs, outputs and fee do not balance")
        self._spend(inputs)
        signatures = [self._sign(output) for output in outputs]
        for output, signature in zip(outputs, signatures, strict=True):
            self._signed[output.B_] = signature
        return signatures

    def restore(
        self, outputs: Sequence[BlindedMessage]
    ) -> list[tuple[BlindedMessage, BlindSignature]]:
        return [(out, self._signed[out.B_]) for out in outputs if out.B_ in self._signed]

    def state(self, y: str) -> str:
        if y in self.spent:
            return "SPENT"
        return "PENDING" if y in self.pending else "UNSPENT"

    def _checked(self, proofs: Sequence[Proof]) -> int:
        """What the coins leave after the fee. Raises MintRefused unless they can be spent."""
        ys = [bdhke.y_of(proof.secret) for proof in proofs]
        if len(set(ys)) < len(ys):
            raise MintRefused(11007, "a coin came twice")
        if any(self._c(proof.id, proof.secret, proof.amount) != proof.C for proof in proofs):
            raise MintRefused(10003, "a coin is not valid")
        if any(y in self.spent for y in ys):
            raise MintRefused(11001, "a coin was spent before", code="payment-token-spent")
        if any(y in self.pending for y in ys):
            raise MintRefused(11002, "a coin is being spent elsewhere", code="payment-pending")
        return sum(proof.amount for proof in proofs) - self.fee(len(proofs))

    def fee(self, count: int) -> int:
        """What spending so many coins costs."""
        return -(-count * self._fee_ppk // 1_000)

    def _spend(self, proofs: Sequence[Proof]) -> None:
        self.spent |= {bdhke.y_of(proof.secret) for proof in proofs}
        self.fees += self.fee(len(proofs))

    def _key(self, keyset_id: str, amount: int) -> Any:
        """The key of a keyset whose id may be the short one."""
        [n] = (n for n, keyset in enumerate(self.keysets) if keyset.id.startswith(keyset_id))
        return _keys(self._group, n)[amount]

    def _c(self, keyset_id: str, secret: str, amount: int) -> str:
        y = bdhke.hash_to_curve(secret.encode())
        return str(y.multiply(self._key(keyset_id, amount).secret).format().hex())

    def _sign(self, output: BlindedMessage) -> BlindSignature:
        key = self._key(output.id, output.amount)
        b = self._group.point(bytes.fromhex(output.B_))
        c = b.multiply(key.secret)
        nonce = hashlib.sha256(key.secret + b.format()).digest()
        e = bdhke.hash_e((self._group.key(nonce).public_key, b.multiply(nonce), key.public_key, c))
        s = int.from_bytes(nonce, "big") + int.from_bytes(e, "big") * int.from_bytes(
            key.secret, "big"
        )
        dleq = Dleq(e.hex(), (s % ORDER).to_bytes(32, "big").hex())
        return BlindSignature(output.amount, output.id, c.format().hex(), dleq)


class MintLine:
    """ports.Mint for one life of the process: calls fail before and after they are done."""

    def __init__(self, mint: SimMint, life: Life, weather: Weather) -> None:
        self._mint = mint
        self._life = life
        self._weather = weather
        self._keysets: dict[str, Keyset] = {}
        self._asked_at = float("-inf")

    @property
    def url(self) -> str:
        """See ports.Mint."""
        return URL

    async def info(self) -> Mapping[str, Any]:
        """See ports.Mint."""
        return {}

    async def keysets(self, *, refresh: bool = False) -> Mapping[str, Keyset]:
        """See ports.Mint; old ones will do for a while, as with the adapter."""
        age_s = asyncio.get_running_loop().time() - self._asked_at
        if age_s > (5.0 if refresh else 300.0):
            keysets = await self._call(lambda: self._mint.keysets)
            self._keysets = {keyset.id: keyset for keyset in keysets}
            self._asked_at = asyncio.get_running_loop().time()
        return self._keysets

    async def swap(
        self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> list[BlindSignature]:
        """See ports.Mint."""
        if self._weather.draw("slow_mint"):
            await self._later(inputs, outputs)
        return await self._call(lambda: self._mint.swap(inputs, outputs))

    async def restore(
        self, outputs: Sequence[BlindedMessage]
    ) -> list[tuple[BlindedMessage, BlindSignature]]:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.restore(outputs))

    async def states(self, ys: Sequence[str]) -> list[str]:
        """See ports.Mint."""
        return await self._call(lambda: [self._mint.state(y) for y in ys])

    async def quote_mint(self, amount: int, unit: str) -> MintQuote:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def mint_quote(self, quote: str) -> MintQuote:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def mint(self, quote: str, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def quote_melt(self, request: str, unit: str) -> MeltQuote:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def melt_quote(self, quote: str) -> Melt:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def melt(
        self, quote: str, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> Melt:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def _call(self, work: Callable[[], _T]) -> _T:
        self._life.boundary("before mint")
        weather = self._weather
        await self._life.pause(0.1)
        if weather.is_down(URL):
            weather.happened["mint_down"] += 1
            raise OutcomeUnknown
        if weather.draw("mint_cut"):
            await self._life.pause(20.0)
            raise OutcomeUnknown
        try:
            answer = work()
        finally:
            self._life.boundary("after mint")
        await self._life.pause(0.3)
        if weather.draw("mint_stall"):
            await asyncio.sleep(30.0)
            self._life.check()
            raise OutcomeUnknown
        # A 500 after the mint had committed, an answer that is no JSON, nutshell's code 0.
        if weather.draw("mint_500_after") or weather.draw("mint_garbage"):
            raise OutcomeUnknown
        return answer

    async def _later(self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]) -> None:
        """The mint takes the request, shows its coins as pending or not, and does it much later."""
        self._life.boundary("before mint")
        mint, rng = self._mint, self._life.rng
        ys = {bdhke.y_of(proof.secret) for proof in inputs} - mint.spent - mint.pending
        shown = ys if rng.random() < 0.6 else set()
        gives_up = rng.random() < 0.3
        mint.pending |= shown

        def do() -> None:
            mint.pending -= shown
            if not gives_up:
                try:
                    mint.swap(inputs, outputs)
                except MintRefused:
                    return

        asyncio.get_running_loop().call_later(rng.uniform(0.5, 90.0), do)
        self._life.boundary("after mint")
        await self._life.pause(30.0)
        raise OutcomeUnknown


class MintLines:
    """ports.Mints."""

    def __init__(self, line: MintLine) -> None:
        self._line = line

    def at(self, url: str) -> MintLine:
        """See ports.Mints."""
        assert normal_url(url) == URL
        return self._line
