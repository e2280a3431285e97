"""No secret comes out of a log line, wherever it was put."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.errors import ConfigError, EngineError
from nostrllm.service.logs import REMOVED, is_secret_name, redact, redact_text, setup

BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
PLAIN = "bdfghjkmn02468"
NAMES = ["prompt", "text", "content", "token", "secret", "messages", "api_key", "Authorization"]

bodies = st.text(PLAIN, min_size=12, max_size=40)
bech32 = st.text(BECH32, min_size=20, max_size=60)
base64 = st.text(BASE64, min_size=20, max_size=200)


@st.composite
def secrets(draw: st.DrawFn) -> tuple[str, str]:
    """A secret in the form it travels in, and the part of it that must not be seen."""
    prefix, alphabet = draw(
        st.sampled_from(
            [
                ("nsec1", bech32),
                ("NSEC1", bech32.map(str.upper)),
                ("ncryptsec1", bech32),
                ("cashuA", base64),
                ("cashuB", base64),
                ("creqA", base64),
                ("creqB", base64),
                ("CREQB1", bech32.map(str.upper)),
                ("Bearer ", base64),
            ]
        )
    )
    body = draw(alphabet)
    return prefix + body, body


@st.composite
def url_secrets(draw: st.DrawFn) -> tuple[str, str]:
    """A URL with something private in it, and that something."""
    body = draw(bodies)
    form = draw(
        st.sampled_from(
            [
                "https://user:{}@host.example/path",
                "socks5://{}@host.example:9050",
                "wss://relay.example/path?auth={}",
                "https://host.example/#{}",
                "https://a:b@c{}@host.example/?x=1",
            ]
        )
    )
    return form.format(body), body


@st.composite
def nested(draw: st.DrawFn, leaf: Any) -> Any:
    """`leaf` somewhere inside lists, tuples, dicts and keys."""
    value = leaf
    for _ in range(draw(st.integers(0, 4))):
        wrap = draw(st.sampled_from(["list", "tuple", "dict", "deep", "set"]))
        match wrap:
            case "list":
                value = ["x", value, 1]
            case "tuple":
                value = (value,)
            case "dict":
                value = {"a": value, "count": 5}
            case "set" if isinstance(value, str):
                value = {value, value + " "}
            case _:
                value = {"outer": {"inner": [value]}}
    return value


def told(**fields: Any) -> str:
    """The line that an event with these fields becomes."""
    return json.dumps(redact(None, "info", {"event": "something_happened", **fields}))


around = st.text("abc :/=\"'(", max_size=12)


@given(st.data(), secrets() | url_secrets(), around, around)
def test_secrets_in_values_never_come_out(
    data: st.DataObject, secret: tuple[str, str], before: str, after: str
) -> None:
    """By their looks, at any depth, with any text around."""
    whole, hidden = secret
    value = data.draw(nested(f"{before} {whole} {after}"))
    assert hidden not in told(relay=value)


@given(st.data(), bodies, st.sampled_from(NAMES))
def test_named_secrets_never_come_out(data: st.DataObject, body: str, name: str) -> None:
    """By their names, whatever they look like, at any depth."""
    line = told(**{name: data.draw(nested(body))}, order=data.draw(nested({name: body})))
    assert body not in line


@given(secrets() | url_secrets())
def test_secrets_in_keys_and_event_names_never_come_out(secret: tuple[str, str]) -> None:
    """A dict's keys and the event's own name are looked at, too."""
    whole, hidden = secret
    assert hidden not in told(counts={whole: 1})
    assert hidden not in json.dumps(redact(None, "info", {"event": f"got {whole}"}))


@given(secrets() | url_secrets() | st.tuples(bodies, bodies).map(lambda pair: (pair[0], pair[0])))
def test_secrets_in_exceptions_never_come_out(secret: tuple[str, str]) -> None:
    """Not in a text, not in a note, not in a cause, a group, or a source line."""
    whole, hidden = secret
    try:
        try:
            raise KeyError(whole)
        except KeyError as error:
            error.add_note(whole)
            group = ExceptionGroup(whole, [ValueError(whole), OSError(5, whole, whole)])
            raise group from error
    except ExceptionGroup as error:
        lines = [told(exc_info=error), told(exc_info=True), told(exc_info=(None, error, None))]
        line = told(exc_info=error, problem=error)
    assert len(set(lines)) == 1
    assert hidden not in line
    assert "KeyError" in line
    assert "test_logs.py" in line


@given(secrets() | url_secrets())
def test_secrets_in_our_own_errors_never_come_out(secret: tuple[str, str]) -> None:
    """Our messages are told, but cleaned all the same."""
    whole, hidden = secret
    line = told(exc_info=EngineError(f"it said {whole}", code="busy"))
    assert hidden not in line
    assert "it said" in line
    assert '"busy"' in line


@given(secrets() | url_secrets(), st.integers(0, 9_000))
def test_cutting_a_long_text_uncovers_nothing(secret: tuple[str, str], padding: int) -> None:
    """A text is cut at a limit; the cut must not hide the sign that gives a secret away."""
    whole, hidden = secret
    clean = redact_text("x" * padding + " " + whole + " y" * 5_000)
    assert hidden not in clean
    assert hidden[:10] not in clean


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_any_value_becomes_a_line(value: Any) -> None:
    """Logging never fails, whatever is logged."""
    stream = io.StringIO()
    setup("info", stream=stream)
    structlog.get_logger().info("said", thing=value, lone="\ud800")
    json.loads(stream.getvalue())


def test_what_is_no_secret_stays() -> None:
    """Ids, keys that are public, counts and addresses are what a log is for."""
    fields = {
        "pubkey": "ab" * 32,
        "order_id": "cd" * 32,
        "prompt_tokens": 12,
        "tokens": 3,
        "prompt": 9,
        "relay": "wss://relay.example/path",
        "price_msat": 1000,
        "done": True,
    }
    line = redact(None, "info", {"event": "order_closed", **fields})
    assert dict(line) == {"event": "order_closed", **fields}


@pytest.mark.parametrize("value", [object(), b"bytes", 1 << 255, {"a": {1, 2}}.keys()])
def test_unknown_objects_are_told_by_type_only(value: Any) -> None:
    """Their repr may hold anything, and a large integer may be a key."""
    line = redact(None, "info", {"event": "x", "thing": value})
    assert line["thing"] == f"<{type(value).__name__}>"


@pytest.mark.parametrize("name", ["prompt", "systemPrompt", "API_KEY", "nsec", "wallet-seed"])
def test_secret_names(name: str) -> None:
    """Names are compared word by word, in any spelling."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["pubkey", "public_key", "context", "keyset", "tokens"])
