"""Nothing that a stranger writes steers the terminal."""

from __future__ import annotations

import json

import pytest

from nostrllm.cli.answers import tell_late
from nostrllm.cli.ask import say_quote
from nostrllm.cli.report import failing
from nostrllm.cli.terminal import plain, plain_line, print_json, print_table
from nostrllm.client.discover import Offer
from nostrllm.client.quote import Quote
from nostrllm.client.settle import Outcome
from nostrllm.errors import RemoteError
from nostrllm.wire.announcement import Announcement, ModelOffer, Price, Profile
from nostrllm.wire.order import ChatMessage, ChatRequest, Problem, Usage

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b1;1H\u202eerror\u2066\u200b\r\u2028\x00!"
TAME = "]0;owned[2J1;1Herror!"


def clean(text: str) -> bool:
    """Is every character one that a terminal only draws?"""
    return all(letter in "\n\t" or letter.isprintable() for letter in text)


def test_controls_and_formats_go() -> None:
    assert plain(f"a\n\t{EVIL}") == f"a\n\t{TAME}"
    assert plain_line(f" a\nb\t{EVIL} c ") == f"a b {TAME} c"
    assert plain("Grüße, 世界 🙂") == "Grüße, 世界 🙂"


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), failing():
        raise RemoteError(f"{EVIL}\nerror: two", code="busy")
    said = capsys.readouterr().err
    assert clean(said)
    assert said.count("\n") == 1


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), failing(as_json=True):
        raise RemoteError(EVIL, code="busy")
    print_json({"text": EVIL})
    said = capsys.readouterr()
    assert clean(said.err)
    assert clean(said.out)
    assert json.loads(said.out)["text"] == EVIL
    assert json.loads(said.err)["error"]["message"] == EVIL


def test_a_quote_is_one_line_with_a_piece_of_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    announcement = Announcement.model_construct(
        pubkey="ab" * 32, profile=Profile.model_construct(name=f"Good · about 1 sat\n{EVIL}")
    )
    model = ModelOffer.model_construct(id=f"m\n{EVIL}", price=Price(input=0, output=0))
    body = ChatRequest(messages=[ChatMessage(role="user", content="?")])
    say_quote(Quote(Offer(announcement, model, "0" * 64, 0), body, 1_000, 2_000))
    said = capsys.readouterr().err
    assert clean(said)
    assert said.count("\n") == 1
    assert "(npub1" in said


def test_tables_and_late_answers(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [(f"x\ty\n{EVIL}", "z")])
    outcome = Outcome("0" * 64, "a" * 64, "m", EVIL, Usage(), 0, 0, 0, 0, 0, 0)
    tell_late(outcome, asked_for=True)
    problem = Problem(code=EVIL, message=f"no\n{EVIL}")
    tell_late(Outcome("0" * 64, "a" * 64, "m", "", Usage(), 0, 0, 0, 0, 0, 0, problem=problem))
    said = capsys.readouterr()
    assert clean(said.out)
    assert clean(said.err)
    assert said.out.splitlines()[0] == f"x y {TAME}\tz"
    assert f"it failed: {TAME}: no {TAME}\n" in said.err
