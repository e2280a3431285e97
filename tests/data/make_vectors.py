"""Makes tests/data/protocol-vectors.json: `python -m tests.data.make_vectors`.

Everything random in the protocol is fixed here, so another implementation that uses the same
secrets, nonces and times must arrive at the same bytes. BIP-340 signatures use 32 zero bytes as
auxiliary randomness.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from nostrllm.adapters.keys_sdk import nprofile
from nostrllm.core import coins, parts
from nostrllm.core.coins import digest as coins_digest
from nostrllm.core.money import cost_msat
from nostrllm.core.pays import coins_taken
from nostrllm.core.stream import pad
from nostrllm.crypto import nip44, nip59
from nostrllm.crypto.bdhke import y_of
from nostrllm.crypto.keys import derive, load, public_key, sign_event
from nostrllm.wire import chat, kinds
from nostrllm.wire import order as wire
from nostrllm.wire.announcement import (
    Announcement,
    ModelOffer,
    Pay,
    Price,
    Profile,
    Terms,
    announcement_draft,
    price_draft,
    price_pages,
    price_root,
)
from nostrllm.wire.event import Draft, Event, Rumor, rumor
from nostrllm.wire.message import Wire, canonical
from nostrllm.wire.receipt import Details, commitment, receipt_draft
from nostrllm.wire.review import Review, review_draft
from nostrllm.wire.token import Proof, Token, encode_token

PATH: Final = Path(__file__).parent / "protocol-vectors.json"

NOW: Final = 1_800_000_000
SEED: Final = bytes(range(64))
MINT: Final = "https://mint.example"
RELAY: Final = "wss://relay.example"
SALT: Final = "5a" * 32
KEYSET: Final = "009a1f293253e41e"

PROVIDER: Final = bytes([1]) * 32
IDENTITY: Final = bytes([2]) * 32
SESSION: Final = bytes([3]) * 32
ONCE: Final = bytes([4]) * 32


def make() -> dict[str, Any]:
    """Every vector, as the JSON file holds it."""
    buyer = derive(SEED, "buyer", public_key(PROVIDER))
    reply = derive(SEED, "reply", "1")
    order = _order(public_key(reply))
    letter = _letter(order, buyer)
    signed = _signed(letter)
    return {
        "note": "made by `python -m tests.data.make_vectors`; see docs/protocol.md",
        "keys": {
            "provider": _key(PROVIDER),
            "identity": _key(IDENTITY),
            "buyer": _key(buyer),
            "reply": _key(reply),
            "session": _key(SESSION),
            "once": _key(ONCE),
        },
        "derive": [
            _derived(*path)
            for path in (("buyer", public_key(PROVIDER)), ("reply", "1"), ("ab", "c"), ("a", "bc"))
        ],
        "ladder": [
            {"amount": amount, "coins": coins.ladder(amount)}
            for amount in (1, 2, 3, 4, 5, 8, 15, 16, 21, 63, 64, 100, 1_000)
        ],
        "cost": _costs(),
        "announcement": _announcement(),
        "price_list": _price_list(),
        "pays": _pays(),
        "order": {
            "message": order.model_dump(exclude_none=True),
            "json": order.as_json(),
            "rumor": _dict(letter),
        },
        "messages": _messages(letter, signed),
        "parts": [_parts(letter), _parts(_long_letter(order, buyer))],
        "gift_wrap": _gift_wrap(letter, buyer),
        "chunks": [
            _chunk(0, wire.Chunk(seq=0, text="Paris")),
            _chunk(1, wire.Chunk(seq=1, text=", " + "é" * 200)),
            _chunk(2, wire.Chunk(seq=2, frame="close")),
        ],
        "payment": {
            "secrets": [proof.secret for proof in _token().proofs],
            "ys": [y_of(proof.secret) for proof in _token().proofs],
            "digest": coins_digest(_token().proofs),
        },
        **signed,
        "review": _review(signed["receipt"]["event"]),
        "chat": [_chat(text) for text in _CHATS],
    }


def text_of(vectors: dict[str, Any]) -> str:
    """The file's text."""
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


# keys and sums


def _key(secret: bytes) -> dict[str, str]:
    return {"secret": secret.hex(), "public": public_key(secret)}


