"""Servers that strangers name, over HTTP: Lightning addresses, and receivers of payments.

Whoever names them must not make us knock at the user's own network: hosts are judged by name, and
by the address that the name gives, and so is every redirect (server-side request forgery).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from nostrllm.core.places import is_public
from nostrllm.errors import LocalError, RemoteError, WorldError

__all__ = ["PublicWeb", "WebLimits"]

_MOVED: Final = (301, 302, 303, 307, 308)
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class WebLimits:
    """How long and how much a server may say."""

    connect_s: float = 10.0
    total_s: float = 20.0
    answer_bytes_max: int = 512 << 10
    redirects_max: int = 3


class _PublicResolver(AbstractResolver):
    """Gives only addresses of the open network, whatever a name's owner says."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [one for one in found if is_public(_literal(one["host"]))]
        if not public:
            raise OSError(f"{host} is not on the open network")
        return public

    async def close(self) -> None:
        await self._inner.close()


class PublicWeb:
    """See ports.Web; an async context manager. `local`: this machine is taken too, over HTTP, where
    the whole market is on it."""

    def __init__(self, limits: WebLimits | None = None, *, local: bool = False) -> None:
        self._limits = limits or WebLimits()
        self._local = local
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> PublicWeb:
        limits = self._limits
        resolver = None if self._local else _PublicResolver()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=limits.total_s, sock_connect=limits.connect_s),
            connector=aiohttp.TCPConnector(resolver=resolver, limit=8),
            cookie_jar=aiohttp.DummyCookieJar(),
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

    async def get(self, url: str) -> str:
        """See ports.Web."""
        for _ in range(self._limits.redirects_max + 1):
            status, text = await self._ask("GET", url, None)
            if status not in _MOVED:
                break
            try:
                url = urljoin(url, text)
            except ValueError:  # a place that is none
                break
        if status >= 500 or status in _MOVED:
            raise WorldError(f"{_host(url)} gives no answer", code="payee-unreachable")
        return text  # an LNURL's refusal may have any status

    async def post(self, url: str, body: str) -> str:
        """See ports.Web."""
        status, text = await self._ask("POST", url, body)
        if 400 <= status < 500:
            raise RemoteError(f"{_host(url)} does not take it (HTTP {status})")
        if not 200 <= status < 300:
            raise WorldError(f"{_host(url)} gives no answer", code="payee-unreachable")
        return text

    async def _ask(self, method: str, url: str, body: str | None) -> tuple[int, str]:
        """Status and text; where it moved, the text is the new address."""
        self._check(url)
        if self._session is None:
            raise LocalError("the web is asked outside its context")
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else body.encode()
        try:
            async with self._session.request(
                method, url, allow_redirects=False, data=data, headers=headers
            ) as response:
                if response.status in _MOVED:
                    return response.status, response.headers.get("Location", "")
                raw = await self._read(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = f"{_host(url)} cannot be reached ({type(error).__name__})"
            raise WorldError(why, code="payee-unreachable") from None
        return response.status, raw.decode(errors="replace")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        raw = b""
        async for piece in response.content.iter_chunked(1 << 16):
            raw += piece
            if len(raw) > self._limits.answer_bytes_max:
                raise RemoteError("the answer is too long", code="message-too-large")
        return raw

    def _check(self, url: str) -> None:
        """Raises RemoteError for a URL that is not taken."""
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise RemoteError("the address cannot be read") from None
        plain = host.endswith(".onion") or (self._local and host in _LOCAL)
        if parts.scheme not in (("http", "https") if plain else ("https",)):
            raise RemoteError("the address is not one of https")
        if parts.username or parts.password:
            raise RemoteError("the address has a password in it")
        if not is_public(url) and not (self._local and host in _LOCAL):
            raise RemoteError("the address is not on the open network")


def _literal(host: str) -> str:
    return f"https://[{host}]" if ":" in host else f"https://{host}"


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "")[:253]
