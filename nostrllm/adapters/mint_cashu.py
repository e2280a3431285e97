"""Cashu mints over HTTP (NUT-01 to NUT-09): one session for all of them.

Every answer is either usable, a definite no (MintRefused), or OutcomeUnknown: only an HTTP 4xx
with a code we know is a no, because a proxy's error page or a mint's lock failure (code 0) may
come after the work was done. What a mint writes in its messages is never passed on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, TypeVar

import aiohttp

from nostrllm.adapters import mint_answers as answers
from nostrllm.adapters.mint_keysets import Listed, keys_of, listed
from nostrllm.errors import LocalError, MintRefused, OutcomeUnknown, RemoteError
from nostrllm.ports import Keyset, Melt, MeltQuote, MintQuote
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof, normal_url

__all__ = ["CashuMint", "CashuMints", "MintLimits", "normal_url"]

_KEYS_AT_ONCE: Final = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MintLimits:
    """How long, how much and how often a mint may be asked."""

    connect_s: float = 10.0
    total_s: float = 30.0
    melt_s: float = 150.0  # a Lightning payment may take as long as its routes do
    answer_bytes_max: int = 4 << 20
    request_bytes_max: int = 1 << 20
    spending_at_once: int = 2  # more only makes nutshell fail on its locks
    melting_at_once: int = 2  # beside those: a slow payment holds up no swap
    batch_max: int = 100
    busy_tries: int = 4
    busy_wait_s: float = 0.5
    keysets_age_s: float = 300.0
    refresh_wait_s: float = 5.0  # a refresh younger than this is not repeated
    waiting_max: int = 8  # so many wait for the next one
    mints_max: int = 64


class CashuMints:
    """The mints by URL (ports.Mints); an async context manager around one HTTP session."""

    def __init__(self, limits: MintLimits | None = None, *, trust_env: bool = False) -> None:
        self._limits = limits or MintLimits()
        self._trust_env = trust_env
        self._session: aiohttp.ClientSession | None = None
        self._mints: dict[str, CashuMint] = {}

    async def __aenter__(self) -> CashuMints:
        limits = self._limits
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=limits.total_s, sock_connect=limits.connect_s),
            connector=aiohttp.TCPConnector(limit=256, limit_per_host=16),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def at(self, url: str) -> CashuMint:
        """The mint at this URL in any spelling; the same object each time.

        Raises RemoteError for what is no URL, or for one mint more than we care to know.
        """
        if self._session is None:
            raise LocalError("mints are asked outside their context")
        url = normal_url(url)
        if url not in self._mints:
            if len(self._mints) >= self._limits.mints_max:
                raise RemoteError("too many different mints", code="payment-mint-unaccepted")
            self._mints[url] = CashuMint(url, self._session, self._limits)
        return self._mints[url]


class CashuMint:
    """One mint (ports.Mint)."""

    def __init__(self, url: str, session: aiohttp.ClientSession, limits: MintLimits) -> None:
        self._url = url
        self._session = session
        self._limits = limits
        self._spending = asyncio.Semaphore(limits.spending_at_once)
        self._melting = asyncio.Semaphore(limits.melting_at_once)
        self._loading = asyncio.Lock()
        self._keysets: dict[str, Keyset] = {}
        self._loaded_at = float("-inf")
        self._waiting = 0
        self._info: Mapping[str, Any] = {}
        self._info_at = float("-inf")
        self._skew_s: float | None = None

    @property
    def url(self) -> str:
        """Without a trailing slash."""
        return self._url

    @property
    def skew_s(self) -> float | None:
        """See ports.Mint; from the Date of its last answer, which counts whole seconds."""
        return self._skew_s

    async def info(self) -> Mapping[str, Any]:
        """See ports.Mint."""
        now = asyncio.get_running_loop().time()
        if now - self._info_at >= self._limits.keysets_age_s:
            self._info, self._info_at = await self._get("/v1/info"), now
        return self._info

    async def keysets(self, *, refresh: bool = False, wait: bool = False) -> Mapping[str, Keyset]:
        """See ports.Mint. Raises RemoteError `payment-mint-unaccepted` for ids that are lies."""
        now, limits = asyncio.get_running_loop().time, self._limits
        asked_at = now()
        while True:
            async with self._loading:
                limit_s = limits.refresh_wait_s if refresh or wait else limits.keysets_age_s
                if now() - self._loaded_at >= limit_s:
                    await self._load()
            if not wait or self._loaded_at >= asked_at:
                return self._keysets
            await self._until_refresh(self._loaded_at + limits.refresh_wait_s - now())

    async def _until_refresh(self, wait_s: float) -> None:
        if self._waiting >= self._limits.waiting_max:
            raise OutcomeUnknown("the mint was asked for its keysets just now; try again soon")
        self._waiting += 1
        try:
            await asyncio.sleep(max(0.0, wait_s))
        finally:
            self._waiting -= 1

    async def swap(
        self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> list[BlindSignature]:
        """See ports.Mint."""
        body = {
            "inputs": [proof.as_input() for proof in inputs],
            "outputs": [output.as_dict() for output in outputs],
        }
        async with self._spending:
            return answers.signatures(await self._post("/v1/swap", body), outputs)

    async def mint(self, quote: str, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """See ports.Mint."""
        body = {"quote": quote, "outputs": [output.as_dict() for output in outputs]}
        async with self._spending:
            return answers.signatures(await self._post("/v1/mint/bolt11", body), outputs)

    async def restore(
        self, outputs: Sequence[BlindedMessage]
    ) -> list[tuple[BlindedMessage, BlindSignature]]:
        """See ports.Mint; a signature's amount is what the mint signed, whatever was asked."""
        found: list[tuple[BlindedMessage, BlindSignature]] = []
        for part in _batches(outputs, self._limits.batch_max):
            body = {"outputs": [output.as_dict() for output in part]}
            found += answers.restored(await self._post("/v1/restore", body), part)
        return found

    async def states(self, ys: Sequence[str]) -> list[str]:
        """See ports.Mint."""
        found: list[str] = []
        for part in _batches(ys, self._limits.batch_max):
            rows = (await self._post("/v1/checkstate", {"Ys": part})).get("states")
            states = answers.states_by_y(rows)
            if any(y not in states for y in part):
                raise OutcomeUnknown("the mint's states are not of the coins we asked for")
            found += [states[y] for y in part]
        return found

    async def quote_mint(self, amount: int, unit: str) -> MintQuote:
        """See ports.Mint."""
        body = {"amount": amount, "unit": unit}
        return answers.mint_quote(await self._post("/v1/mint/quote/bolt11", body), amount, unit)

    async def mint_quote(self, quote: str) -> MintQuote:
        """See ports.Mint."""
        path = f"/v1/mint/quote/bolt11/{answers.word(quote)}"
        return answers.mint_quote(await self._get(path), 0, "")

    async def quote_melt(self, request: str, unit: str) -> MeltQuote:
        """See ports.Mint."""
        body = {"request": request, "unit": unit}
        return answers.melt_quote(await self._post("/v1/melt/quote/bolt11", body), request, unit)

    async def melt_quote(self, quote: str) -> Melt:
        """See ports.Mint."""
        return answers.melt(await self._get(f"/v1/melt/quote/bolt11/{answers.word(quote)}"))

    async def melt(
        self, quote: str, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> Melt:
        """See ports.Mint."""
        body = {
            "quote": quote,
            "inputs": [proof.as_input() for proof in inputs],
            "outputs": [output.as_dict() for output in outputs],
        }
        async with self._melting:
            return answers.melt(await self._post("/v1/melt/bolt11", body, self._limits.melt_s))

    async def _load(self) -> None:
        began = asyncio.get_running_loop().time()
        rows = listed(await self._get("/v1/keysets"))
        slots = asyncio.Semaphore(_KEYS_AT_ONCE)
        found = dict(self._keysets)

        async def load(row: Listed) -> None:
            async with slots:
                known = found.get(row.id)
                keys = known.keys if known else await self._keys(row)
                found[row.id] = row.with_keys(keys)

        await _all(load(row) for row in rows)
        self._keysets = {row.id: found[row.id] for row in rows}
        self._loaded_at = began

    async def _keys(self, row: Listed) -> Mapping[int, str]:
        return keys_of(await self._get(f"/v1/keys/{row.id}"), row)

    async def _get(self, path: str) -> Mapping[str, Any]:
        """A GET changes nothing, so a mint that is busy is simply asked again."""
        for attempt in range(1, self._limits.busy_tries):
            try:
                return await self._call("GET", path, None)
            except _Busy:
                wait_s = self._limits.busy_wait_s * 2**attempt
                await asyncio.sleep(wait_s * random.random())
        return await self._call("GET", path, None)

    async def _post(
        self, path: str, body: Mapping[str, Any], total_s: float | None = None
    ) -> Mapping[str, Any]:
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > self._limits.request_bytes_max:
            raise LocalError("the request to the mint is too large")
        return await self._call("POST", path, data, total_s)

    async def _call(
        self, method: str, path: str, data: bytes | None, total_s: float | None = None
    ) -> Mapping[str, Any]:
        async with self._request(method, path, data, total_s) as response:
            text = await self._read(response)
            status = response.status
            self._note_clock(response.headers.get("Date"))
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if status == 200 and isinstance(body, dict):
            return body
        if 400 <= status < 500 and status != 429 and isinstance(body, dict):
            answers.refuse(body.get("code"))
            raise OutcomeUnknown("the mint failed, for no reason that we know", answered=True)
        if status == 429:
            raise _Busy("the mint is busy")
        raise OutcomeUnknown(f"the mint's answer cannot be used (HTTP {status})")

    def _note_clock(self, date: str | None) -> None:
        try:
            self._skew_s = parsedate_to_datetime(date or "").timestamp() - time.time()
        except ValueError:
            return  # it says nothing about its clock

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, data: bytes | None, total_s: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        limits = self._limits
        limit = aiohttp.ClientTimeout(
            total=limits.total_s if total_s is None else total_s, sock_connect=limits.connect_s
        )
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=data,
                headers={"Content-Type": "application/json"} if data else None,
                allow_redirects=False,
                timeout=limit,
            ) as response:
                yield response
        except TimeoutError:
            raise OutcomeUnknown("the mint did not answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise OutcomeUnknown(f"the mint cannot be reached ({type(error).__name__})") from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        pieces, size_bytes = [], 0
        async for piece in response.content.iter_chunked(1 << 16):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > self._limits.answer_bytes_max:
                raise OutcomeUnknown("the mint's answer is too large")
        return b"".join(pieces)


class _Busy(OutcomeUnknown):
    """The mint is busy."""


async def _all(calls: Any) -> None:
    """Run them together; the first failure, as itself, ends the others."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for call in calls:
                tasks.create_task(call)
    except* (OutcomeUnknown, MintRefused, RemoteError) as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
    else:
        return
    raise first


def _batches(items: Sequence[_T], size: int) -> list[list[_T]]:
    return [list(items[at : at + size]) for at in range(0, len(items), size)]