def _derived(*path: str) -> dict[str, Any]:
    return {"seed": SEED.hex(), "path": list(path), **_key(derive(SEED, *path))}


def _costs() -> list[dict[str, Any]]:
    plain = Price(input=1_000_000, output=3_000_000, request=1_000)
    split = Price(input=1_000_000, output=3_000_000, cached=100_000, reasoning=5_000_000)
    uses = [
        (plain, wire.Usage(prompt=17, completion=5)),
        (Price(input=1, output=1), wire.Usage(prompt=1)),
        (Price(input=1, output=1), wire.Usage(prompt=500_000, completion=500_001)),
        (split, wire.Usage(prompt=100, completion=50, cached=60, reasoning=20)),
    ]
    return [
        {
            "price": price.model_dump(exclude_none=True),
            "usage": usage.model_dump(),
            "cost_msat": cost_msat(price, usage),
        }
        for price, usage in uses
    ]


# public events


def _models() -> list[ModelOffer]:
    return [
        ModelOffer(
            id="small",
            name="A small model",
            context=8_192,
            max_tokens=1_024,
            parameters=["max_tokens", "temperature"],
            price=Price(input=1_000_000, output=3_000_000, request=1_000),
        ),
        ModelOffer(
            id="thinker",
            tier="complex",
            context=131_072,
            max_tokens=8_192,
            price=Price(input=4_000_000, output=12_000_000, cached=400_000, reasoning=12_000_000),
        ),
    ]


def _announcement() -> dict[str, Any]:
    announcement = Announcement(
        pubkey=public_key(PROVIDER),
        d="nostrllm",
        created_at=NOW,
        expiration=NOW + 1_200,
        mints=(MINT,),
        relays=(RELAY, "wss://second.example"),
        payment_key="02" + public_key(derive(SEED, "payment", "0")),
        instance="0123456789abcdef",
        price_seq=7,
        price_root=price_root(_models()),
        profile=Profile(name="Ada's answers", about="One box, two models.", terms=Terms()),
    )
    profile = nprofile(announcement.pubkey, announcement.relays)
    draft = announcement_draft(announcement, nprofile=profile, version="0.1.0")
    return {
        "announcement": announcement.model_dump(mode="json"),
        "nprofile": profile,
        "version": "0.1.0",
        "event": _dict(sign_event(draft, PROVIDER)),
    }


def _price_list() -> dict[str, Any]:
    models = _models()
    pages = price_pages(models, seq=7, valid_until=NOW + 900)
    return {
        "models": [model.model_dump(exclude_none=True) for model in models],
        "hashed": [
            canonical(model.model_dump(mode="json", exclude_none=True)).decode() for model in models
        ],
        "root": price_root(models),
        "pages": [
            _dict(sign_event(price_draft(page, "nostrllm", NOW, NOW + 960), PROVIDER))
            for page in pages
        ],
    }


def _pays() -> dict[str, Any]:
    """A list that says how to pay, what each coin is worth by it, and what an answer costs then."""
    usage = wire.Usage(prompt=17, completion=5)
    pays = [
        Pay(mint="https://mint.example", unit="sat"),
        Pay(mint="https://mint.example", unit="usd", msat=9_900, at=NOW - 60),
        Pay(mint="https://other.example", unit="sat", percent=125),
        Pay(mint="https://other.example", unit="xau", msat=5, at=NOW),
    ]
    [page] = price_pages(_models(), seq=7, valid_until=NOW + 900, pays=pays)
    taken = coins_taken(pays, ["https://mint.example", "https://other.example"])
    return {
        "page": _dict(sign_event(price_draft(page, "nostrllm", NOW, NOW + 960), PROVIDER)),
        "usage": usage.model_dump(),
        "coins": [
            {
                "mint": coin.mint,
                "unit": coin.unit,
                "msat": coin.msat,
                "cost_msat": cost_msat(coin.offer(page.models[0]).price, usage),
            }
            for coin in taken.values()
        ],
    }


# private messages


def _token() -> Token:
    """Coins that no mint signed: their form is right, which is all that these vectors need."""
    proofs = tuple(
        Proof(KEYSET, amount, f"{amount:064x}", "02" + public_key(bytes([16 + amount]) * 32))
        for amount in (1, 4, 16)
    )
    return Token(MINT, "sat", proofs)


