"""SQL files: marks in order, names once, parameters known."""

from __future__ import annotations

import pytest

from nostrllm.adapters.sql_file import parse_part, read_part, statements_of
from nostrllm.errors import LocalError

TEXT = """-- what it is for; with a semicolon
-- migration: 1
CREATE TABLE a (x TEXT); -- why; and how
CREATE TABLE b (x TEXT);
-- migration: 2
ALTER TABLE a ADD y TEXT;

-- name: a_insert
INSERT INTO a (x) VALUES (:x)
ON CONFLICT (x) DO UPDATE SET y = :y
RETURNING y;
-- name: a_all
SELECT * FROM a;
-- name: a_clear
DELETE FROM a;
"""


def test_reads_migrations_and_statements() -> None:
    part = parse_part("p", TEXT)
    assert [len(migration) for migration in part.migrations] == [2, 1]
    assert part.migrations[0][0] == "CREATE TABLE a (x TEXT)"
    by_name = statements_of([part])
    assert by_name["a_insert"].parameters == {"x", "y"}
    assert [statement.gives_rows for statement in part.statements] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-- migration: 2\nCREATE TABLE a (x TEXT);", "out of order"),
        ("-- name: a\nSELECT 1;\nSELECT 2;", "not one statement"),
        ("-- name: a\n", "not one statement"),
    ],
)
def test_refuses(text: str, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        parse_part("p", text)


def test_refuses_a_name_twice_and_an_unknown_part() -> None:
    part = parse_part("p", TEXT)
    with pytest.raises(LocalError, match="two SQL statements"):
        statements_of([part, part])
    with pytest.raises(LocalError, match="no SQL statements"):
        read_part("nothing")


def test_the_purse_has_its_file() -> None:
    assert {"proof_insert", "claim_insert"} <= statements_of([read_part("purse")]).keys()
