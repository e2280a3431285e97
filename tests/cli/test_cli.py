"""Every client command, as a person and as a program calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import click
import pytest

from nostrllm.cli import COMMANDS, main
from tests.cli.conftest import TIMEOUT_S, Shell

HEAVY = {
    "aiohttp", "pydantic", "nostr_sdk", "structlog", "aiosqlite", "coincurve", "asyncio",
    "websockets", "cryptography", "rich", "orjson", "cbor2", "cashu",
}  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    words = [*command.split(), "--help"]
    code = (
        "import sys; from nostrllm.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print('loaded:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, loaded = done.stdout.partition("loaded:")
    assert "Usage:" in text
    assert not HEAVY & set(loaded.split())


def test_the_list_of_commands_says_what_each_is_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nostrllm", "--help"], capture_output=True, text=True, check=True
    )
    for name, entry in COMMANDS.items():
        assert name in done.stdout
        assert entry.summary.split()[0] in done.stdout


def test_a_wrong_command_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nostrllm", "sing"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "sing" in done.stderr


@pytest.mark.parametrize("command", ["ask", "models", "providers", "price", "reviews", "follow"])
def test_every_command_takes_the_same_options(command: str) -> None:
    options = {
        name
        for parameter in main.get_command(click.Context(main), command).params  # type: ignore[union-attr]
        for name in parameter.opts
    }
    assert {"--state", "--relay", "--mint", "--devnet", "--json"} <= options


def test_init_writes_a_file_that_reads(tmp_path: Path) -> None:
    odd = 'x"y\\n\x7f'
    words = ["provider", "init", "--dir", str(tmp_path), "--model", odd, "--name", f"{odd} é"]
    subprocess.run(
        [sys.executable, "-m", "nostrllm", *words, "--engine-url", "http://[::1]:1/v1"], check=True
    )
    found = tomllib.loads((tmp_path / "provider.toml").read_text(encoding="utf-8"))
    assert found["model"][0]["id"] == odd
    assert found["provider"]["name"] == f"{odd} é"
    assert found["backend"][0]["url"] == "http://[::1]:1/v1"


def test_models_providers_and_price(shell: Shell) -> None:
    plain = shell.ok("models").out.splitlines()
    assert [line.split("\t")[1] for line in plain] == ["Alba", "Bruno"]
    models = shell.ok("models", "--json").json["models"]
    assert {model["provider_name"] for model in models} == {"Alba", "Bruno"}
    assert shell.ok("models", "--provider", "Bruno").out.count("\n") == 1
    providers = shell.ok("providers", "--json").json["providers"]
    assert [one["name"] for one in providers] == ["Alba", "Bruno"]
    assert providers[0]["npub"] in shell.ok("providers").out
    model = models[0]["id"]
    offers = shell.ok("price", model, "--json").json["offers"]
    assert offers[0]["price"]["output"] < offers[1]["price"]["output"]
    assert shell.ok("price", model).out.count("\n") == 2
    unknown = shell("price", "gpt-17")
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err == "error: model-unknown: nobody offers that model now\n"


@pytest.mark.parametrize("words", ["models", "providers", "ask Hello?", "account balance Alba"])
def test_relays_that_are_not_there_are_named(shell: Shell, words: str) -> None:
    done = shell(*words.split(), "--relay", "ws://127.0.0.1:1")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: relay-unreachable: ")
    assert "ws://127.0.0.1:1: " in done.err


def test_ask_shows_the_price_the_answer_and_the_cost(shell: Shell) -> None:
    done = shell.ok("ask", "Say hello.", "--max-tokens", "32")
    assert done.out.strip()
    before, after, receipt = done.err.splitlines()
    assert before.startswith("Alba (npub1")
    assert "at most" in before
    assert after.startswith("cost ")
    assert receipt.startswith("receipt ")


def test_ask_for_a_program(shell: Shell) -> None:
    done = shell.ok("ask", "-", "--json", "--no-stream", "--max-tokens", "16", stdin="Hello?")
    assert done.err == ""
    said = done.json
    assert said["text"]
    assert said["breaches"] == []
    assert said["cost_msat"] + said["fee_msat"] <= said["ceiling_msat"]
    refused = shell("ask", "?", "--json", "--max-sat", "0.5")
    assert (refused.code, refused.out) == (1, "")
    assert json.loads(refused.err)["error"]["code"] == "payment-amount-low"
    untrue = shell("wallet", "balance", "--mint", "foo", "--json")
    assert json.loads(untrue.err)["error"]["code"] == "config-invalid"


def test_a_late_answer_is_told_once(shell: Shell) -> None:
    """Ctrl-C while the answer is written: the provider settles, another command tells it."""
    for as_json in (True, False):
        with subprocess.Popen(
            shell.command("ask", "Count to a hundred.", "--max-tokens", "200"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(1)
            asking.kill()
        told = shell.until_told("wallet", "resume", *(["--json"] if as_json else []))
        if as_json:
            (late,) = told.json["late"]
            assert late["text"]
            assert late["breaches"] == []
        else:
            assert "late answer to order " in told.err
        assert shell.ok("wallet", "balance", "--json").json["late"] == []


def test_the_wallet_pays_and_takes(shell: Shell) -> None:
    before = shell.ok("wallet", "balance", "--json").json["balances"][0]["amount"]
    token = shell.ok("wallet", "send", "21").out.strip()
    assert token.startswith("cashuB")
    assert "received 20 sat" in shell.ok("wallet", "receive", stdin=token).out
    again = shell("wallet", "receive", token)
    assert again.code == 1
    unknown = shell("wallet", "reclaim", "wallet:nothing")
    assert unknown.err.startswith("error: not-found: ")
    assert shell.ok("wallet", "scan", "--json").json["amount"] == 0  # the database knows all
    assert "payment-token-spent" in again.err
    made = shell.ok("wallet", "send", "8", "--json").json
    assert (made["amount"], made["unit"]) == (8, "sat")
    assert shell.ok("wallet", "reclaim", made["id"], "--json").json["amount"] == 7
    after = shell.ok("wallet", "balance", "--json").json["balances"][0]["amount"]
    assert before - 6 <= after < before
    history = shell.ok("wallet", "history", "--limit", "3").out.splitlines()
    assert len(history) == 3
    kinds = [row["kind"] for row in shell.ok("wallet", "history", "--json").json["operations"]]
    assert {"mint", "send", "receive", "reclaim"} <= set(kinds)
    assert shell.ok("wallet", "resume", "--json").json == {"unpaid": [], "late": []}
    junk = shell("wallet", "receive", "junk", "--json")
    assert json.loads(junk.err)["error"]["code"] == "payment-token-invalid"


def test_what_is_locked_comes_back(shell: Shell) -> None:
    for pay in ("locked", "token"):
        said = shell.ok("ask", "Hi", "--pay", pay, "--max-tokens", "16", "--json").json
        assert (said["breaches"], said["pending_msat"]) == ([], 0)
    rows = shell.ok("wallet", "history", "--limit", "2", "--json").json["operations"]
    assert len(rows) == 2
    assert "ladder" not in {row["kind"] for row in rows}
    assert shell.ok("wallet", "history", "--limit", "2").out.count("\n") == 2
    recovered = shell.ok("wallet", "recover", "--json").json
    assert (recovered["locked"], recovered["due"]) == ([], [])
    assert set(recovered) == {"back", "locked", "due", "late"}
    assert shell.ok("wallet", "balance", "--json").json["locked"] == []
    assert shell("wallet", "recover").code == 0


def test_an_empty_wallet_says_what_to_do(devnet: Path, tmp_path: Path) -> None:
    poor = Shell(devnet, tmp_path)
    assert "wallet fund" in poor.ok("wallet", "balance").err
    done = poor("ask", "?")
    assert done.code == 1
    assert done.err.startswith("error: wallet-empty: ")


def test_a_program_funds_the_wallet(devnet: Path, tmp_path: Path) -> None:
    program = Shell(devnet, tmp_path)
    said = program.ok("wallet", "fund", "64", "--json", "--wait", "0").json
    assert said["invoice"].startswith("lnbc")
    program.ok("wallet", "resume")
    held = program.ok("wallet", "balance", "--json").json["balances"]
    assert [pot["amount"] for pot in held] == [64]


def test_account(shell: Shell) -> None:
    before = shell.ok("account", "balance", "Alba", "--json").json["balance_msat"]
    by_name = shell("account", "topup", "Alba", "20")
    assert (by_name.code, by_name.out) == (1, "")
    assert "public key" in by_name.err
    found = shell.ok("providers", "--json").json["providers"]
    key = next(one["npub"] for one in found if one["name"] == "Alba")
    assert shell.ok("account", "topup", key, "20").out.endswith(" sat\n")
    done = shell.ok("ask", "Hi", "--account", "--provider", "Alba", "--max-tokens", "16", "--json")
    left = before + 19_000 - done.json["cost_msat"]
    assert shell.ok("account", "balance", "Alba", "--json").json["balance_msat"] == left
    shell.ok("account", "refund", "Alba")
    assert shell.ok("account", "balance", "Alba", "--json").json["balance_msat"] < 3_000


def test_review_reviews_and_follow(shell: Shell) -> None:
    shell.ok("ask", "Hi", "--provider", "Bruno", "--max-tokens", "16")
    first = shell.ok("review", "Bruno", "4", "quick", "enough")
    assert first.out.startswith("published ")
    assert "which order was yours" in first.err
    (found,) = shell.ok("reviews", "Bruno", "--json").json["reviews"]
    assert (found["rating"], found["text"], found["verified"]) == (4, "quick enough", True)
    said = shell.ok("review", "Bruno", "2", "dear", "--no-receipt", "--json").json
    assert (said["rating"], said["receipt"]) == (2, None)
    assert shell.ok("reviews", "Bruno").out.startswith("★★\t\t")
    key = shell.ok("follow", "Bruno").out
    assert key == shell.ok("follow", "--list").out
    assert shell.ok("follow", "--json").json["providers"][0]["npub"] == key.strip()
    assert shell.ok("follow", "--remove", "Bruno").out == ""
    assert shell("follow", "--remove").code == 2


def test_a_direct_message_is_answered(shell: Shell) -> None:
    told = shell.ok("dm", "Alba", "/help", "--wait", "3")
    assert "Cashu token" in told.out
    replies = shell.ok("dm", "Alba", "--wait", "3", "--json", stdin="/price").json["replies"]
    assert "per 1,000 tokens" in replies[0]["text"]


def test_ctrl_c_and_a_folder_in_use(shell: Shell) -> None:
    """One conversation waits for more; the folder is taken; Ctrl-C ends it with 130."""
    with subprocess.Popen(
        shell.command("dm", "Alba", "/help", "--wait", "60"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline()
        busy = shell("wallet", "balance")
        assert busy.code == 1
        assert busy.err.startswith("error: busy: ")
        assert "--state" in busy.err
        assert shell.ok("models").out
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=TIMEOUT_S)
    assert waiting.returncode == 130
    assert "Traceback" not in err


def test_ctrl_c_at_any_moment(shell: Shell, tmp_path: Path) -> None:
    """While it loads, connects, asks, and (None) when the price was told: 130, and silence."""
    shell = Shell(shell.devnet, tmp_path / "customer")
    shell.ok("wallet", "fund", "200")
    for after_s in (0.15, 0.4, 0.7, None):
        with subprocess.Popen(
            shell.command("ask", "Write a long story.", "--max-tokens", "200"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as asking:
            if after_s is None:
                assert asking.stderr is not None
                assert "at most" in asking.stderr.readline()
            else:
                time.sleep(after_s)
            asking.send_signal(signal.SIGINT)
            _, err = asking.communicate(timeout=TIMEOUT_S)
        # dead by the signal while it loaded: a shell calls that 130 too
        assert asking.returncode in ((130,) if after_s is None else (130, -signal.SIGINT))
        assert "Traceback" not in err
    shell.ok("wallet", "resume")


def test_the_demo_shows_everything_and_leaves_nothing(tmp_path: Path, engine_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nostrllm", "demo", "--engine-url", engine_url],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    told = {line[:9].strip() for line in done.stdout.splitlines()}
    wanted = ["relay", "mint", "wallet", "offer", "question", "price", "answer", "cost", "change"]
    assert {*wanted, "receipt", "review"} <= told
    assert "its receipt is true" in done.stdout
    assert list(tmp_path.iterdir()) == []