def _order(reply_key: str) -> wire.Order:
    return wire.Order(
        reply=wire.ReplyTo(key=reply_key, relays=[RELAY]),
        model="small",
        body=wire.ChatRequest(
            messages=[wire.ChatMessage(role="user", content="What is the capital of France?")],
            max_tokens=64,
        ),
        price=_price_list()["pages"][0]["id"],
        ceiling_msat=21_000,
        payment=wire.TokenPayment(token=encode_token(_token())),
        deadline=NOW + 60,
        chunk_ms=250,
        c=commitment(public_key(IDENTITY), SALT),
    )


def _letter(message: Wire, author: bytes) -> Rumor:
    draft = Draft(kinds.MESSAGE, message.as_json(), NOW, (("p", public_key(PROVIDER)),))
    return rumor(draft, public_key(author))


def _long_letter(order: wire.Order, author: bytes) -> Rumor:
    long = wire.ChatMessage(role="user", content="word " * 5_000)
    return _letter(order.model_copy(update={"body": wire.ChatRequest(messages=[long])}), author)


def _parts(whole: Rumor) -> dict[str, Any]:
    """Long contents are told by their hash; the long order's prompt is "word " 5,000 times."""
    text = json.dumps(_dict(whole), ensure_ascii=False, separators=(",", ":"))
    pieces = [rumor(draft, whole.pubkey) for draft in parts.split(whole, NOW)]
    return {
        "whole_id": whole.id,
        "whole_bytes": len(text.encode()),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "travels_whole": parts.fits(whole),
        "parts": [
            {
                "id": piece.id,
                "kind": piece.kind,
                "tags": [list(tag) for tag in piece.tags],
                "content_chars": len(piece.content),
                "content_sha256": hashlib.sha256(piece.content.encode()).hexdigest(),
            }
            for piece in pieces
        ],
    }


def _gift_wrap(letter: Rumor, author: bytes) -> dict[str, Any]:
    how = nip59.Wrapping(
        author=load(author),
        to=public_key(PROVIDER),
        once=load(ONCE),
        seal_nonce=bytes([5]) * 32,
        wrap_nonce=bytes([6]) * 32,
        seal_created_at=NOW - 86_400,
        wrap_created_at=NOW - 3_600,
        expiration=NOW + 660,
    )
    to = public_key(PROVIDER)
    return {
        "rumor_id": letter.id,
        "seal_nonce": how.seal_nonce.hex(),
        "wrap_nonce": how.wrap_nonce.hex(),
        "seal_conversation_key": nip44.conversation_key(author, to).hex(),
        "wrap_conversation_key": nip44.conversation_key(ONCE, to).hex(),
        "seal": _dict(nip59.seal(letter, how)),
        "wrap": _dict(nip59.wrap(letter, how)),
    }


def _chunk(number: int, chunk: wire.Chunk) -> dict[str, Any]:
    reply = public_key(derive(SEED, "reply", "1"))
    key = nip44.conversation_key(SESSION, reply)
    nonce = bytes([7 + number]) * 32
    padded = pad(chunk.as_json())
    content = nip44.encrypt(key, padded.encode(), nonce)
    event = sign_event(Draft(kinds.CHUNK, content, NOW + 1, (("p", reply),)), SESSION)
    return {
        "chunk": chunk.model_dump(),
        "json": chunk.as_json(),
        "padded_bytes": len(padded.encode()),
        "conversation_key": key.hex(),
        "nonce": nonce.hex(),
        "event": _dict(event),
    }


