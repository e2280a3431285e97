"""A stranger who has read docs/protocol.md, and shares no code with us, buys an answer.

What stands here uses websockets, nostr-sdk and hashlib; of this project only the stall that sells
and the wallet that makes the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import websockets
from nostr_sdk import (
    Event,
    EventBuilder,
    Keys,
    Kind,
    PublicKey,
    Tag,
    UnsignedEvent,
    UnwrappedGift,
    nip44_decrypt,
    nip59_make_gift_wrap,
)

from tests.roles.market import buying, config_text, selling

WAIT_S = 60.0
CEILING_MSAT = 34_000


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def canonical(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tag(event: dict[str, Any], name: str) -> list[str]:
    return next(tag for tag in event["tags"] if tag[0] == name)


def true(event: dict[str, Any]) -> bool:
    return bool(Event.from_json(json.dumps(event)).verify())


@dataclass
class Stranger:
    """One connection to one relay, and fresh keys for everything."""

    socket: Any
    relay: str
    buyer: Keys = field(default_factory=Keys.generate)
    reply: Keys = field(default_factory=Keys.generate)
    reviewer: Keys = field(default_factory=Keys.generate)
    salt: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def commitment(self) -> str:
        both = bytes.fromhex(self.reviewer.public_key().to_hex()) + bytes.fromhex(self.salt)
        return hashlib.sha256(both).hexdigest()

    async def fetch(self, **wanted: Any) -> list[dict[str, Any]]:
        """Stored events, newest first as relays send them."""
        await self.socket.send(json.dumps(["REQ", "stored", wanted]))
        found = []
        while (said := json.loads(await self.socket.recv()))[0] != "EOSE":
            if said[0] == "EVENT":
                assert true(said[2])
                found.append(said[2])
        await self.socket.send(json.dumps(["CLOSE", "stored"]))
        return found

    async def listing(self, provider: str) -> tuple[dict[str, Any], str]:
        """The first model of his price list, whose root is checked, and the page's event id."""
        [announcement] = await self.fetch(kinds=[38421], authors=[provider])
        assert tag(announcement, "t")[1] == "nostrllm"
        assert int(tag(announcement, "expiration")[1]) > time.time()
        [page] = await self.fetch(kinds=[38424], authors=[provider])
        assert tag(page, "d")[1] == tag(announcement, "d")[1] + "/0"
        content = json.loads(page["content"])
        root = sha256("".join(canonical(model) + "\n" for model in content["models"]))
        assert root == content["root"] == tag(announcement, "prices")[2]
        return content["models"][0], page["id"]

    def order(self, model: str, page: str, token: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Name a river."}]
        return {
            "v": 1,
            "type": "order",
            "reply": {"key": self.reply.public_key().to_hex(), "relays": [self.relay]},
            "model": model,
            "body": {"messages": messages, "max_tokens": 60},
            "price": page,
            "ceiling_msat": CEILING_MSAT,
            "payment": {"kind": "token", "token": token},
            "deadline": int(time.time()) + 60,
            "chunk_ms": 100,
            "c": self.commitment,
        }

    async def send(self, message: dict[str, Any], provider: str) -> str:
        """Wrap and publish; returns the id by which the order is known."""
        to = PublicKey.parse(provider)
        builder = EventBuilder(Kind(25421), json.dumps(message)).tags([Tag.public_key(to)])
        letter: UnsignedEvent = builder.finalize_unsigned(self.buyer.public_key())
        said = json.loads(letter.as_json())
        wrap = nip59_make_gift_wrap(self.buyer, to, letter, timedelta(days=3))
        wanted = {"kinds": [1059, 25425], "#p": [self.reply.public_key().to_hex()]}
        await self.socket.send(json.dumps(["REQ", "replies", wanted]))
        await self.socket.send(json.dumps(["EVENT", json.loads(wrap.as_json())]))
        names = ("pubkey", "created_at", "kind", "tags", "content")
        return sha256(compact([0, *(said[name] for name in names)]))

    async def replies(self) -> AsyncIterator[dict[str, Any]]:
        """What comes to the reply key."""
        while True:
            said = json.loads(await self.socket.recv())
            assert said[0] != "OK" or said[2], said
            if said[0] == "EVENT":
                assert true(said[2])
                yield said[2]

    def opened(self, wrap: dict[str, Any], provider: str) -> dict[str, Any]:
        """The message in a wrap that the provider sealed."""
        gift = UnwrappedGift.from_gift_wrap(self.reply, Event.from_json(json.dumps(wrap)))
        assert gift.sender().to_hex() == provider
        letter = json.loads(gift.rumor().as_json())
        assert letter["kind"] == 25421
        message: dict[str, Any] = json.loads(letter["content"])
        assert message["v"] == 1
        return message

    def chunk(self, event: dict[str, Any], session: str) -> dict[str, Any]:
        assert event["pubkey"] == session
        author = PublicKey.parse(session)
        text = nip44_decrypt(self.reply.secret_key(), author, event["content"])
        assert len(text.encode()) in {1 << power for power in range(8, 16)}
        piece: dict[str, Any] = json.loads(text)
        return piece


def cost_msat(price: dict[str, int], usage: dict[str, int]) -> int:
    cached, reasoning = usage["cached"], usage["reasoning"]
    millionths = (
        (usage["prompt"] - cached) * price["input"]
        + cached * price.get("cached", price["input"])
        + (usage["completion"] - reasoning) * price["output"]
        + reasoning * price.get("reasoning", price["output"])
    )
    return price["request"] + math.ceil(millionths / 1_000_000)


async def test_the_page_is_enough_to_buy_an_answer(
    relay_url: str, mint_url: str, engine_url: str, tmp_path: Path
) -> None:
    text = config_text(tmp_path / "stall", [relay_url], mint_url, engine_url)
    async with (
        selling(text) as stall,
        buying(relay_url, mint_url, tmp_path) as purse,
        websockets.connect(relay_url) as socket,
        asyncio.timeout(WAIT_S),
    ):
        stranger, provider = Stranger(socket, relay_url), stall.pubkey
        model, page = await stranger.listing(provider)
        order = stranger.order(model["id"], page, await purse.token(CEILING_MSAT // 1_000))
        order_id = await stranger.send(order, provider)

        said: dict[str, dict[str, Any]] = {}
        chunks: list[dict[str, Any]] = []
        async for event in stranger.replies():
            if event["kind"] == 25425:
                chunks.append(event)
                continue
            message = stranger.opened(event, provider)
            said[message["type"]] = message
            if message["type"] == "result":
                break

        accepted, result = said["accepted"], said["result"]
        assert accepted["order"] == result["order"] == order_id
        bound(accepted, order, stranger)
        pieces = {
            piece["seq"]: piece
            for piece in (stranger.chunk(event, accepted["session"]) for event in chunks)
        }
        assert "".join(pieces[seq]["text"] for seq in sorted(pieces)) == result["text"]
        assert pieces[max(pieces)]["frame"] == "close"
        honest(result, model["price"])
        proved(result, stranger, provider)
        assert await purse.worth(result["change"]["token"]) > 0


def bound(accepted: dict[str, Any], order: dict[str, Any], stranger: Stranger) -> None:
    """The acceptance is the provider's signature on this order."""
    assert true(accepted["event"])
    terms = json.loads(accepted["event"]["content"])
    for name in ("price", "model", "ceiling_msat"):
        assert terms[name] == order[name]
    assert terms["client"] == stranger.buyer.public_key().to_hex()
    assert terms["session"] == accepted["session"]


def honest(result: dict[str, Any], price: dict[str, int]) -> None:
    """The text is whole, the cost is the price, and every msat is accounted for."""
    assert result["sha256"] == sha256(result["text"])
    assert result["cost_msat"] == cost_msat(price, result["usage"])
    back = result["change"]["amount"] * 1_000 + result["credit_msat"]
    assert result["cost_msat"] + result["fee_msat"] + back == CEILING_MSAT


def proved(result: dict[str, Any], stranger: Stranger, provider: str) -> None:
    """The receipt is this order's, and opens for this reviewer."""
    receipt = result["receipt"]
    assert true(receipt)
    assert (receipt["kind"], receipt["pubkey"]) == (25423, provider)
    content = json.loads(receipt["content"])
    assert content["c"] == stranger.commitment
    assert content["details"] == sha256(canonical(result["details"]))
    assert content["amount_msat"] == 1 << (result["cost_msat"] - 1).bit_length()
