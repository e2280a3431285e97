"""The bad line that the provider has to the mint: calls are cut, late, or answered badly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nostrllm.crypto import bdhke
from nostrllm.errors import MintRefused, OutcomeUnknown
from nostrllm.ports import Keyset, Melt, MeltQuote, MintQuote
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof, normal_url
from tests.sim.life import Life
from tests.sim.mint import URL, SimMint
from tests.sim.weather import Weather

_T = TypeVar("_T")


class MintLine:
    """ports.Mint for one life of the process: calls fail before and after they are done."""

    def __init__(
        self, mint: SimMint, life: Life, weather: Weather, *, refresh_wait_s: float = 5.0
    ) -> None:
        self._mint = mint
        self._refresh_wait_s = refresh_wait_s
        self._life = life
        self._weather = weather
        self._keysets: dict[str, Keyset] = {}
        self._asked_at = float("-inf")

    @property
    def url(self) -> str:
        """See ports.Mint."""
        return URL

    @property
    def skew_s(self) -> float | None:
        """See ports.Mint."""
        return 0.0

    async def info(self) -> Mapping[str, Any]:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.info)

    async def keysets(self, *, refresh: bool = False, wait: bool = False) -> Mapping[str, Keyset]:
        """See ports.Mint; old ones will do for a while, as with the adapter."""
        now = asyncio.get_running_loop().time
        if wait:
            await asyncio.sleep(max(0.0, self._asked_at + self._refresh_wait_s - now()))
        age_s = now() - self._asked_at
        if wait or age_s > (self._refresh_wait_s if refresh else 300.0):
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
        return await self._call(lambda: self._mint.quote_mint(amount, unit))

    async def mint_quote(self, quote: str) -> MintQuote:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.mint_quote(quote))

    async def mint(self, quote: str, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.mint(quote, outputs))

    async def quote_melt(self, request: str, unit: str) -> MeltQuote:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.quote_melt(request, unit))

    async def melt_quote(self, quote: str) -> Melt:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.melt_quote(quote))

    async def melt(
        self, quote: str, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> Melt:
        """See ports.Mint."""
        return await self._call(lambda: self._mint.pay(quote, inputs, outputs))

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