def test_names_that_only_look_secret(name: str) -> None:
    """A word inside a word is not the word."""
    assert not is_secret_name(name)


def test_recursion_ends() -> None:
    """A value that holds itself is cut off."""
    loop: list[Any] = []
    loop.append(loop)
    assert REMOVED in told(thing=loop)


@pytest.fixture
def stream() -> io.StringIO:
    """Where a test lets its lines go."""
    return io.StringIO()


@pytest.fixture(autouse=True, scope="module")
def _put_back() -> Iterator[None]:
    """The process's logging as it was."""
    root = logging.getLogger()
    before = (root.handlers, root.level, sys.excepthook)
    yield
    root.handlers, level, sys.excepthook = before
    root.setLevel(level)
    structlog.reset_defaults()


def test_lines_are_json_with_context(stream: io.StringIO) -> None:
    """Time, level, event, what is bound to the context, and the fields."""
    setup("info", stream=stream)
    log = structlog.get_logger()
    with structlog.contextvars.bound_contextvars(order="ab12"):
        log.debug("not_told")
        log.info("order_closed", cost_msat=5)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "order_closed", "level": "info", "order": "ab12", "cost_msat": 5}


def test_level_can_be_changed_for_a_logger_in_use(stream: io.StringIO) -> None:
    """A reload raises the level without new loggers."""
    log = structlog.get_logger()
    setup("error", stream=stream)
    log.info("first")
    setup("debug", stream=stream)
    log.debug("second")
    assert json.loads(stream.getvalue())["event"] == "second"


def test_console_lines_are_redacted_as_well(stream: io.StringIO) -> None:
    """The form for a person passes the same filter."""
    setup("info", console=True, stream=stream)
    structlog.get_logger().info("got", token="cashuBabcdefgh", relay="wss://r.example")
    assert "cashuB" not in stream.getvalue()
    assert "wss://r.example" in stream.getvalue()


def test_library_lines_tell_where_but_not_what(stream: io.StringIO) -> None:
    """A library may put anything into its text."""
    setup("info", stream=stream)
    try:
        raise ValueError("what is my prompt")
    except ValueError:
        logging.getLogger("some.library").exception("what is my %s", "prompt")
    logging.getLogger("some.library").info("below the level")
    line = json.loads(stream.getvalue())
    assert line["logger"] == "some.library"
    assert line["level"] == "error"
    assert line["error"]["type"] == "ValueError"
    assert "what is my" not in stream.getvalue()


def test_unknown_level() -> None:
    """A wrong level in a configuration is told as such."""
    with pytest.raises(ConfigError):
        setup("loud")


def test_crash_tells_no_secret() -> None:
    """The last words of a process that dies of an exception, and stderr, hold none either."""
    code = (
        "from nostrllm.service.logs import setup; setup();"
        "secret = 'what is my prompt'; raise ValueError(secret + ' indeed')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "ValueError"
    assert "what is my prompt" not in done.stdout + done.stderr
