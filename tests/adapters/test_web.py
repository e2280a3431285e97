"""Servers of strangers: what is asked of them, and what is never asked of one's own network."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nostrllm.adapters.web import PublicWeb, WebLimits
from nostrllm.client.lnurl import resolve
from nostrllm.errors import LocalError, NostrllmError, RemoteError, WorldError
from nostrllm.wire.invoice import parse_invoice
from tests.invoices import invoice
from tests.roles.payee import Payee, payee


@pytest.fixture
async def tea() -> AsyncIterator[Payee]:
    async with payee() as it:
        yield it


async def test_an_address_gives_an_invoice(tea: Payee) -> None:
    async with PublicWeb(local=True) as web:
        found = await resolve(web, tea.address, 5_000)
    assert (found.amount_msat, found.description) == (5_000, "a cup of tea")
    assert found.host == f"127.0.0.1:{tea.port}"
    assert parse_invoice(found.invoice).amount_msat == 5_000
    assert tea.asked == ["/.well-known/lnurlp/tea", "/pay?of=tea&amount=5000"]


async def test_what_a_payee_cannot_have(tea: Payee) -> None:
    async def code() -> str:
        async with PublicWeb(local=True) as web:
            with pytest.raises(NostrllmError) as caught:
                await resolve(web, tea.address, 5_000)
        return caught.value.code

    tea.least = 6_000
    assert await code() == "payment-amount-low"
    tea.least, tea.most = 1, 4_000
    assert await code() == "payment-amount-high"
    tea.most, tea.made = 10_000, lambda msat: invoice(msat + 1_000)
    assert await code() == "payment-invoice-invalid"
    tea.made, tea.status = None, 500
    assert await code() == "payee-unreachable"
    tea.status, tea.bent = 404, {"status": "ERROR", "reason": "no such tea"}
    assert await code() == "payment-invoice-invalid"
    tea.status, tea.bent = 200, {"more": "x" * (600 << 10)}
    assert await code() == "message-too-large"
    tea.bent = {"moved": f"{tea.url}/.well-known/lnurlp/tea"}
    assert await code() == "payee-unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://printer.local/",
        "https://[::1]/",
        "https://a:b@example.com/",
        "ftp://example.com/",
        "https://[x/",
        "",
    ],
)
async def test_ones_own_network_is_not_asked(url: str) -> None:
    async with PublicWeb() as web:
        for work in (web.get(url), web.post(url, "{}")):
            with pytest.raises(RemoteError):
                await work


async def test_a_redirect_does_not_lead_there_either(tea: Payee) -> None:
    tea.bent = {"moved": "http://10.0.0.1/"}
    async with PublicWeb(local=True) as web:
        with pytest.raises(RemoteError, match="https"):
            await resolve(web, tea.address, 5_000)


async def test_a_redirect_to_what_is_no_place_gives_nothing(tea: Payee) -> None:
    tea.bent = {"moved": "https://[x/"}
    async with PublicWeb(local=True) as web:
        with pytest.raises(WorldError) as caught:
            await resolve(web, tea.address, 5_000)
    assert caught.value.code == "payee-unreachable"


async def test_a_name_that_leads_there_gives_nothing() -> None:
    async with PublicWeb(WebLimits(total_s=5)) as web:
        with pytest.raises(WorldError) as caught:
            await web.get("https://localhost.localdomain/")
    assert caught.value.code == "payee-unreachable"


async def test_it_is_asked_in_its_context_only() -> None:
    with pytest.raises(LocalError):
        await PublicWeb().get("https://example.com/")


async def test_what_is_handed_over(tea: Payee) -> None:
    async with PublicWeb(local=True) as web:
        await web.post(f"{tea.url}/receive", '{"a": 1}')
        assert tea.posted == [{"a": 1}]
        tea.status = 400
        with pytest.raises(RemoteError):
            await web.post(f"{tea.url}/receive", "{}")
        tea.status = 503
        with pytest.raises(WorldError):
            await web.post(f"{tea.url}/receive", "{}")
