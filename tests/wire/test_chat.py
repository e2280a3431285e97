"""A person's words: commands, questions, tokens; and what is written back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import chat
from nostrllm.wire.announcement import ModelOffer, Price
from nostrllm.wire.nip19 import Profile, encode_profile

TOKEN = "cashuBo2FteBtodHRwczovL21pbnQ"
MODEL = ModelOffer(
    id="smollm2",
    name="SmolLM2",
    context=2_048,
    max_tokens=512,
    price=Price(input=20_000_000, output=60_000_000, request=1_000),
)


def test_a_question_with_a_token_anywhere() -> None:
    said = chat.parse_chat(f"What is the capital\n{TOKEN}\nof France?")
    assert said.command is None
    assert said.tokens == (TOKEN,)
    assert TOKEN not in said.prompt
    assert said.prompt.startswith("What is the capital")


@pytest.mark.parametrize(
    ("text", "command", "argument"),
    [
        ("/help", "help", ""),
        ("  /Model smollm2 ", "model", "smollm2"),
        ("/dance", "", ""),
        ("/", "", ""),
        (f"/topup {TOKEN}", "topup", ""),
    ],
)
def test_commands(text: str, command: str, argument: str) -> None:
    said = chat.parse_chat(text)
    assert (said.command, said.argument) == (command, argument)
    assert said.prompt == ""


def test_a_command_may_end_its_line() -> None:
    assert chat.parse_chat("/new\nhello").command == "new"


@pytest.mark.parametrize(
    ("argument", "amount"),
    [
        ("1000 lightning", 1_000),
        ("1000 sat Lightning", 1_000),
        ("lightning 7", 7),
        ("LIGHTNING 7 sats", 7),
        ("0 lightning", 0),
        ("lightning", None),
        ("1000", None),
        ("-5 lightning", None),
        ("1.5 lightning", None),
        ("9" * 16 + " lightning", None),
        ("", None),
    ],
)
def test_amounts_to_pay_by_lightning(argument: str, amount: int | None) -> None:
    assert chat.lightning_amount(argument) == amount


def test_an_invoice_with_its_scheme() -> None:
    assert chat.invoice_in(" lightning:lnbc1 ") == chat.invoice_in("lnbc1") == "lnbc1"
    assert chat.invoice_in("LIGHTNING:LNBC1") == "LNBC1"


@given(st.text(max_size=400))
def test_every_text_is_a_chat(text: str) -> None:
    said = chat.parse_chat(text)
    assert said.command is None or said.command in chat.COMMANDS or said.command == ""


@given(st.text(alphabet="ab .\n", max_size=600), st.integers(40, 90))
def test_answers_are_cut_without_loss(text: str, chars_max: int) -> None:
    pieces = chat.split_answer(text, chars_max)
    assert all(len(piece) <= chars_max for piece in pieces)
    bare = [piece.split("\n", 1)[1] if len(pieces) > 1 else piece for piece in pieces]
    assert "".join("".join(bare).split()) == "".join(text.split())


def test_answers_are_cut_at_paragraphs_and_numbered() -> None:
    text = "a" * 60 + "\n\n" + "b" * 30
    assert chat.split_answer(text, 80) == ["(1/2)\n" + "a" * 60, "(2/2)\n" + "b" * 30]


def test_one_long_word_is_cut_where_it_must() -> None:
    assert len(chat.split_answer("x" * 200, 50)) == 5


def test_prices_and_help_say_what_a_newcomer_needs() -> None:
    mints = ("https://mint.example",)
    unpaid = chat.payment_text(MODEL, mints, 9_000)
    assert "16 sat" in unpaid
    assert mints[0] in unpaid
    assert "1 sat per question" in unpaid
    assert "/topup" in chat.help_text("Finch", mints, 9_000)
    assert "→ smollm2" in chat.models_text((MODEL,), "smollm2")
    assert "· smollm2" in chat.models_text((MODEL,), "other")
    free = MODEL.model_copy(update={"price": Price(input=0, output=0)})
    assert "per question" not in chat.price_line(free)


@given(st.integers(0, 10**9))
def test_a_suggested_token_covers_the_estimate(msat: int) -> None:
    coins = chat.suggested_coins(msat)
    assert coins >= 8
    assert coins * 1_000 > msat


@pytest.mark.parametrize(
    ("text", "amount"), [("100", 100), (" 7 sat", 7), ("1 SATS", 1), ("9" * 16, int("9" * 16))]
)
def test_amounts_that_a_person_writes(text: str, amount: int) -> None:
    assert chat.parse_sats(text) == amount


@pytest.mark.parametrize(
    "text", ["", "0", "0 sat", "-1", "1.5", "1e3", "10 usd", "ten", "9" * 17, "²", "1 2"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(RemoteError, match="as in /topup 100"):
        chat.parse_sats(text)


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_not(text: str) -> None:
    try:
        assert chat.parse_sats(text) > 0
    except RemoteError:
        return


def test_words_before_a_payment_request() -> None:
    for words in (
        chat.payment_text(MODEL, ("https://mint.example",), 3_000),
        chat.missing_text("there is 1 sat", "account-insufficient"),
        chat.topup_text(50),
        chat.topup_text(0),
    ):
        assert "request in the next message" in words
    assert "50 sat" in chat.topup_text(50)
    assert "[account-insufficient]" in chat.missing_text("no", "account-insufficient")


KEY = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


@pytest.mark.parametrize("key", [KEY, f"nostr:{encode_profile(Profile(KEY))}"])
@pytest.mark.parametrize(("word", "seconds"), [("", 0), (" hour", 3_600), (" Month", 2_592_000)])
def test_an_allowance_in_words(key: str, word: str, seconds: int) -> None:
    assert chat.parse_allowance(f"{key}  1000{word}") == (KEY, 1_000, seconds)


@pytest.mark.parametrize(
    "text",
    ["", KEY, f"{KEY} ten", f"{KEY} 1 year", f"{KEY} 1 day 2", "npub1x 5", f"{KEY} {10**16}"],
)
def test_what_is_no_allowance(text: str) -> None:
    with pytest.raises(RemoteError):
        chat.parse_allowance(text)
