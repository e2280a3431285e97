"""The documents say what the code says: codes, fields, log events, commands, links."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from nostrllm.cli import main
from nostrllm.core.coins import ladder
from nostrllm.errors import CODES
from nostrllm.service.backend_tables import AnthropicBackend, LlamaBackend, OpenAIBackend
from nostrllm.service.config import (
    BlockTable,
    LockedTable,
    PlanTable,
    ProviderTable,
    SweepTable,
    TermsTable,
)
from nostrllm.service.model_tables import ModelTable, RouteTable
from nostrllm.service.pricing_tables import PricingTable
from nostrllm.service.rate_tables import MintTable, RateSourceTable, RatesTable
from nostrllm.wire import announcement, kinds, order, receipt, tick
from nostrllm.wire.chat import COMMANDS
from nostrllm.wire.message import Wire

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"there is no section {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, heads and rules left out."""
    lines = text.splitlines()
    for above, line in itertools.pairwise(lines):
        if line.startswith("|") and above.startswith("|") and not line.startswith("|-"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def quoted(cell: str) -> list[str]:
    """What a cell has in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


# codes, events, numbers


def test_error_codes() -> None:
    told = {quoted(row[0])[0]: row[1] for row in rows(section(PROTOCOL, "Error codes"))}
    assert told == {code: "yes" if again else "no" for code, again in CODES.items()}


def logged() -> dict[str, set[str]]:
    """Every event that the daemon logs, and its levels, as the source names them."""
    found: dict[str, set[str]] = {}
    folders = ("provider", "purse", "service", "client", "adapters")
    for path in (path for name in folders for path in (ROOT / "nostrllm" / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                ):
                    found.setdefault(event, set()).add("error" if level == "exception" else level)
    return found


def test_log_events() -> None:
    told = {quoted(row[0])[0]: row[1] for row in rows(section(OPERATING, "Logs"))}
    events = logged()
    assert told.keys() - {"library_line", "crashed"} == events.keys()  # those the log itself makes
    for event, levels in events.items():
        assert set(told[event].split(" or ")) == levels, event


def test_a_persons_commands() -> None:
    for page, heading in (
        (PROTOCOL, "A person (rumor kind 14, or kind 4)"),
        ((ROOT / "docs" / "using.md").read_text(encoding="utf-8"), "From any Nostr client"),
    ):
        named = {
            name.split()[0].removeprefix("/")
            for row in rows(section(page, heading))
            for name in quoted(row[0])
            if name.startswith("/")
        }
        assert named == set(COMMANDS)


def test_ladders() -> None:
    shown = {row[0]: row[1] for row in rows(section(PROTOCOL, "Payment A: plain token"))}
    assert shown
    for amount, rungs in shown.items():
        assert ladder(int(amount)) == [int(rung) for rung in rungs.split()]


def test_every_kind_of_ours_is_explained() -> None:
    ours = [getattr(kinds, name) for name in dir(kinds) if name.isupper()]
    for kind in (kind for kind in ours if 24_000 <= kind < 26_000 or kind >= 38_000):
        assert str(kind) in PROTOCOL


def messages() -> Iterator[type[Wire]]:
    """Every class of what travels as JSON."""
    for module in (announcement, order, receipt, tick):
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Wire):
                yield thing


MESSAGES: list[type[Wire]] = sorted(set(messages()), key=lambda one: one.__name__)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_that_travels_is_explained(message: type[Wire]) -> None:
    """An announcement's fields are tags, whose names have dashes or no plural."""
    tags = {
        *("mints", "relays", "price_seq", "price_root", "payment_key", "closing"),
        *("pubkey", "created_at", "profile"),
    }
    prose = re.sub(r"```.*?```", "", PROTOCOL, flags=re.DOTALL)
    named = {part for words in quoted(prose) for part in re.split(r"[^a-z0-9_]+", words.lower())}
    fields = message.model_fields.items()
    missing = {(field.serialization_alias or name).lower() for name, field in fields} - named
    assert missing <= (tags if message is announcement.Announcement else set())


def test_every_field_of_the_providers_file() -> None:
    table_of: dict[str, type[BaseModel]] = {
        "provider": ProviderTable,
        "terms": TermsTable,
        "mint": MintTable,
        "pricing": PricingTable,
        "rates": RatesTable,
        "rates.source": RateSourceTable,
        "locked": LockedTable,
        "block": BlockTable,
        "plan": PlanTable,
        "sweep": SweepTable,
        "model": ModelTable,
        "model.route": RouteTable,
    }
    told: dict[str, set[str]] = {}
    for block in re.split(r"\n\n+", section(OPERATING, "The file")):
        head = re.match(r"\| `\[+([\w.]+)\]+`", block)
        if head:
            told[head[1]] = {name for row in rows(block) for name in quoted(row[0])}
    wanted = {name: set(table.model_fields) for name, table in table_of.items()}
    kinds = (OpenAIBackend, AnthropicBackend, LlamaBackend)
    wanted["backend"] = {name for kind in kinds for name in kind.model_fields}
    assert told == wanted


# commands


def shown_commands() -> Iterator[tuple[Path, str]]:
    """Every `nostrllm …` in a shell block or in backquotes."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|[|$;&] *|uv run .*)\bnostrllm( .*)$", line)
            if found:
                yield page, found[1].strip()
        bare = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for words in re.findall(r"`nostrllm ([^`]+)`", bare):
            yield page, words


@pytest.mark.parametrize(
    ("page", "words"),
    [pytest.param(*shown, id=f"{shown[0].name}: {shown[1][:40]}") for shown in shown_commands()],
)
def test_commands_exist_with_their_options(page: Path, words: str) -> None:
    command: click.Command = main
    given = shlex.split(re.split(r"[|;&>]", words)[0], comments=True)
    with click.Context(main, info_name="nostrllm") as context:
        while given and isinstance(command, click.Group) and not given[0].startswith("-"):
            inner = command.get_command(context, given[0])
            assert inner is not None, f"{page.name}: {given[0]!r} is no command"
            command, given = inner, given[1:]
        known = {
            option
            for parameter in command.get_params(context)
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
    for word in given:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{page.name}: {command.name} has no {word}"


def test_the_walk_finds_commands() -> None:
    assert len(list(shown_commands())) > 30


# links and words


def anchor(heading: str) -> str:
    """How a heading is linked to."""
    bare = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return bare.strip().replace(" ", "-")


@each_page
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if fragment:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, heads), f"{page.name} links to {target}"


#: The brackets keep these patterns from finding themselves.
FORBIDDEN = (
    r"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|npmjs[.]org",
    r"(^|[^A-Za-z0-9_.~-])/(work|root|tmp)/",
    r"\b(TOD[O]|FIXM[E]|XX[X]|lorem ipsu[m])\b",
    r"\b(simpl[y]|seamles[s]\w*|blazin[g]\w*|cutting[-]edge|state[-]of-the-art|leverag[e]\w*)\b",
    r"nsec1[a-z0-9]{58}|ncryptsec1[a-z0-9]{20}",
)


@each_page
@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_forbidden_words(page: Path, pattern: str) -> None:
    found = re.search(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE)
    assert not found, f"{page.name}: {found and found[0]!r}"


@each_page
def test_json_examples_are_json(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
        json.loads(block)


@each_page
def test_python_examples_are_python(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        ast.parse(block)


def test_the_worked_example_is_that_of_the_vectors() -> None:
    vectors = json.loads(
        (ROOT / "tests" / "data" / "protocol-vectors.json").read_text(encoding="utf-8")
    )
    example = section(PROTOCOL, "An order, worked through")
    placed = re.sub(r"cashuB[\w-]+", "cashuB…", vectors["order"]["json"])
    shown = (
        vectors["price_list"]["hashed"][0],
        vectors["price_list"]["pages"][0]["id"],
        vectors["order"]["rumor"]["id"],
        placed,
        vectors["chunks"][0]["json"],
        vectors["receipt"]["event"]["content"],
    )
    for piece in shown:
        assert piece in example


def test_decisions_are_listed_and_numbered() -> None:
    folder = ROOT / "docs" / "decisions"
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in files] == list(range(1, len(files) + 1))
    index = (folder / "README.md").read_text(encoding="utf-8")
    for name in files:
        text = (folder / name).read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        assert title.startswith(name[:4])
        assert f"[{name[:4]}]({name}) | {title[5:]} |" in index
        for part in ("Status: ", "## What drove it", "## Options", "## Outcome"):
            assert part in text
