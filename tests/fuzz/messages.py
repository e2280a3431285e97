"""What the two sides say to each other and to the world."""

from __future__ import annotations

from nostrllm.errors import RemoteError
from nostrllm.wire import announcement, kinds, order, receipt, review
from nostrllm.wire.chat import parse_chat, split_answer
from tests.fuzz.target import Target, event_of, refusing, text_of


@refusing()
def from_client(data: bytes) -> None:
    found = order.parse_from_client(text_of(data))
    assert order.parse_from_client(found.as_json()) == found


@refusing()
def from_provider(data: bytes) -> None:
    found = order.parse_from_provider(text_of(data))
    assert order.parse_from_provider(found.as_json()) == found


@refusing()
def chunk(data: bytes) -> None:
    found = order.parse_chunk(text_of(data))
    assert order.parse_chunk(found.as_json()) == found


@refusing()
def terms(data: bytes) -> None:
    order.parse_terms(event_of(data, kinds.ACCEPTED))


@refusing()
def statement(data: bytes) -> None:
    order.parse_statement(event_of(data, kinds.RECEIPT))


@refusing()
def announced(data: bytes) -> None:
    announcement.parse_announcement(event_of(data, kinds.ANNOUNCEMENT))


@refusing()
def price_page(data: bytes) -> None:
    page = announcement.parse_price_page(event_of(data, kinds.PRICE_LIST))
    announcement.join_pages([page])


@refusing()
def receipt_event(data: bytes) -> None:
    receipt.parse_receipt(event_of(data, kinds.RECEIPT))


@refusing()
def review_event(data: bytes) -> None:
    review.parse_review(event_of(data, kinds.REVIEW))


@refusing()
def chat(data: bytes) -> None:
    """A person may write anything at all; it is never refused."""
    text = text_of(data)
    try:
        parse_chat(text)
    except RemoteError:
        raise AssertionError("a person's message was refused") from None
    split_answer(text)


TARGETS: dict[str, Target] = {
    "from_client": from_client,
    "from_provider": from_provider,
    "chunk": chunk,
    "terms": terms,
    "statement": statement,
    "announced": announced,
    "price_page": price_page,
    "receipt_event": receipt_event,
    "review_event": review_event,
    "chat": chat,
}
