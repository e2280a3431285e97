"""The protocol's test vectors, read both ways: parsed they are these objects, built these bytes.

The file is what docs/protocol.md shows pieces of and what another implementation tests against, so
it may change only together with the protocol's version. nostr-sdk, which shares no code with us,
agrees with every event in it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections.abc import Iterator
from typing import Any

import nostr_sdk
import pytest
from pydantic import TypeAdapter

from nostrllm.core import coins, parts
from nostrllm.core.money import cost_msat
from nostrllm.core.pays import coins_taken
from nostrllm.core.stream import pad, unpad
from nostrllm.crypto import nip44, nip59
from nostrllm.crypto.bdhke import y_of
from nostrllm.crypto.keys import derive, public_key, sign_event, verify_event
from nostrllm.wire import chat, kinds, order, receipt, review
from nostrllm.wire.announcement import (
    Announcement,
    ModelOffer,
    Price,
    announcement_draft,
    join_pages,
    parse_announcement,
    parse_price_page,
    price_draft,
    price_pages,
    price_root,
)
from nostrllm.wire.event import Draft, Event, Rumor, parse_event, parse_rumor, rumor
from nostrllm.wire.message import canonical
from nostrllm.wire.token import parse_token
from tests.data import make_vectors

TEXT = make_vectors.PATH.read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads(TEXT)
KEYS: dict[str, dict[str, str]] = VECTORS["keys"]


def secret(name: str) -> bytes:
    return bytes.fromhex(KEYS[name]["secret"])


def signed(event: Event, name: str) -> Event:
    """The event signed again from nothing but its kind, content, time and tags."""
    draft = Draft(event.kind, event.content, event.created_at, event.tags)
    return sign_event(draft, secret(name))


def events(value: Any) -> Iterator[dict[str, Any]]:
    """Every signed event in the file, those inside messages too."""
    if isinstance(value, dict):
        if "sig" in value and "kind" in value:
            yield value
        for inner in value.values():
            yield from events(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from events(inner)


def test_the_file_is_what_the_code_makes() -> None:
    assert make_vectors.text_of(make_vectors.make()) == TEXT, (
        "run `python -m tests.data.make_vectors`, and ask why the protocol changed"
    )


def test_every_event_holds_its_id_and_signature_by_two_implementations() -> None:
    found = list(events(VECTORS))
    assert len(found) > 15
    for raw in found:
        assert verify_event(parse_event(raw))
        assert nostr_sdk.Event.from_json(json.dumps(raw)).verify()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys(key: dict[str, str]) -> None:
    assert public_key(bytes.fromhex(key["secret"])) == key["public"]


@pytest.mark.parametrize("vector", VECTORS["derive"], ids=lambda v: "/".join(v["path"])[:20])
def test_derived_keys(vector: dict[str, Any]) -> None:
    """As docs/protocol.md words it, and as the code does it."""
    seed = bytes.fromhex(vector["seed"])
    message = b"nostrllm derive 1"
    for part in vector["path"]:
        message += len(part.encode()).to_bytes(4, "big") + part.encode()
    wide = int.from_bytes(hmac.digest(seed, message, hashlib.sha512), "big")
    order_of_the_curve = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    by_words = (wide % (order_of_the_curve - 1) + 1).to_bytes(32, "big")
    assert derive(seed, *vector["path"]) == by_words == bytes.fromhex(vector["secret"])
    assert public_key(by_words) == vector["public"]


@pytest.mark.parametrize("vector", VECTORS["ladder"], ids=lambda v: str(v["amount"]))
def test_ladders(vector: dict[str, Any]) -> None:
    amount, rungs = vector["amount"], vector["coins"]
    assert coins.ladder(amount) == rungs
    sums = {0}
    for rung in rungs:
        sums |= {total + rung for total in sums}
    assert sums == set(range(amount + 1))


@pytest.mark.parametrize("vector", VECTORS["cost"])
def test_costs(vector: dict[str, Any]) -> None:
    price = Price(**vector["price"])
    assert price.model_dump(exclude_none=True) == vector["price"]
    assert cost_msat(price, order.Usage(**vector["usage"])) == vector["cost_msat"]


def test_announcement() -> None:
    vector = VECTORS["announcement"]
    event = parse_event(vector["event"])
    expected = TypeAdapter(Announcement).validate_json(json.dumps(vector["announcement"]))
    assert parse_announcement(event) == expected
    draft = announcement_draft(expected, nprofile=vector["nprofile"], version=vector["version"])
    assert sign_event(draft, secret("provider")) == event


def test_price_list() -> None:
    vector = VECTORS["price_list"]
    models = [ModelOffer(**model) for model in vector["models"]]
    found = [parse_event(raw) for raw in vector["pages"]]
    pages = [parse_price_page(event) for event in found]
    assert join_pages(pages) == models
    text = "".join(line + "\n" for line in vector["hashed"])
    by_words = hashlib.sha256(text.encode()).hexdigest()
    assert price_root(models) == by_words == vector["root"] == pages[0].root
    assert parse_announcement(parse_event(VECTORS["announcement"]["event"])).price_root == by_words
    valid_until = pages[0].valid_until
    assert price_pages(models, seq=pages[0].seq, valid_until=valid_until) == pages
    for page, event in zip(pages, found, strict=True):
        expiration = int(event.value("expiration") or 0)
        draft = price_draft(page, "nostrllm", event.created_at, expiration)
        assert sign_event(draft, secret("provider")) == event


def test_how_to_pay() -> None:
    vector = VECTORS["pays"]
    event = parse_event(vector["page"])
    page = parse_price_page(event)
    models = [ModelOffer(**model) for model in VECTORS["price_list"]["models"]]
    assert join_pages([page]) == models
    assert page.root == VECTORS["price_list"]["root"]
    until = page.valid_until
    assert price_pages(models, seq=page.seq, valid_until=until, pays=page.pays) == [page]
    draft = price_draft(page, "nostrllm", event.created_at, until + 60)
    assert sign_event(draft, secret("provider")) == event
    mints = ["https://mint.example", "https://other.example"]
    usage = order.Usage(**vector["usage"])
    assert vector["coins"] == [
        {
            "mint": coin.mint,
            "unit": coin.unit,
            "msat": coin.msat,
            "cost_msat": cost_msat(coin.offer(models[0]).price, usage),
        }
        for coin in coins_taken(page.pays, mints).values()
    ]
    [other] = [coin for coin in vector["coins"] if coin["mint"] == "https://other.example"]
    assert other["cost_msat"] == 1_290  # 1,250 and, rounded up, 17 × 1.25 and 5 × 3.75


def letter() -> Rumor:
    return parse_rumor(VECTORS["order"]["rumor"])


def test_order_and_its_id() -> None:
    vector = VECTORS["order"]
    message = order.parse_from_client(vector["json"])
    assert isinstance(message, order.Order)
    assert message.model_dump(exclude_none=True) == vector["message"]
    assert message.as_json() == vector["json"] == letter().content
    again = Draft(kinds.MESSAGE, message.as_json(), letter().created_at, letter().tags)
    assert rumor(again, KEYS["buyer"]["public"]) == letter()
    array = [0, letter().pubkey, letter().created_at, 25421, letter().tags, letter().content]
    text = json.dumps(array, ensure_ascii=False, separators=(",", ":"))
    assert letter().id == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("vector", VECTORS["messages"]["client"])
def test_messages_of_a_client(vector: dict[str, Any]) -> None:
    message = order.parse_from_client(vector["json"])
    assert message.model_dump(exclude_none=True) == vector["message"]
    assert message.as_json() == vector["json"]


@pytest.mark.parametrize("vector", VECTORS["messages"]["provider"])
def test_messages_of_a_provider(vector: dict[str, Any]) -> None:
    message = order.parse_from_provider(vector["json"])
    assert message.model_dump(exclude_none=True) == vector["message"]
    assert message.as_json() == vector["json"]


def test_every_type_of_message_has_a_vector() -> None:
    seen = {vector["message"]["type"] for side in VECTORS["messages"].values() for vector in side}
    assert seen | {"order"} == {
        *("order", "query", "topup", "refund", "cancel", "ack"),
        *("accepted", "refused", "result", "answer"),
    }


def long_letter() -> Rumor:
    """The order of the vectors with a prompt of "word ", 5,000 times, and no other parameter."""
    message = order.parse_from_client(VECTORS["order"]["json"])
    body = order.ChatRequest(messages=[order.ChatMessage(role="user", content="word " * 5_000)])
    content = message.model_copy(update={"body": body}).as_json()
    return rumor(Draft(kinds.MESSAGE, content, letter().created_at, letter().tags), letter().pubkey)


@pytest.mark.parametrize(
    ("vector", "whole"), list(zip(VECTORS["parts"], [letter(), long_letter()], strict=True))
)
def test_parts(vector: dict[str, Any], whole: Rumor) -> None:
    assert whole.id == vector["whole_id"]
    assert parts.fits(whole) is vector["travels_whole"]
    pieces = [rumor(draft, whole.pubkey) for draft in parts.split(whole, whole.created_at)]
    assert [piece.id for piece in pieces] == [part["id"] for part in vector["parts"]]
    for piece, part in zip(pieces, vector["parts"], strict=True):
        assert [list(tag) for tag in piece.tags] == part["tags"]
        assert len(piece.content) == part["content_chars"]
        assert hashlib.sha256(piece.content.encode()).hexdigest() == part["content_sha256"]
    for arrival in itertools.islice(itertools.permutations(pieces), 6):
        assemblies = parts.Assemblies()
        assert [assemblies.add(piece, 0.0) for piece in arrival][-1] == whole


def test_gift_wrap() -> None:
    vector = VECTORS["gift_wrap"]
    wrap, seal = parse_event(vector["wrap"]), parse_event(vector["seal"])
    assert nip59.open_wrap(wrap, secret("provider")) == seal
    assert nip59.unwrap(wrap, secret("provider"), verify_outer=True) == letter()
    to = KEYS["provider"]["public"]
    by_seal, by_wrap = (
        bytes.fromhex(vector[f"{name}_conversation_key"]) for name in ("seal", "wrap")
    )
    assert by_seal == nip44.conversation_key(secret("buyer"), to)
    assert by_wrap == nip44.conversation_key(secret("once"), to)
    inner = nip44.decrypt(by_seal, seal.content)
    assert nip44.encrypt(by_seal, inner, bytes.fromhex(vector["seal_nonce"])) == seal.content
    outer = nip44.decrypt(by_wrap, wrap.content)
    assert nip44.encrypt(by_wrap, outer, bytes.fromhex(vector["wrap_nonce"])) == wrap.content
    assert signed(seal, "buyer") == seal
    assert signed(wrap, "once") == wrap


def test_gift_wrap_is_opened_by_another_implementation() -> None:
    wrap = nostr_sdk.Event.from_json(json.dumps(VECTORS["gift_wrap"]["wrap"]))
    key = nostr_sdk.SecretKey.parse(KEYS["provider"]["secret"])
    gift = nostr_sdk.UnwrappedGift.from_gift_wrap(nostr_sdk.Keys(key), wrap)
    assert gift.sender().to_hex() == KEYS["buyer"]["public"]
    assert parse_rumor(json.loads(gift.rumor().as_json())) == letter()


@pytest.mark.parametrize("vector", VECTORS["chunks"])
def test_chunks(vector: dict[str, Any]) -> None:
    event = parse_event(vector["event"])
    chunk = order.Chunk(**vector["chunk"])
    assert chunk.as_json() == vector["json"]
    padded = pad(vector["json"]).encode()
    assert len(padded) == vector["padded_bytes"]
    key = bytes.fromhex(vector["conversation_key"])
    assert key == nip44.conversation_key(secret("session"), KEYS["reply"]["public"])
    assert key == nip44.conversation_key(secret("reply"), KEYS["session"]["public"])
    assert nip44.encrypt(key, padded, bytes.fromhex(vector["nonce"])) == event.content
    assert order.parse_chunk(unpad(nip44.decrypt(key, event.content).decode())) == chunk
    assert signed(event, "session") == event


def test_name_of_a_payment() -> None:
    vector = VECTORS["payment"]
    assert [y_of(text) for text in vector["secrets"]] == vector["ys"]
    by_words = hashlib.sha256("".join(sorted(vector["ys"])).encode()).hexdigest()
    assert by_words == vector["digest"]
    message = order.parse_from_client(VECTORS["order"]["json"])
    assert isinstance(message, order.Order)
    assert isinstance(message.payment, order.TokenPayment)
    proofs = parse_token(message.payment.token).proofs
    assert [proof.secret for proof in proofs] == vector["secrets"]


def test_acceptance() -> None:
    vector = VECTORS["accepted"]
    event = order.embedded_event(vector["event"], kinds.ACCEPTED, KEYS["provider"]["public"])
    terms = order.parse_terms(event)
    assert terms.model_dump() == vector["content"]
    assert terms.as_json() == event.content
    assert (terms.order, terms.payment) == (letter().id, VECTORS["payment"]["digest"])
    assert signed(event, "provider") == event


def test_statement() -> None:
    vector = VECTORS["statement"]
    event = order.embedded_event(vector["event"], kinds.STATEMENT, KEYS["provider"]["public"])
    statement = order.parse_statement(event)
    assert statement.model_dump() == vector["content"]
    assert statement.as_json() == event.content
    assert signed(event, "provider") == event


def test_receipt_and_its_details() -> None:
    vector = VECTORS["receipt"]
    event = parse_event(vector["event"])
    found = receipt.parse_receipt(event)
    details = receipt.parse_details(vector["details"])
    opened = bytes.fromhex(vector["reviewer"]) + bytes.fromhex(vector["salt"])
    assert hashlib.sha256(opened).hexdigest() == vector["c"] == found.content.c
    assert receipt.binds(found, vector["reviewer"], vector["salt"])
    by_words = hashlib.sha256(vector["details_json"].encode()).hexdigest()
    assert (
        canonical(details.model_dump(mode="json", exclude_none=True)).decode()
        == vector["details_json"]
    )
    assert details.digest == by_words == vector["details_sha256"] == found.content.details
    draft = receipt.receipt_draft(vector["c"], vector["model"], details, vector["now"])
    assert sign_event(draft, secret("provider")) == event
    assert found.content.amount_msat == 2_048


def test_review() -> None:
    vector = VECTORS["review"]
    event = parse_event(vector["event"])
    found = review.parse_review(event)
    assert (found.rating, found.text) == (vector["rating"], vector["text"])
    assert found.receipt == parse_event(VECTORS["receipt"]["event"])
    assert found.salt == VECTORS["receipt"]["salt"]
    draft = review.review_draft(found, "wss://relay.example")
    assert sign_event(draft, secret("identity")) == event


@pytest.mark.parametrize("vector", VECTORS["chat"])
def test_a_persons_words(vector: dict[str, Any]) -> None:
    said = chat.parse_chat(vector["text"])
    assert said.command == vector["command"]
    assert said.argument == vector["argument"]
    assert list(said.tokens) == vector["tokens"]
    assert said.prompt == vector["prompt"]
