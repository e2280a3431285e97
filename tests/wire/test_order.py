"""Orders, results and the signed events inside them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import order as wire
from nostrllm.wire.event import Event

KEY = "ab" * 32
REPLY: dict[str, Any] = {"key": KEY, "relays": ["wss://relay.example"]}
ORDER: dict[str, Any] = {
    "v": 1,
    "type": "order",
    "reply": REPLY,
    "model": "smollm2",
    "body": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    "price": KEY,
    "ceiling_msat": 63_000,
    "payment": {"kind": "token", "token": "cashuBxyz"},
    "deadline": 1_800_000_000,
    "c": KEY,
}


def changed(**fields: Any) -> str:
    return json.dumps({**ORDER, **fields})


def test_an_order_reads_and_writes_the_same() -> None:
    order = wire.parse_from_client(json.dumps(ORDER))
    assert isinstance(order, wire.Order)
    assert order.change == "ecash"
    assert order.chunk_ms is None
    assert order.body.as_body() == ORDER["body"]
    assert wire.parse_from_client(order.as_json()) == order


def test_an_order_may_be_carried_on() -> None:
    order = wire.parse_from_client(changed(**{"continue": True}))
    assert isinstance(order, wire.Order)
    assert order.carry_on is True
    assert json.loads(order.as_json())["continue"] is True
    plain = wire.parse_from_client(json.dumps(ORDER))
    assert "continue" not in json.loads(plain.as_json())
    with pytest.raises(RemoteError):
        wire.parse_from_client(changed(**{"continue": "yes"}))


def test_an_account_pays_without_a_token() -> None:
    order = wire.parse_from_client(changed(payment={"kind": "account"}))
    assert isinstance(order, wire.Order)
    assert isinstance(order.payment, wire.AccountPayment)


def test_change_by_lightning_has_an_invoice() -> None:
    order = wire.parse_from_client(changed(change="lightning", invoice="lnbc1"))
    assert isinstance(order, wire.Order)
    assert (order.change, order.invoice) == ("lightning", "lnbc1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token": "cashuBx"}, wire.TopUp),
        ({"lightning_msat": 21_000}, wire.TopUp),
        ({}, None),
        ({"token": "cashuBx", "lightning_msat": 21_000}, None),
        ({"lightning_msat": 21_500}, None),
        ({"lightning_msat": 0}, None),
    ],
)
def test_a_topup_has_one_source(fields: dict[str, Any], message: type[wire.TopUp] | None) -> None:
    text = json.dumps({"v": 1, "type": "topup", "reply": REPLY, **fields})
    if message is not None:
        assert isinstance(wire.parse_from_client(text), message)
    else:
        with pytest.raises(RemoteError):
            wire.parse_from_client(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"change": "lightning"},
        {"invoice": "lnbc1"},
        {"change": "lightning", "invoice": "lnbc1", "payment": {"kind": "account"}},
        {"change": "lightning", "invoice": "x" * 5_000},
        {"ceiling_msat": -1},
        {"ceiling_msat": 1.5},
        {"ceiling_msat": True},
        {"c": "AB" * 32},
        {"price": "x"},
        {"reply": {"key": KEY, "relays": []}},
        {"reply": {"key": KEY, "relays": ["http://relay.example"]}},
        {"reply": {"key": KEY, "relays": ["wss://a"] * 4}},
        {"model": "two words"},
        {"body": {"messages": []}},
        {"body": {"messages": [{"role": "user", "content": "x"}], "logit_bias": {}}},
        {"body": {"messages": [{"role": "robot", "content": "x"}]}},
        {"body": {"messages": [{"role": "user", "content": "x"}], "temperature": 3}},
        {"payment": {"kind": "gold"}},
        {"payment": {"kind": "token", "token": "x" * (wire.TOKEN_CHARS_MAX + 1)}},
        {"chunk_ms": 10},
    ],
)
def test_a_wrong_order_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteError) as caught:
        wire.parse_from_client(changed(**fields))
    assert caught.value.code == "message-invalid"


def test_another_version_is_told() -> None:
    with pytest.raises(RemoteError) as caught:
        wire.parse_from_client(changed(v=2))
    assert caught.value.code == "version-unsupported"


def test_where_a_refused_message_wants_its_answer() -> None:
    reply = wire.parse_reply(changed(v=2))
    assert reply is not None
    assert reply.key == KEY
    assert wire.parse_reply("{}") is None


def test_text_sizes_count_bytes_of_every_form() -> None:
    body = wire.ChatRequest(
        messages=[
            wire.ChatMessage(role="user", content="é"),
            wire.ChatMessage(role="assistant"),
            wire.ChatMessage(role="user", content=[{"type": "text", "text": "hello"}]),
        ]
    )
    assert body.size_bytes > 2 + len("hello")


@pytest.mark.parametrize(
    "message",
    [
        wire.Query(reply=wire.ReplyTo(**REPLY), what="order", order=KEY),
        wire.TopUp(reply=wire.ReplyTo(**REPLY), token="cashuB"),
        wire.Refund(reply=wire.ReplyTo(**REPLY)),
        wire.Cancel(reply=wire.ReplyTo(**REPLY), order=KEY),
        wire.Ack(reply=wire.ReplyTo(**REPLY), order=KEY),
    ],
)
def test_every_client_message_survives_the_wire(message: Any) -> None:
    assert wire.parse_from_client(message.as_json()) == message


@pytest.mark.parametrize(
    "message",
    [
        wire.Accepted(order=KEY, event={"id": "x"}, session=KEY),
        wire.Refused(order=KEY, problem=wire.Problem(code="busy", message="full")),
        wire.Result(order=KEY, sha256=KEY, model="m", cost_msat=1),
        wire.Answer(to=KEY, balance_msat=5),
    ],
)
def test_every_provider_message_survives_the_wire(message: Any) -> None:
    assert wire.parse_from_provider(message.as_json()) == message


def test_a_code_we_do_not_know_is_final() -> None:
    assert wire.Problem(code="busy", message="").retryable
    assert not wire.Problem(code="never-heard-of", message="").retryable


def test_embedded_events_must_be_of_the_kind_and_author() -> None:
    event = Event(KEY, KEY, 1, 25427, (), "{}", "ab" * 64)
    assert wire.embedded_event(event.as_dict(), 25427, KEY) == event
    for kind, author in ((1, KEY), (25427, "cd" * 32)):
        with pytest.raises(RemoteError):
            wire.embedded_event(event.as_dict(), kind, author)
    with pytest.raises(RemoteError):
        wire.embedded_event(None, 25427, KEY)


def test_signed_contents() -> None:
    terms = wire.AcceptedTerms(
        order=KEY,
        client=KEY,
        price=KEY,
        model="m",
        ceiling_msat=1,
        payment=KEY,
        session=KEY,
    )
    statement = wire.Statement(account=KEY, seq=3, balance_msat=700)
    chunk = wire.Chunk(seq=0, text="Hello")

    def as_event(content: str) -> Event:
        return Event(KEY, KEY, 1, 1, (), content, "ab" * 64)

    assert wire.parse_terms(as_event(terms.as_json())) == terms
    assert wire.parse_statement(as_event(statement.as_json())) == statement
    assert wire.parse_chunk(chunk.as_json()) == chunk


PARSERS = [
    wire.parse_from_client,
    wire.parse_from_provider,
    wire.parse_chunk,
    wire.parse_reply,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("parser", PARSERS)
@given(text=st.text())
def test_total_on_text(parser: Any, text: str) -> None:
    try:
        parser(text)
    except RemoteError:
        return


@given(field=st.sampled_from(sorted(ORDER)), value=json_values)
def test_total_on_almost_orders(field: str, value: Any) -> None:
    try:
        wire.parse_from_client(changed(**{field: value}))
    except RemoteError:
        return


OUTPUT: dict[str, Any] = {"amount": 4, "id": "01" + "ab" * 32, "B_": "02" + "ab" * 32}


def test_a_locked_token_comes_with_outputs() -> None:
    payment = {"kind": "locked", "token": "cashuBxyz", "outputs": [OUTPUT]}
    order = wire.parse_from_client(changed(payment=payment))
    assert isinstance(order, wire.Order)
    assert order.payment == wire.LockedPayment(token="cashuBxyz", outputs=[wire.Output(**OUTPUT)])
    assert wire.parse_from_client(order.as_json()) == order


@pytest.mark.parametrize(
    "wrong", [{"amount": 0}, {"id": "01ab"}, {"B_": "04" + "ab" * 32}, {"B_": "02" + "AB" * 32}]
)
def test_outputs_have_the_form_of_outputs(wrong: dict[str, Any]) -> None:
    payment = {"kind": "locked", "token": "cashuBxyz", "outputs": [{**OUTPUT, **wrong}]}
    with pytest.raises(RemoteError):
        wire.parse_from_client(changed(payment=payment))


def test_a_settled_change_reads_and_writes_the_same() -> None:
    signature = {**OUTPUT, "C_": "03" + "cd" * 32, "e": "12" * 32, "s": "34" * 32}
    signed = {"mint": "https://mint.example", "unit": "sat", "amount": 4}
    text = {
        "v": 1,
        "type": "settled",
        "order": KEY,
        "signed": {**signed, "signatures": [signature]},
    }
    settled = wire.parse_from_provider(json.dumps(text))
    assert isinstance(settled, wire.Settled)
    assert wire.parse_from_provider(settled.as_json()) == settled
