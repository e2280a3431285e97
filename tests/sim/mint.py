"""A mint with real blind signatures, and the bad line that the provider has to it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from coincurve import PrivateKey, PublicKey

from nostrllm.crypto import bdhke
from nostrllm.errors import MintRefused, OutcomeUnknown
from nostrllm.ports import Keyset, MintQuote
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof, normal_url
from tests.sim.life import Life
from tests.sim.weather import Weather

URL: Final = "https://mint.example"
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_T = TypeVar("_T")


@cache
def _keys() -> dict[int, PrivateKey]:
    return {1 << n: PrivateKey(hashlib.sha256(f"key {n}".encode()).digest()) for n in range(16)}


@cache
def keyset_with(fee_ppk: int) -> Keyset:
    """The mint's one keyset."""
    keys = {amount: key.public_key.format().hex() for amount, key in _keys().items()}
    return Keyset(bdhke.keyset_id_v1(keys, "sat", fee_ppk), "sat", True, fee_ppk, keys)


class SimMint:
    """The mint itself: what it signed, what is spent, and what it owes."""

    def __init__(self, fee_ppk: int) -> None:
        self.keyset = keyset_with(fee_ppk)
        self.issued = self.melted = self.fees = 0
        self.spent: set[str] = set()
        self.pending: set[str] = set()
        self._signed: dict[str, BlindSignature] = {}

    @property
    def owed(self) -> int:
        """What all unspent coins are worth."""
        return self.issued - self.melted - self.fees

    # with customers whose line is good

    def issue(self, amounts: Sequence[int], rng: random.Random) -> tuple[Proof, ...]:
        """Coins for somebody, without proofs of signature."""
        self.issued += sum(amounts)
        secrets = [rng.randbytes(32).hex() for _ in amounts]
        return tuple(
            Proof(self.keyset.id, amount, secret, self._c(secret, amount))
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
        if any(self._c(proof.secret, proof.amount) != proof.C for proof in proofs):
            raise MintRefused(10003, "a coin is not valid")
        if any(y in self.spent for y in ys):
            raise MintRefused(11001, "a coin was spent before", code="payment-token-spent")
        if any(y in self.pending for y in ys):
            raise MintRefused(11002, "a coin is being spent elsewhere", code="payment-pending")
        return sum(proof.amount for proof in proofs) - self.fee(len(proofs))

    def fee(self, count: int) -> int:
        """What spending so many coins costs."""
        return -(-count * self.keyset.fee_ppk // 1_000)

    def _spend(self, proofs: Sequence[Proof]) -> None:
        self.spent |= {bdhke.y_of(proof.secret) for proof in proofs}
        self.fees += self.fee(len(proofs))

    def _c(self, secret: str, amount: int) -> str:
        y = bdhke.hash_to_curve(secret.encode())
        return y.multiply(_keys()[amount].secret).format().hex()

    def _sign(self, output: BlindedMessage) -> BlindSignature:
        key = _keys()[output.amount]
        b = PublicKey(bytes.fromhex(output.B_))
        c = b.multiply(key.secret)
        nonce = hashlib.sha256(key.secret + b.format()).digest()
        e = bdhke.hash_e((PrivateKey(nonce).public_key, b.multiply(nonce), key.public_key, c))
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
        self._has_keysets = False

    @property
    def url(self) -> str:
        """See ports.Mint."""
        return URL

    async def info(self) -> Mapping[str, Any]:
        """See ports.Mint."""
        return {}

    async def keysets(self, *, refresh: bool = False) -> Mapping[str, Keyset]:
        """See ports.Mint; asked once, as the adapter does."""
        if refresh or not self._has_keysets:
            await self._call(lambda: None)
            self._has_keysets = True
        return {self._mint.keyset.id: self._mint.keyset}

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

    async def _call(self, work: Callable[[], _T]) -> _T:
        self._life.boundary()
        weather = self._weather
        await self._life.pause(0.1)
        if weather.is_down(URL) or weather.draw("lost_before"):
            await self._life.pause(20.0)
            raise OutcomeUnknown
        try:
            answer = work()
        finally:
            self._life.boundary()
        await self._life.pause(0.3)
        if weather.draw("lost_after"):  # a cut line, a 500, garbage, nutshell's code 0
            raise OutcomeUnknown
        return answer

    async def _later(self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]) -> None:
        """The mint takes the request, shows its coins as pending or not, and does it much later."""
        self._life.boundary()
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
        self._life.boundary()
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
