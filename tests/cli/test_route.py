"""`route` and `validate` as programs speak with them: a line in, a line out, at once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

NOSTRLLM = (sys.executable, "-m", "nostrllm")
SUM = "Tom has 3 apples and buys 4. How many has he?"


def said(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*NOSTRLLM, *words], input=stdin, capture_output=True, check=False)


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_every_line_is_answered_before_the_next_is_read() -> None:
    with subprocess.Popen(
        [*NOSTRLLM, "route", "--jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for name in ("a", 2):
            child.stdin.write(lines({"id": name, "prompt": SUM}))
            child.stdin.flush()
            found = json.loads(child.stdout.readline())
            assert found["id"] == name
            assert 0 <= found["score"] <= 1
            assert found["us"] > 0
        child.stdin.close()
        assert child.wait() == 0


def test_one_prompt_for_a_person_and_for_a_program() -> None:
    score, kind = said("route", SUM).stdout.decode().split()
    assert kind == "arithmetic"
    found = json.loads(said("route", "--json", stdin=SUM.encode() + b"\xff").stdout)
    assert found["kind"] == "arithmetic"
    assert found["score"] == pytest.approx(float(score), abs=0.1)


def test_a_wrong_answer_scores_higher() -> None:
    done = said(
        "validate",
        "--jsonl",
        "--why",
        stdin=lines(
            {"id": 1, "prompt": SUM, "answer": "3+4=7\n#### 7"},
            {"id": 2, "prompt": SUM, "answer": "3+4=8\n#### 8"},
            {"id": 3, "prompt": "Hi", "answer": "[]", "schema": {"type": "object"}},
            {"id": 4, "prompt": "Hi", "answer": "Hello.", "schema": "none"},
        ),
    )
    right, wrong, misfit, plain = map(json.loads, done.stdout.splitlines())
    assert right["score"] < wrong["score"]
    assert "sum-wrong" in wrong["findings"]
    assert "schema" in misfit["findings"]
    assert plain["findings"] == {}
    bare = said("validate", "--jsonl", stdin=lines({"id": 1, "prompt": "Hi", "answer": ""}))
    assert set(json.loads(bare.stdout)) == {"id", "score"}


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"id": 1}', b'{"prompt": "x"}', b'{"id": 1, "prompt": 7}', b"\xff\x00"]
)
def test_what_is_no_such_line_is_named(line: bytes) -> None:
    done = said("route", "--jsonl", stdin=lines({"id": 0, "prompt": "x"}) + b"\n" + line + b"\n")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith(b"error: message-invalid: line 3 ")


def test_validate_has_one_form() -> None:
    assert said("validate").returncode == 2
