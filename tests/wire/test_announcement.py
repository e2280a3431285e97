"""Announcements and price lists: what is signed is what is read; what is foreign is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import announcement as wire
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, Event
from nostrllm.wire.message import MSAT_MAX, canonical

KEY = "ab" * 32
NOW = 1_800_000_000
PRICE = wire.Price(input=1_000_000, output=3_000_000, request=1_000)


def offer(n: int = 0, padding: str = "") -> wire.ModelOffer:
    return wire.ModelOffer(
        id=f"model-{n}", name=padding, context=2_048, max_tokens=512, price=PRICE
    )


def announced(**fields: object) -> wire.Announcement:
    values = {
        "pubkey": KEY,
        "d": "nostrllm",
        "created_at": NOW,
        "expiration": NOW + 1_200,
        "mints": ("https://mint.example",),
        "relays": ("wss://relay.example",),
        "payment_key": "02" + KEY,
        "instance": "f00d",
        "price_seq": 7,
        "price_root": wire.price_root([offer()]),
        "profile": wire.Profile(name="Fast Finch"),
    }
    return wire.Announcement.model_validate({**values, **fields})


def signed(draft: Draft, pubkey: str = KEY) -> Event:
    return Event(KEY, pubkey, draft.created_at, draft.kind, draft.tags, draft.content, "ab" * 64)


def event_of(announcement: wire.Announcement) -> Event:
    return signed(wire.announcement_draft(announcement, nprofile="nprofile1x", version="0.1.0"))


@pytest.mark.parametrize("closing", [False, True])
def test_an_announcement_reads_as_it_was_written(closing: bool) -> None:
    announcement = announced(closing=closing)
    event = event_of(announcement)
    assert wire.parse_announcement(event) == announcement
    assert event.value("u") == "nostr:nprofile1x"
    assert announcement.address == event.address == f"38421:{KEY}:nostrllm"


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": 1},
        {"tags": (("d", "x"), ("u", "https://node.example"))},
        {"content": "not json"},
        {"content": "{}"},
    ],
)
def test_a_foreign_event_of_the_kind_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(RemoteError):
        wire.parse_announcement(replace(event_of(announced()), **broken))


@pytest.mark.parametrize(
    "name", ["mint", "relay", "payment-key", "instance", "prices", "expiration"]
)
def test_no_tag_may_be_missing(name: str) -> None:
    event = event_of(announced())
    tags = tuple(tag for tag in event.tags if tag[0] != name)
    with pytest.raises(RemoteError):
        wire.parse_announcement(replace(event, tags=tags))


@pytest.mark.parametrize("number", ["", "x", "-1", "1" * 17, "٣"])
def test_a_number_must_be_one(number: str) -> None:
    event = event_of(announced())
    tags = tuple(("expiration", number) if tag[0] == "expiration" else tag for tag in event.tags)
    with pytest.raises(RemoteError):
        wire.parse_announcement(replace(event, tags=tags))


def page_event(page: wire.PricePage, at: int = NOW) -> Event:
    return signed(wire.price_draft(page, "nostrllm", at, at + 960))


def test_a_price_list_reads_as_it_was_written() -> None:
    models = [offer(n) for n in range(3)]
    [page] = wire.price_pages(models, seq=7, valid_until=NOW + 900)
    event = page_event(page)
    assert event.kind == kinds.PRICE_LIST
    assert event.value("d") == "nostrllm/0"
    assert wire.parse_price_page(event) == page
    assert wire.join_pages([page]) == models


def test_a_later_version_may_add_fields() -> None:
    """The root is taken of what was received, so a reader that ignores a field still agrees."""
    raw = offer().model_dump(mode="json", exclude_none=True) | {"licence": "MIT", "tier": "new"}
    root = hashlib.sha256(canonical(raw) + b"\n").hexdigest()
    [page] = wire.price_pages([offer()], seq=7, valid_until=NOW + 900)
    content = json.loads(page.as_json()) | {"models": [raw], "root": root, "mood": "fine"}
    read = wire.parse_price_page(replace(page_event(page), content=json.dumps(content)))
    assert [model.tier for model in wire.join_pages([read])] == ["new"]


def test_a_long_list_comes_in_pages_that_fit_any_relay() -> None:
    models = [offer(n, "x" * 100) for n in range(1_200)]
    pages = wire.price_pages(models, seq=1, valid_until=NOW + 900)
    assert len(pages) > 2
    assert all(len(page.as_json().encode()) <= wire.PAGE_BYTES_MAX for page in pages)
    assert wire.join_pages(pages[::-1]) == models


def test_pages_hold_a_bounded_number_of_models() -> None:
    models = [
        wire.ModelOffer(id=str(n), context=1, max_tokens=1, price=wire.Price(input=0, output=0))
        for n in range(wire.MODELS_PER_PAGE_MAX + 1)
    ]
    pages = wire.price_pages(models, seq=1, valid_until=NOW)
    assert all(len(page.models) <= wire.MODELS_PER_PAGE_MAX for page in pages)
    assert wire.join_pages(pages) == models


def test_every_page_says_how_to_pay_and_still_fits() -> None:
    mint = "https://mint.example/".ljust(256, "m")
    pays = [wire.Pay(mint=mint, unit="u" * 16, percent=10_000, msat=MSAT_MAX, at=1 << 40)]
    pays *= wire.PAYS_MAX
    models = [offer(n, "x" * 100) for n in range(600)]
    pages = wire.price_pages(models, seq=1, valid_until=NOW, pays=pays)
    assert len(pages) > 2
    assert all(len(page.as_json().encode()) <= wire.PAGE_BYTES_MAX for page in pages)
    assert wire.join_pages(pages) == models
    other = pages[1].model_copy(update={"pays": pays[1:]})
    with pytest.raises(RemoteError, match="how to pay"):
        wire.join_pages([pages[0], other, *pages[2:]])


def test_an_empty_list_is_one_page() -> None:
    assert [page.models for page in wire.price_pages([], seq=1, valid_until=NOW)] == [[]]


def test_too_long_a_list_is_refused() -> None:
    models = [offer(n, "x" * 128) for n in range(20_000)]
    with pytest.raises(RemoteError):
        wire.price_pages(models, seq=1, valid_until=NOW)


@pytest.mark.parametrize("valid_until", [NOW - 1, NOW + wire.PROMISE_S_MAX + 1])
def test_a_promise_is_short_and_ahead(valid_until: int) -> None:
    [page] = wire.price_pages([offer()], seq=1, valid_until=valid_until)
    with pytest.raises(RemoteError):
        wire.parse_price_page(page_event(page))


def test_a_page_is_within_its_list_and_of_its_kind() -> None:
    [page] = wire.price_pages([offer()], seq=1, valid_until=NOW)
    with pytest.raises(RemoteError):
        wire.parse_price_page(page_event(page.model_copy(update={"page": 1})))
    with pytest.raises(RemoteError):
        wire.parse_price_page(replace(page_event(page), kind=1))


def test_pages_that_do_not_agree_are_no_list() -> None:
    models = [offer(n, "x" * 100) for n in range(600)]
    first, *rest = wire.price_pages(models, seq=1, valid_until=NOW)
    other = wire.price_pages(models[1:], seq=2, valid_until=NOW)
    for pages in ([], rest, [first], [first, *other[1:]]):
        with pytest.raises(RemoteError):
            wire.join_pages(pages)


@given(
    st.builds(
        Event,
        st.just(KEY),
        st.just(KEY),
        st.integers(0, 2**40),
        st.sampled_from([38421, 38424]),
        st.lists(
            st.lists(st.text(max_size=9), min_size=1, max_size=3).map(tuple)
            | st.just(("t", "nostrllm")),
            max_size=9,
        ).map(tuple),
        st.text(max_size=50),
        st.just("ab" * 64),
    )
)
def test_total(event: Event) -> None:
    for parser in (wire.parse_announcement, wire.parse_price_page):
        try:
            parser(event)
        except RemoteError:
            continue
