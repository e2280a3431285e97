"""Reviews, the own list of providers, and direct messages."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from nostrllm.client.dm import announce_relays, converse, dm_relays
from nostrllm.client.follow import follow, followed, unfollow
from nostrllm.client.review import judged, publish, read
from nostrllm.client.world import Square
from nostrllm.errors import LocalError, RelayError
from nostrllm.ports import Signer
from nostrllm.service.market import market
from nostrllm.service.place import place
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.order import Usage
from nostrllm.wire.receipt import Details, commitment, receipt_draft
from nostrllm.wire.review import Review, review_draft
from tests.faultproxy import FaultProxy

SALT = "5a" * 32
LISTS = (kinds.RELAY_LIST, kinds.DM_RELAYS)


def review_by(author: str, provider: str, **more: object) -> Review:
    fields = {"d": "main", "rating": 4, "text": "fine", "created_at": 1_700_000_000, **more}
    return Review(author, provider, **fields)  # type: ignore[arg-type]


async def receipt(provider: Signer, reviewer: str) -> Event:
    details = Details(
        order="1" * 64, price="2" * 64, mint="m", cost_msat=5, usage=Usage(), nonce="3" * 64
    )
    draft = receipt_draft(commitment(reviewer, SALT), "parrot", details, 1_700_000_000)
    return await provider.sign(draft)


@pytest.fixture
def where(relay_url: str, tmp_path: Path) -> dict[str, object]:
    return {"state": tmp_path, "relays": [relay_url]}


async def test_a_review_is_read_back_with_its_receipt(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        square = seen.square
        me, provider = square.keyring.signer(), square.keyring.signer()
        proof = await receipt(provider, me.pubkey)
        first = review_by(me.pubkey, provider.pubkey, receipt=proof, salt=SALT)
        await publish(square, me, first)
        second = review_by(me.pubkey, provider.pubkey, rating=2, receipt=proof, salt=SALT)
        event = await publish(square, me, second)
        (one,) = await read(square, provider.pubkey)
        assert (one.id, one.review.rating, one.verified) == (event.id, 2, True)
        assert event.created_at > first.created_at


async def test_a_receipt_convinces_only_where_it_belongs(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        keyring = seen.square.keyring
        me, provider, other = (keyring.signer() for _ in range(3))
        proof = await receipt(provider, me.pubkey)

        async def verified(author: Signer, proof: Event | None, salt: str = SALT) -> bool:
            review = review_by(author.pubkey, provider.pubkey, receipt=proof, salt=salt)
            event = await author.sign(review_draft(review))
            (one,) = judged([event], provider.pubkey, keyring, 1_700_000_001)
            return one.verified

        assert await verified(me, proof)
        assert not await verified(me, None)
        assert not await verified(other, proof)  # made for me
        assert not await verified(me, proof, "00" * 32)
        assert not await verified(me, await receipt(other, me.pubkey))  # another's signature
        forged = replace(proof, sig="0" * 128)
        assert not await verified(me, forged)
        wrong_kind = await provider.sign(Draft(1, proof.content, 5))
        assert not await verified(me, wrong_kind)
        unreadable = await provider.sign(Draft(kinds.RECEIPT, "{}", 5))
        assert not await verified(me, unreadable)


async def test_self_praise_future_and_noise_are_dropped(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        keyring = seen.square.keyring
        provider, other = keyring.signer(), keyring.signer()
        events = [
            await provider.sign(review_draft(review_by(provider.pubkey, provider.pubkey))),
            await other.sign(
                review_draft(review_by(other.pubkey, provider.pubkey, created_at=1_700_002_000))
            ),
            await other.sign(review_draft(review_by(other.pubkey, other.pubkey))),
            await other.sign(Draft(kinds.REVIEW, "noise", 1_700_000_000)),
        ]
        assert judged(events, provider.pubkey, keyring, 1_700_000_001) == []


async def test_a_review_has_bounds(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        me = seen.square.keyring.signer()
        for wrong in ({"rating": 6}, {"rating": 0}, {"text": "x" * 2_001}):
            with pytest.raises(LocalError):
                await publish(seen.square, me, review_by(me.pubkey, "ab" * 32, **wrong))


async def test_the_list_keeps_what_others_put_there(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        square, me = seen.square, seen.square.keyring.signer()
        a, b = "aa" * 32, "bb" * 32
        assert await followed(square, me.pubkey) == []
        assert await follow(square, me, a) == [a]
        before = await square.newest(kinds.FOLLOW_SET, me.pubkey, "llm-providers")
        assert before is not None
        theirs = Draft(
            before.kind, "private", before.created_at, (*before.tags, ("description", "mine"))
        )
        await square.replace(me, theirs, before)
        assert await follow(square, me, b) == [a, b]
        assert await follow(square, me, b) == [a, b]
        assert await unfollow(square, me, a) == [b]
        assert await unfollow(square, me, a) == [b]
        after = await square.newest(kinds.FOLLOW_SET, me.pubkey, "llm-providers")
        assert after is not None
        assert (after.content, after.value("description")) == ("private", "mine")


async def test_two_people_talk(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        square = seen.square
        ann, bob, eve = (square.keyring.signer() for _ in range(3))
        async with (
            converse(square, ann, bob.pubkey) as ours,
            converse(square, bob, ann.pubkey) as theirs,
            converse(square, eve, ann.pubkey) as stranger,
        ):
            await stranger.send("psst")
            sent = await ours.send("hello")
            async with asyncio.timeout(10):
                heard = await anext(aiter(theirs))
                assert (heard.text, heard.author, heard.id) == ("hello", ann.pubkey, sent.id)
                await theirs.send("hello yourself")
                answers = [message.text async for message in ours.replies(1.0)]
        assert answers == ["hello yourself"]


async def test_relays_are_announced_once_and_never_overwritten(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        square, me = seen.square, seen.square.keyring.signer()
        elsewhere = Draft(kinds.DM_RELAYS, "", 1_700_000_000, (("relay", "ws://127.0.0.1:9"),))
        await square.publish(await me.sign(elsewhere))
        urls = await announce_relays(square, me)
        assert set(urls) == {*square.urls, "ws://127.0.0.1:9"}
        mine = await square.newest(kinds.RELAY_LIST, me.pubkey)
        assert mine is not None
        assert tuple(mine.values("r")) == square.urls
        await announce_relays(square, me)
        assert await square.newest(kinds.RELAY_LIST, me.pubkey) == mine


async def test_a_stranger_sends_us_to_no_machine_of_our_network(where: dict[str, object]) -> None:
    async with market(place(**where)) as seen:  # type: ignore[arg-type]
        square, other = seen.square, seen.square.keyring.signer()
        named = ("ws://127.0.0.1:9", "wss://router.lan", "wss://Relay.Example/", "junk")
        tags = tuple(("relay", url) for url in named)
        await square.publish(await other.sign(Draft(kinds.DM_RELAYS, "", 1_700_000_000, tags)))
        assert await dm_relays(square, other.pubkey) == ("wss://relay.example",)
        assert square.reachable(("ws://10.0.0.1", *square.urls)) == square.urls
        assert square.reachable(("ws://10.0.0.1",)) == square.urls


async def test_nobody_takes_the_message(tmp_path: Path) -> None:
    async with market(place(state=tmp_path, relays=["ws://127.0.0.1:9"])) as seen:
        me = seen.square.keyring.signer()
        with pytest.raises(RelayError) as caught:
            await follow(seen.square, me, "aa" * 32)
        assert "ws://127.0.0.1:9" in caught.value.message
        nowhere = Square(seen.square.relays, seen.square.keyring, seen.square.clock, ())
        with pytest.raises(RelayError):
            await dm_relays(nowhere, me.pubkey)


@pytest.mark.parametrize("fault", ["swallow_down", "refuse"])
async def test_lists_are_not_written_over_by_one_who_cannot_read_them(
    fault: str, relay_url: str, where: dict[str, object]
) -> None:
    async with FaultProxy(relay_url) as proxy, market(place(**where)) as seen:  # type: ignore[arg-type]
        square, me = seen.square, seen.square.keyring.signer()
        kept = await follow(square, me, "a" * 64)
        await announce_relays(square, me)
        before = [await square.newest(kind, me.pubkey) for kind in LISTS]
        setattr(proxy, fault, True)
        async with market(place(**{**where, "relays": [proxy.url]})) as deaf:  # type: ignore[arg-type]
            for change in (follow, unfollow):
                with pytest.raises(RelayError, match="nothing was changed"):
                    await change(deaf.square, me, "b" * 64)
            with pytest.raises(RelayError, match="nothing was changed"):
                await announce_relays(deaf.square, me)
        assert await followed(square, me.pubkey) == kept
        assert [await square.newest(kind, me.pubkey) for kind in LISTS] == before
