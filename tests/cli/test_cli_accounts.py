"""The commands about accounts: Lightning, other keys, plans."""

from __future__ import annotations

import json

from tests.cli.conftest import Shell
from tests.invoices import invoice


def test_an_account_by_lightning(shell: Shell) -> None:
    npub = shell.ok("providers", "--json").json["providers"][0]["npub"]
    filled = shell.ok("account", "topup", npub, "60", "--lightning")
    assert filled.err.startswith("pay this invoice; 60 sat are added, and nothing comes off:\n")
    text, balance = filled.out.splitlines()
    assert text.startswith("lnbc600n1")
    said = shell.ok("account", "topup", npub, "40", "--lightning", "--json").json
    assert (said["paid"], said["amount_msat"], said["breaches"]) == (True, 40_000, [])
    assert said["balance_msat"] >= 100_000
    assert balance.endswith(" sat")
    unknown = shell("account", "refund", npub, "--lightning", "tea@127.0.0.1:1")
    assert unknown.err == "error: config-invalid: say how much: the address does not\n"
    nobody = shell(
        "account", "refund", npub, "--lightning", "tea@127.0.0.1:1", "--amount", "5", "--json"
    )
    assert json.loads(nobody.err)["error"]["code"] == "payee-unreachable"
    shell.ok("ask", "Hello?", "--provider", npub, "--pay", "token", "--max-tokens", "16")
    paid = shell.ok("account", "refund", npub, "--lightning", invoice(20_000))
    assert paid.err.startswith("pays 20 sat from your balance; what his mint takes for that comes")
    assert paid.out.startswith("paid 20 sat, ")
    left = shell.ok("account", "balance", npub, "--json").json
    assert (left["unpaid"], left["breaches"]) == ([], [])
    assert shell.ok("account", "refund", npub, "--ecash", "--json").json["balance_msat"] < 5_000
    both = shell("account", "refund", npub, "--ecash", "--lightning", "x")
    assert both.code == 2


def test_another_key_may_spend(shell: Shell) -> None:
    npub = shell.ok("providers", "--json").json["providers"][0]["npub"]
    child = Shell(shell.devnet, shell.state.parent / "child")
    key = child.ok("account", "key", npub).out.strip()
    assert key.startswith("npub1")
    owner = shell.ok("account", "key", npub, "--json").json["npub"]
    shell.ok("account", "topup", npub, "60")
    given = shell.ok("account", "allow", npub, key, "--limit", "40", "--per", "day").out
    assert given.split("\t")[:3] == [key, owner, "40 sat"]
    assert child.ok("account", "allowances", npub).out.split("\t")[1] == owner
    words = ("ask", "Hello?", "--provider", npub, "--account", "--max-tokens", "16", "--json")
    done = child.ok(*words, "--of", owner).json
    assert done["breaches"] == []
    used = shell.ok("account", "allowances", npub, "--json").json["allowances"]
    assert [one["used_msat"] for one in used] == [done["cost_msat"]]
    assert shell.ok("account", "disallow", npub, key).err == "nobody\n"
    refused = child(*words, "--of", owner)
    assert json.loads(refused.err)["error"]["code"] == "account-insufficient"


def test_where_no_plans_are_sold(shell: Shell) -> None:
    found = shell.ok("plans")
    assert (found.out, found.err) == ("", "no plans are sold\n")
    both = shell.ok("plans", "--json").json["providers"]
    assert [(one["plans"], one["plan"]) for one in both] == [([], None), ([], None)]
    npub = shell.ok("providers", "--json").json["providers"][0]["npub"]
    assert shell.ok("plan", "status", npub).out == "no plan\n"
    for words in (("buy", npub, "gold"), ("cancel", npub), ("renew", npub, "on")):
        refused = shell("plan", *words)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.startswith("error: plan-unknown: ")


def test_a_payment_request_is_paid(shell: Shell) -> None:
    said = shell.ok("dm", "Alba", "/topup 30", "--wait", "4").out
    [creq] = [word for word in said.split() if word.startswith("creqA")]
    dear = shell("wallet", "pay", creq, "--max-fee", "0", "--json")
    assert json.loads(dear.err)["error"]["code"] == "payment-amount-high"
    paid = shell.ok("wallet", "pay", creq)
    assert paid.err.startswith("pays 30 sat at http://")
    assert "(Alba), locked to him for good; mint's fees " in paid.err
    assert paid.out.startswith("paid 30 sat, ")
    again = shell("wallet", "pay", creq)
    assert again.err.startswith("error: payment-request-paid: ")