def _signed(letter: Rumor) -> dict[str, Any]:
    """The events that a provider signs and only puts into messages."""
    terms = wire.AcceptedTerms(
        order=letter.id,
        client=letter.pubkey,
        price=_price_list()["pages"][0]["id"],
        model="small",
        ceiling_msat=21_000,
        payment=coins_digest(_token().proofs),
        session=public_key(SESSION),
    )
    statement = wire.Statement(account=letter.pubkey, seq=3, balance_msat=1_234)
    details = Details(
        order=letter.id,
        price=terms.price,
        mint=MINT,
        cost_msat=1_032,
        usage=wire.Usage(prompt=17, completion=5),
        nonce="9c" * 32,
    )
    c = commitment(public_key(IDENTITY), SALT)
    receipt = sign_event(receipt_draft(c, "small", details, NOW), PROVIDER)
    return {
        "accepted": _content(kinds.ACCEPTED, terms),
        "statement": _content(kinds.STATEMENT, statement),
        "receipt": {
            "reviewer": public_key(IDENTITY),
            "salt": SALT,
            "c": c,
            "model": "small",
            "details": details.model_dump(),
            "details_json": canonical(details.model_dump(mode="json", exclude_none=True)).decode(),
            "details_sha256": details.digest,
            "now": NOW,
            "event": _dict(receipt),
        },
    }


def _content(kind: int, content: Wire) -> dict[str, Any]:
    event = sign_event(Draft(kind, content.as_json(), NOW), PROVIDER)
    return {"content": content.model_dump(), "event": _dict(event)}


def _messages(letter: Rumor, signed: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    reply = wire.ReplyTo(key=public_key(derive(SEED, "reply", "1")), relays=[RELAY])
    text = encode_token(_token())
    change = wire.Change(mint=MINT, unit="sat", amount=19, token=text)
    problem = wire.Problem(code="busy", message="too many orders are waiting", retry_after_s=10)
    statement = signed["statement"]["event"]
    accepted, receipt = signed["accepted"]["event"], signed["receipt"]
    said_by_client: list[Wire] = [
        wire.Query(reply=reply, what="balance"),
        wire.Query(reply=reply, what="order", order=letter.id),
        wire.TopUp(reply=reply, token=text),
        wire.Refund(reply=reply),
        wire.Cancel(reply=reply, order=letter.id),
        wire.Ack(reply=reply, order=letter.id),
    ]
    said_by_provider: list[Wire] = [
        wire.Accepted(order=letter.id, event=accepted, session=public_key(SESSION), ahead=2),
        wire.Refused(order=letter.id, problem=problem),
        wire.Result(
            order=letter.id,
            text="Paris.",
            sha256=hashlib.sha256(b"Paris.").hexdigest(),
            finish_reason="stop",
            model="small",
            usage=wire.Usage(prompt=17, completion=5),
            cost_msat=1_032,
            fee_msat=1_000,
            change=change.model_copy(update={"amount": 18}),
            credit_msat=968,
            statement=statement,
            accepted=accepted,
            receipt=receipt["event"],
            details=receipt["details"],
        ),
        wire.Answer(
            to=letter.id,
            balance_msat=1_234,
            statement=statement,
            state="done",
            change=change,
        ),
    ]
    return {
        "client": [_message(message) for message in said_by_client],
        "provider": [_message(message) for message in said_by_provider],
    }


def _message(message: Wire) -> dict[str, Any]:
    return {"message": message.model_dump(exclude_none=True), "json": message.as_json()}


def _review(receipt: dict[str, Any]) -> dict[str, Any]:
    review = Review(
        author=public_key(IDENTITY),
        provider=public_key(PROVIDER),
        d="nostrllm",
        rating=4,
        text="Fast, and the change was right.",
        created_at=NOW + 86_400,
        model="small",
        receipt=Event(**{**receipt, "tags": tuple(map(tuple, receipt["tags"]))}),
        salt=SALT,
    )
    return {
        "rating": review.rating,
        "text": review.text,
        "event": _dict(sign_event(review_draft(review, RELAY), IDENTITY)),
    }


_CHATS: Final = (
    "What is the capital of France?",
    f"What is the capital of France? {encode_token(_token())}",
    f"/topup {encode_token(_token())}",
    "/Model  small ",
    "/nonsense now",
    f"pay cashu:{encode_token(_token())} and keep nsec1{'q' * 58} to yourself",
)


def _chat(text: str) -> dict[str, Any]:
    said = chat.parse_chat(text)
    return {
        "text": text,
        "command": said.command,
        "argument": said.argument,
        "tokens": list(said.tokens),
        "prompt": said.prompt,
    }


def _dict(event: Event | Rumor) -> dict[str, Any]:
    return event.as_dict()


if __name__ == "__main__":
    PATH.write_text(text_of(make()), encoding="utf-8")
    print(f"wrote {PATH}")
