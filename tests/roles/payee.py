"""A payee on this machine: a Lightning address, and a receiver of payment requests by HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.invoices import invoice

METADATA = json.dumps([["text/plain", "a cup of\ntea"], ["text/identifier", "tea@example"]])


@dataclass
class Payee:
    """What it says, as a test bends it; `posted` is what came."""

    url: str = ""
    port: int = 0
    least: int = 1_000
    most: int = 10_000_000
    metadata: str = METADATA
    status: int = 200
    made: Callable[[int], str] | None = None
    bent: dict[str, Any] = field(default_factory=dict)
    posted: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its Lightning address."""
        return f"tea@127.0.0.1:{self.port}"

    async def first(self, request: web.Request) -> web.Response:
        self.asked.append(str(request.rel_url))
        if self.bent.get("moved"):
            raise web.HTTPFound(self.bent["moved"])
        body = {
            "tag": "payRequest",
            "callback": f"{self.url}/pay?of=tea",
            "minSendable": self.least,
            "maxSendable": self.most,
            "metadata": self.metadata,
        }
        return web.json_response({**body, **self.bent}, status=self.status)

    async def second(self, request: web.Request) -> web.Response:
        self.asked.append(str(request.rel_url))
        msat = int(request.query["amount"])
        meant = hashlib.sha256(METADATA.encode()).hexdigest()
        made = self.made or (lambda msat: invoice(msat, description_hash=meant))
        return web.json_response({"pr": made(msat), "routes": []})

    async def receive(self, request: web.Request) -> web.Response:
        self.posted.append(await request.json())
        return web.json_response({}, status=self.status)


@asynccontextmanager
async def payee() -> AsyncIterator[Payee]:
    """One that listens."""
    it = Payee()
    app = web.Application()
    app.router.add_get("/.well-known/lnurlp/tea", it.first)
    app.router.add_get("/pay", it.second)
    app.router.add_post("/receive", it.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    it.port = runner.addresses[0][1]
    it.url = f"http://127.0.0.1:{it.port}"
    try:
        yield it
    finally:
        await runner.cleanup()
