"""What must hold when all is quiet again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

from nostrllm.ports import Row
from nostrllm.provider.trial import TRIAL
from nostrllm.wire import order as wire
from tests.sim.clients import Client, Sent
from tests.sim.engine import LONG, answer
from tests.sim.mint import URL, SimMint
from tests.sim.store import Disk

#: What the provider's log must not say in any run.
ALARMS: Final = frozenset(
    {
        "credit_contended",
        "letter_crashed",
        "lock_overdue",
        "locked_token_lost",
        "locked_token_refused",
        "mint_signature_bad",
        "mint_suspect",
        "order_crashed",
        "part_failed",
        "recovery_failed",
        "sent_not_closed",
        "settlement_contended",
    }
)


@dataclass
class Books:
    """Everything that is left of a run."""

    disk: Disk
    mint: SimMint
    clients: Sequence[Client]
    runs: Counter[str]
    logs: Sequence[Mapping[str, Any]]


def violations(books: Books) -> list[str]:
    """Everything that is not as it must be."""
    checks = (_alarms, _coins, _ledger, _claims, _orders, _letters, _clients_money)
    return [found for check in checks for found in check(books)]


def _alarms(books: Books) -> Iterator[str]:
    for entry in books.logs:
        trace = str(entry.get("exception", "")).splitlines()
        excused = any("StoreError: The database did not commit." in line for line in trace)
        if entry["event"] in ALARMS and not excused:
            yield f"logged {entry['event']}: {' '.join(trace[-3:])}"
    for client in books.clients:
        yield from client.wrong


def _coins(books: Books) -> Iterator[str]:
    rows = books.disk.table("SELECT y, amount, state, owner FROM proof WHERE state <> 'spent'")
    for row in rows:
        if row["state"] != "free" and not row["owner"].startswith(TRIAL):  # one may be under way
            yield f"a coin of {row['amount']} is still {row['state']} for {row['owner'][:8]}"
        if row["y"] in books.mint.spent:
            yield f"a coin of {row['amount']} that we count is spent"
    have = sum(row["amount"] for row in rows)
    if have != books.mint.owed:
        yield f"the mint owes {books.mint.owed}, the provider has {have} and nobody else anything"


def _ledger(books: Books) -> Iterator[str]:
    balances: dict[str, int] = defaultdict(int)
    for row in books.disk.rows("posting_balances"):
        balances[row["account"]] = row["msat"]
    if sum(balances.values()):
        yield f"the ledger sums to {sum(balances.values())}"
    rows = books.disk.table("SELECT amount FROM proof WHERE state <> 'spent'")
    have = sum(row["amount"] for row in rows) * 1_000
    if balances[f"coins:sat:{URL}"] != have:
        yield f"the ledger has coins of {balances[f'coins:sat:{URL}']}, the purse of {have}"
    accounts = {
        row["pubkey"]: row["balance_msat"] for row in books.disk.table("SELECT * FROM account")
    }
    for name, msat in balances.items():
        kind, _, owner = name.partition(":")
        if kind in ("order", "change", "locked") and msat:
            yield f"{name[:14]} is open with {msat}"
        if kind == "account" and accounts.get(owner, 0) != -msat:
            yield f"{name[:16]} is {-msat} in the ledger and {accounts.get(owner, 0)} in the table"
    earned = books.disk.table("SELECT coalesce(sum(cost_msat), 0) AS msat FROM orders")[0]["msat"]
    if balances["income"] != -earned:
        yield f"income is {-balances['income']}, orders cost {earned}"


def _claims(books: Books) -> Iterator[str]:
    claims = Counter(row["owner"] for row in books.disk.table("SELECT owner FROM claim"))
    sql = (
        "SELECT id, json_array_length(body, '$.inputs') AS n FROM operation WHERE kind = 'receive'"
    )
    for row in books.disk.table(sql):
        if claims[row["id"]] != row["n"]:
            yield f"{row['id'][:8]} has {row['n']} coins and claimed {claims[row['id']]}"


def _orders(books: Books) -> Iterator[str]:
    released = _released(books)
    for row in books.disk.rows("orders_all"):
        name = f"order {row['id'][:8]}"
        if row["state"] == "refused":
            if row["net_msat"] and row["funding"] == "token":
                yield f"{name} is refused and paid"
            continue
        if row["state"] != "closed":
            yield f"{name} is {row['state']}"
        given = row["change_units"] * 1_000 + row["credit_msat"]
        came = 0 if row["id"] in released else row["net_msat"]
        if row["cost_msat"] + given != came:
            yield f"{name}: {came} came in, {row['cost_msat']} + {given} went out"
        if row["cost_msat"] > max(0, row["ceiling_msat"] - row["fee_msat"]):
            yield f"{name} cost {row['cost_msat']} of {row['ceiling_msat']} less {row['fee_msat']}"
        if row["code"] not in ("", "cancelled") and row["cost_msat"]:
            yield f"{name} failed ({row['code']}) and cost {row['cost_msat']}"
    for question, count in books.runs.items():
        if count > 1:
            yield f"{question} ran {count} times"


def _letters(books: Books) -> Iterator[str]:
    orders = {row["id"]: row for row in books.disk.rows("orders_all")}
    transfers = {row["id"]: row for row in books.disk.table("SELECT * FROM transfer")}
    for client in books.clients:
        for sent in client.sent.values():
            name = f"{client.name}'s {sent.kind} {sent.letter.id[:8]}"
            if sent.kind == "question":
                found = _person(sent, orders.get(sent.letter.id))
            elif sent.kind == "payment":
                found = _payment(sent, client.sent.values(), transfers)
            elif len(sent.verdicts) != 1:
                found = [f"{len(sent.verdicts)} final replies: {_kinds(sent)}"]
            else:
                [verdict] = sent.verdicts.values()
                row = orders.get(sent.letter.id) or transfers.get(sent.letter.id)
                found = _verdict(books, sent, verdict, row)
            yield from (f"{name}: {what}" for what in found)


def _kinds(sent: Sent) -> str:
    return ", ".join(type(verdict).__name__ for verdict in sent.verdicts.values())


def _person(sent: Sent, row: Row | None) -> list[str]:
    said = "\n".join(sent.texts)
    cost = int(row["cost_msat"]) if row else 0
    answered = bool(sent.question) and f"The answer to {sent.question}".strip() in said
    wrong = []
    if not sent.texts:
        wrong.append("no reply")
    if answered and not cost:
        wrong.append("answered and paid back")
    if cost and "The" not in said:
        wrong.append("charged and not answered")
    return wrong


def _payment(sent: Sent, others: Iterable[Sent], transfers: Mapping[str, Row]) -> list[str]:
    """Of the letters with the same coins one is a top-up, and it is told."""
    twins = [one.letter.id for one in others if one.proofs is sent.proofs]
    states = [transfers[number]["state"] for number in twins if number in transfers]
    told = not sent.honest or any(map(str.startswith, sent.texts, repeat(sent.question)))
    wrong = [] if told else ["no word of the money"]
    return wrong if states == ["done"] else [*wrong, f"top-ups of its coins: {states}"]


def _verdict(
    books: Books, sent: Sent, verdict: wire.Result | wire.Refused | wire.Answer, row: Row | None
) -> list[str]:
    wrong = []
    untouched = sent.honest and sent.letter.id not in _received(books)
    refused = isinstance(verdict, wire.Refused) or (
        isinstance(verdict, wire.Answer) and verdict.state == "refused"
    )
    if refused:
        if row is not None and row["state"] != "refused":
            wrong.append(f"refused, and stored as {row['state']}")
        if (sent.proofs or sent.locked) and not untouched and sent.honest:
            wrong.append("refused, and its coins are taken")
    elif row is None:
        wrong.append("accepted, and not stored")
    if isinstance(verdict, wire.Result) and row is not None:
        wrong += _result(sent, verdict, row)
    return wrong


def _received(books: Books) -> set[str]:
    rows = books.disk.table("SELECT id FROM operation WHERE kind = 'receive' AND state = 'DONE'")
    rows += books.disk.table("SELECT id FROM locked WHERE state IN ('settled', 'lost')")
    return {row["id"] for row in rows}


def _released(books: Books) -> set[str]:
    rows = books.disk.table("SELECT id FROM locked WHERE state = 'released'")
    return {row["id"] for row in rows}


def _result(sent: Sent, result: wire.Result, row: Row) -> Iterator[str]:
    if result.cost_msat != row["cost_msat"] or result.credit_msat != row["credit_msat"]:
        yield "told another cost or credit than stored"
    change = result.change or result.signed
    if (change.amount if change else 0) != row["change_units"]:
        yield "told another change than stored"
    if bool(result.text) != bool(result.cost_msat):
        yield f"{len(result.text)} characters for {result.cost_msat} msat"
    if result.release is not None and result.cost_msat:
        yield "charged and released"
    locked = sent.locked
    if result.signed is not None and locked and not (locked.handed or locked.credited):
        yield "promised change of which nothing is said"
    if result.problem is not None and result.cost_msat:
        yield "failed and charged"
    if not "".join([*answer(sent.question), LONG]).startswith(result.text):
        yield "the answer is not what the model said"


def _clients_money(books: Books) -> Iterator[str]:
    """What each client is short of is what his orders cost and what mints took."""
    fees = _fees(books)
    accounts = {
        row["pubkey"]: row["balance_msat"] for row in books.disk.table("SELECT * FROM account")
    }
    costs: Counter[str] = Counter()
    for row in books.disk.rows("orders_all"):
        costs[row["author"]] += row["cost_msat"]
    for client in books.clients:
        me = client.me.pubkey
        short = (client.bought - client.melted - client.melt_fees) * 1_000 - accounts.get(me, 0)
        told = costs[me] + sum(fees[number] for number in client.sent)
        if short != told:
            yield f"{client.name} is short of {short} msat, and can explain {told}"


def _fees(books: Books) -> Counter[str]:
    """What the mint took of each letter's money, less what the provider bore.

    The fee of a locked token is his income until he pays it for the swap of many.
    """
    fees: Counter[str] = Counter()
    for row in books.disk.table("SELECT id, fee FROM operation WHERE state = 'DONE'"):
        fees[row["id"]] += row["fee"] * 1_000
    borne = "SELECT set_id, msat FROM posting WHERE account = 'fees'"
    for row in books.disk.table(borne):
        fees[row["set_id"].partition(":")[2]] -= row["msat"]
    return fees
