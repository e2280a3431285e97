"""An HTTP server before a real mint that does to its calls what networks and servers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

#: What can happen to one call: cut or refused before the mint hears of it ("400 11005" with that
#: code), or its answer cut, replaced or called an error after the mint has done it.
FAULTS = ("refuse", "503", "429", "400 11005", "lost", "garbage", "500 after", "code 0")

Change = Callable[[Any], Any]


class FaultyMint:
    """Forwards every call to `target`, unless told otherwise.

    `faults`: what happens to the next POST calls, in order ("" = nothing). `says`: path → (status,
    body) answered instead. `changes`: path → what to do with the mint's JSON before passing it on.
    `refuses`: text → (status, body) answered to a swap with that text in it. `stalls`: paths that
    are never answered. `ahead_s`: how far its clock is ahead, as its Date header says.
    """

    def __init__(self, target: str = "http://127.0.0.1:9") -> None:
        self._target = target
        self.faults: list[str] = []
        self.says: dict[str, tuple[int, str]] = {}
        self.changes: dict[str, Change] = {}
        self.refuses: dict[str, tuple[int, str]] = {}
        self.stalls: set[str] = set()
        self.ahead_s = 0.0
        self.calls: list[tuple[str, bytes]] = []
        self.url = ""

    async def __aenter__(self) -> FaultyMint:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._session = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        answer = await self._answer(request)
        if self.ahead_s:
            answer.headers["Date"] = formatdate(time.time() + self.ahead_s, usegmt=True)
        return answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.calls.append((request.path, body))
        fault = self.faults.pop(0) if self.faults and request.method == "POST" else ""
        if fault == "refuse":
            return self._cut(request)
        if fault in ("503", "429"):
            return web.Response(status=int(fault), text="busy")
        if fault.startswith("400 "):
            return web.json_response({"detail": "no", "code": int(fault[4:])}, status=400)
        if request.path in self.stalls:
            await asyncio.Event().wait()
        said = self._said(request.path, body.decode(errors="replace"))
        if said is not None:
            return web.Response(status=said[0], text=said[1])
        async with self._session.request(
            request.method,
            self._target + request.path,
            data=body or None,
            headers={"Content-Type": "application/json"},
        ) as answer:
            data, status = await answer.read(), answer.status
            if status == 200 and request.path in self.changes:
                changed = self.changes[request.path](await answer.json())
                return web.json_response(changed)
        return self._after(request, fault, data, status)

    def _said(self, path: str, body: str) -> tuple[int, str] | None:
        """What it answers by itself."""
        if path == "/v1/swap":
            for text, answer in self.refuses.items():
                if text in body:
                    return answer
        return self.says.get(path)

    def _after(
        self, request: web.Request, fault: str, data: bytes, status: int
    ) -> web.StreamResponse:
        match fault:
            case "lost":
                return self._cut(request)
            case "garbage":
                return web.Response(text="<html>")
            case "500 after":
                return web.Response(status=500, text="no")
            case "code 0":
                return web.json_response({"detail": "locks", "code": 0}, status=400)
        return web.Response(status=status, body=data, content_type="application/json")

    def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
