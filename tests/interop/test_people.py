"""People with nostr-tools or NDK, and cashu-ts, ask and pay a provider: both ends agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nostrllm.wire import kinds
from tests.interop.peers import Peer, PeerError
from tests.roles.market import MODEL, Stall, as_token, config_text, selling

pytestmark = pytest.mark.interop

KIND = {"nip17": kinds.GIFT_WRAP, "nip04": kinds.DM_LEGACY}
CHANGE = "cashuB"
PAID = 64


async def settled(stall: Stall, person: Peer, said: list[str]) -> dict[str, Any]:
    """The one order, after the person has taken in the change of its last message."""
    assert len(said) >= 3  # answer, cost, change
    assert said[0].strip()
    assert said[-2].startswith("Cost ")
    assert said[-1].startswith(CHANGE)
    [order] = await stall.orders()
    assert order["state"] in ("settled", "closed")
    change = order["change_units"]
    assert order["cost_msat"] > 0
    assert order["cost_msat"] + change * 1_000 + order["credit_msat"] == (PAID - 1) * 1_000
    assert as_token(said[-1]).amount == change
    before = await person.do("balance")
    assert await person.do("receive", token=said[-1]) == change - 1  # the mint's fee
    assert await person.do("balance") == before + change - 1
    with pytest.raises(PeerError, match=r"11001|spent"):
        await person.do("receive", token=said[-1])
    return order


@pytest.mark.parametrize("how", ["nip17", "nip04"])
async def test_a_paid_question_is_answered_with_change(
    stall: Stall, tools: Peer, relay_url: str, how: str
) -> None:
    await tools.do("listen", relays=[relay_url], kind=KIND[how])
    token = await tools.do("token", amount=PAID)
    text = f"What is the capital of France? {token}"
    asked = {"relays": [relay_url], "to": stall.pubkey, "how": how}
    await tools.do("say", text=text, title="Geography", **asked)
    said = await tools.heard_until(stall.pubkey, CHANGE)
    order = await settled(stall, tools, said)
    assert order["author"] == await tools.do("me")
    # what came in is money: all of it goes through one more swap
    rest = await tools.do("balance")
    token = await tools.do("token", amount=rest - 2, dleq=True)
    assert await tools.do("receive", token=token) >= rest - 4


@pytest.mark.parametrize("how", ["nip17", "nip04"])
async def test_five_copies_are_charged_once(
    stall: Stall, tools: Peer, relay_url: str, how: str
) -> None:
    await tools.do("listen", relays=[relay_url], kind=KIND[how])
    token = await tools.do("token", amount=PAID)
    asked = {"relays": [relay_url], "to": stall.pubkey, "how": how}
    await tools.do("repeat", text=f"Say hello. {token}", times=5, **asked)
    said = await tools.heard_until(stall.pubkey, CHANGE)
    await settled(stall, tools, said)
    await tools.do("say", text="/balance", **asked)
    # the answer may come again, for a copy asks for it again; another answer may not
    after = await tools.heard_until(stall.pubkey, "balance")
    assert set(after[:-1]) <= set(said)
    assert len(await stall.orders()) == 1


@pytest.mark.parametrize("how", ["nip17", "nip04"])
async def test_without_a_token_one_is_told_the_price_and_how_to_pay(
    stall: Stall, tools: Peer, relay_url: str, mint_url: str, how: str
) -> None:
    await tools.do("listen", relays=[relay_url], kind=KIND[how])
    asked = {"relays": [relay_url], "to": stall.pubkey, "how": how}
    await tools.do("say", text="What is the capital of France?", **asked)
    said = await tools.heard(stall.pubkey)
    for word in ("will cost about", CHANGE, mint_url, "/topup", MODEL):
        assert word in said
    assert await stall.orders() == []


async def test_the_rumors_of_an_answer_are_whole(stall: Stall, tools: Peer, relay_url: str) -> None:
    await tools.do("listen", relays=[relay_url], kind=kinds.GIFT_WRAP)
    await tools.do("say", relays=[relay_url], to=stall.pubkey, text="/help", how="nip17")
    letter = await tools.do("heard")
    assert letter["kind"] == kinds.DM
    assert letter["tags"] == [["p", await tools.do("me")]]
    assert letter["sound"]


async def test_ndk_both_ways(stall: Stall, ndk: Peer, relay_url: str) -> None:
    await ndk.do("listen", relays=[relay_url], kind=kinds.GIFT_WRAP)
    await ndk.do("say", to=stall.pubkey, text="/help")
    assert "/topup" in await ndk.heard(stall.pubkey)
    token = await ndk.do("token", amount=PAID)
    await ndk.do("say", to=stall.pubkey, text=f"{token}\nWhat is the capital of France?")
    said = await ndk.heard_until(stall.pubkey, CHANGE)
    await settled(stall, ndk, said)


# relays


@pytest.mark.parametrize("how", ["nip17", "nip04"])
async def test_a_paid_question_through_each_relay(
    any_url: str, mint_url: str, engine_url: str, tools: Peer, tmp_path: Path, how: str
) -> None:
    async with selling(config_text(tmp_path / "stall", [any_url], mint_url, engine_url)) as stall:
        await tools.do("listen", relays=[any_url], kind=KIND[how])
        token = await tools.do("token", amount=PAID)
        text = f"What is the capital of France? {token}"
        await tools.do("say", relays=[any_url], to=stall.pubkey, text=text, how=how)
        said = await tools.heard_until(stall.pubkey, CHANGE)
        await settled(stall, tools, said)


async def test_a_message_of_the_extended_length_of_nip44_is_read(
    pypi_url: str, mint_url: str, engine_url: str, tools: Peer, tmp_path: Path
) -> None:
    async with selling(config_text(tmp_path / "stall", [pypi_url], mint_url, engine_url)) as stall:
        await tools.do("listen", relays=[pypi_url], kind=kinds.GIFT_WRAP)
        for length in (29_000, 60_000):  # its seal is of more than 65,535 bytes in the second case
            text = "word " * (length // 5)
            await tools.do("say", relays=[pypi_url], to=stall.pubkey, text=text, how="nip17")
            said = await tools.heard(stall.pubkey)
            while said.startswith("creqA"):  # the payment request that follows a price
                said = await tools.heard(stall.pubkey)
            assert ("message-too-large" in said) == (length > 30_000)


async def test_on_two_relays_at_once_a_question_runs_once(
    relay_url: str, pypi_url: str, mint_url: str, engine_url: str, tools: Peer, tmp_path: Path
) -> None:
    both = [relay_url, pypi_url]
    async with selling(config_text(tmp_path / "stall", both, mint_url, engine_url)) as stall:
        await tools.do("listen", relays=both, kind=kinds.GIFT_WRAP)
        token = await tools.do("token", amount=PAID)
        asked = {"relays": both, "to": stall.pubkey, "how": "nip17"}
        await tools.do("repeat", text=f"Say hello. {token}", times=3, **asked)
        said = await tools.heard_until(stall.pubkey, CHANGE)
        await settled(stall, tools, said)


async def test_the_answer_comes_to_the_inbox_relay_of_the_person(
    relay_url: str, pypi_url: str, mint_url: str, engine_url: str, tools: Peer, tmp_path: Path
) -> None:
    both = [relay_url, pypi_url]
    async with selling(config_text(tmp_path / "stall", both, mint_url, engine_url)) as stall:
        said = await asked_with_inbox(stall, tools, relay_url, inbox=pypi_url, listen=pypi_url)
        await settled(stall, tools, said)
        assert await stored(tools, pypi_url) == len(said)
        assert await stored(tools, relay_url) == 0


async def test_an_inbox_relay_on_a_private_host_is_not_connected_to(
    stall: Stall, tools: Peer, relay_url: str, pypi_url: str
) -> None:
    said = await asked_with_inbox(stall, tools, relay_url, inbox=pypi_url, listen=relay_url)
    await settled(stall, tools, said)
    assert await stored(tools, relay_url) == len(said)
    assert await stored(tools, pypi_url) == 0


async def test_with_a_dead_inbox_relay_the_answer_comes_where_the_question_came_from(
    stall: Stall, tools: Peer, relay_url: str
) -> None:
    dead = "wss://relay.invalid"
    said = await asked_with_inbox(stall, tools, relay_url, inbox=dead, listen=relay_url)
    await settled(stall, tools, said)


async def asked_with_inbox(
    stall: Stall, person: Peer, relay: str, *, inbox: str, listen: str
) -> list[str]:
    """What a person hears at `listen` who asks at `relay` and says that `inbox` is read."""
    await person.do("listen", relays=[listen], kind=kinds.GIFT_WRAP)
    await person.do("settle", relays=[relay], inbox=[inbox])
    text = f"What is the capital of France? {await person.do('token', amount=PAID)}"
    await person.do("say", relays=[relay], to=stall.pubkey, text=text, how="nip17")
    return await person.heard_until(stall.pubkey, CHANGE)


async def stored(person: Peer, relay: str) -> int:
    """How many gift wraps to this person the relay holds."""
    wraps = {"kinds": [kinds.GIFT_WRAP], "#p": [await person.do("me")]}
    return int(await person.do("count", relays=[relay], filter=wraps))
