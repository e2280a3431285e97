"""`nostrllm provider audit | ledger | restored | withdraw | sweep`: while nobody sells."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nostrllm.cli.configured import CONFIG
from nostrllm.cli.terminal import plain_line, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from nostrllm.ports import Row
    from nostrllm.provider.audit import Check
    from nostrllm.provider.books import Summary
    from nostrllm.provider.payout import Paid, Withdrawal
    from nostrllm.service.audit import Audit
    from nostrllm.service.config import ProviderConfig

    T = TypeVar("T")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; stdout belongs to that, so what is logged goes to stderr."""
    import asyncio

    from nostrllm.service.logs import setup

    setup("warning", console=True, stream=sys.stderr)
    return asyncio.run(work)


@click.command()
@CONFIG
@click.option("--offline", is_flag=True, help="Prove the books only; ask no mint about the coins.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def audit(config_path: Path, offline: bool, as_json: bool) -> None:
    """Prove the books and the coins of a stopped provider; exit code 1 on any difference."""
    from nostrllm.cli.report import failing
    from nostrllm.service.audit import audit_provider
    from nostrllm.service.config import read_provider_config

    with failing(as_json):
        found = _run(audit_provider(read_provider_config(config_path), offline=offline))
    if as_json:
        print_json(_as_dict(found))
    else:
        for check in found.checks:
            _print_check(check)
        _print_summary(found.summary)
    sys.exit(0 if found.ok else 1)


def _as_dict(found: Audit) -> dict[str, object]:
    coins = [
        {"mint": mint, "unit": unit, _counted(unit): dict(states)}
        for (mint, unit), states in found.summary.coins.items()
    ]
    return {
        "ok": found.ok,
        "checks": [{"ok": check.ok, **asdict(check)} for check in found.checks],
        "summary": {**asdict(found.summary), "coins": coins},
    }


def _counted(unit: str) -> str:
    """What the books count such coins in."""
    from nostrllm.core.ledger import coins, currency

    return currency(coins("", unit))


def _print_check(check: Check) -> None:
    wrong = "" if check.ok else f", {check.faults_count} wrong"
    click.echo(f"{'ok  ' if check.ok else 'FAIL'}  {plain_line(check.name)}: {check.count}{wrong}")
    for line in (*check.faults, *check.notes):
        click.echo(f"      {plain_line(line)}")


def _print_summary(found: Summary) -> None:
    orders = ", ".join(f"{state} {count}" for state, count in sorted(found.orders.items()))
    owed = found.owed_msat
    click.echo(f"orders     {plain_line(orders) or 'none yet'}")
    click.echo(f"earned     {found.earned_msat} msat")
    click.echo(f"fees       {found.fees_msat} msat")
    click.echo(f"taken out  {found.withdrawn_msat} msat")
    click.echo(
        f"owed       accounts {owed['account']}, open orders {owed['order']}, "
        f"change {owed['change']}, plans {owed['plan']} msat"
    )
    for (mint, unit), states in found.coins.items():
        amounts = ", ".join(f"{state} {msat}" for state, msat in sorted(states.items()))
        click.echo(f"coins      {plain_line(f'{mint} ({unit}): {amounts}')} {_counted(unit)}")
    for unit, one in found.exchange.items():
        click.echo(
            f"exchange   {unit}: {one.bought} taken for {one.cost_msat} msat; "
            f"fees {one.fees}, taken out {one.withdrawn}, change {one.change}, left {one.have}"
        )
    for name in found.open_operations:
        click.echo(f"open       {plain_line(name)}")


@click.command()
@CONFIG
@click.option(
    "--csv",
    "csv_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write every posting there: time,set,account,amount,currency,kind. - is stdout.",
)
def ledger(config_path: Path, csv_path: Path | None) -> None:
    """The ledger of a stopped provider: the balances, or every posting as CSV."""
    from nostrllm.cli.report import failing
    from nostrllm.service.audit import postings
    from nostrllm.service.config import read_provider_config

    with failing():
        rows = _run(postings(read_provider_config(config_path)))
        if csv_path is not None:
            _write_csv(csv_path, rows)
            return
    from nostrllm.core.ledger import currency

    balances: dict[str, int] = {}
    for row in rows:
        if isinstance(row["msat"], int):
            account = str(row["account"])
            balances[account] = balances.get(account, 0) + row["msat"]
    print_table(
        ("account", "amount", "currency"),
        [(name, str(n), currency(name)) for name, n in sorted(balances.items()) if n],
    )


def _write_csv(path: Path, rows: list[Row]) -> None:
    """RFC 4180: a head, then one line per posting, each ended by CR LF. Raises ConfigError."""
    from nostrllm.core.ledger import currency
    from nostrllm.errors import ConfigError

    text = io.StringIO(newline="")
    out = csv.writer(text)
    out.writerow(("time", "set", "account", "amount", "currency", "kind"))
    for row in rows:
        kind = str(row["set_id"]).partition(":")[0]
        counted = currency(str(row["account"]))
        out.writerow((_time(row), row["set_id"], row["account"], row["msat"], counted, kind))
    if str(path) == "-":
        sys.stdout.buffer.write(text.getvalue().encode(errors="replace"))
        return
    try:
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    click.echo(f"{len(rows)} postings in {path}", err=True)


def _time(row: Row) -> str:
    try:
        return datetime.fromtimestamp(row["at"], UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return str(row["at"])


@click.command()
@CONFIG
def restored(config_path: Path) -> None:
    """Say that a stopped provider's state folder came from a backup, before it runs again.

    For a day no message from before is acted on, and no locked coin is taken on trust.
    """
    from nostrllm.cli.report import failing
    from nostrllm.service.audit import restored as note
    from nostrllm.service.config import read_provider_config

    with failing():
        until = _run(note(read_provider_config(config_path)))
    click.echo(f"quarantined until {datetime.fromtimestamp(until, UTC).isoformat()}")


@click.command()
@CONFIG
@click.argument("amount", type=click.IntRange(1), required=False)
@click.option("--mint", help="Where to take it; default: where most is free.")
@click.option("--unit", default="sat", show_default=True, help="sat, msat or usd.")
@click.option("--invoice", metavar="BOLT11", help="Have this Lightning invoice paid instead.")
@click.option("--again", "name", metavar="ID", help="Finish and print a withdrawal once more.")
def withdraw(
    config_path: Path,
    amount: int | None,
    mint: str | None,
    unit: str,
    invoice: str | None,
    name: str | None,
) -> None:
    """Take AMOUNT of your earnings out of a stopped provider, as a token on stdout.

    Whoever has the token has the money. What clients own is never touched.
    """
    from nostrllm.cli.report import failing
    from nostrllm.service.config import read_provider_config

    if sum(given is not None for given in (amount, invoice, name)) != 1:
        raise click.UsageError("say an AMOUNT, or --invoice, or --again and the ID of a withdrawal")
    with failing():
        config = read_provider_config(config_path)
        if name is None:
            _take(config, (amount, mint, unit), invoice)
        else:
            from nostrllm.service.audit import withdraw_again

            _print_taken(_run(withdraw_again(config, name)))


def _take(
    config: ProviderConfig, wanted: tuple[int | None, str | None, str], invoice: str | None
) -> None:
    """Withdraw by token or invoice; the name is told before the mint is asked, for it may take
    coins and not answer."""
    from nostrllm.provider.payout import PayOrder, Wish, new_name
    from nostrllm.service.audit import pay
    from nostrllm.service.audit import withdraw as take

    name, wish = new_name(), Wish(wanted[0] or 0, wanted[2], wanted[1])
    what = "a token" if invoice is None else "a word about the invoice"
    click.echo(f"if this ends without {what}: --again {name}", err=True)
    if invoice is None:
        _print_taken(_run(take(config, name, wish)))
    else:
        _print_taken(_run(pay(config, name, PayOrder(invoice, wish, _print_price))))


def _print_price(price: Paid) -> None:
    said = f"pays {price.amount} {price.unit} at {price.mint}, and at most {price.fee} on top"
    click.echo(plain_line(said), err=True)


def _print_taken(taken: Withdrawal | Paid) -> None:
    from nostrllm.provider.payout import Paid
    from nostrllm.wire.token import encode_token

    if isinstance(taken, Paid):
        said = f"paid {taken.amount} {taken.unit} at {taken.mint}, {taken.fee} on top"
        click.echo(plain_line(said), err=True)
        return
    token = taken.token
    said = f"{taken.amount} {token.unit} at {token.mint}, the mint's fee {taken.fee}"
    click.echo(plain_line(said), err=True)
    click.echo(encode_token(token))


@click.command()
@CONFIG
@click.argument("token")
def deposit(config_path: Path, token: str) -> None:
    """Put a TOKEN of your own into a stopped provider: coins for refunds, and to try mints with."""
    from nostrllm.cli.report import failing
    from nostrllm.service.audit import deposit as put_in
    from nostrllm.service.config import read_provider_config

    with failing():
        done = _run(put_in(read_provider_config(config_path), token))
        said = f"{done.net} {done.unit} at {done.mint}, the mint's fee {done.fee}"
        click.echo(plain_line(said))


@click.command()
@CONFIG
@click.option("--threshold", type=click.IntRange(1), metavar="SAT", help="Take no less at a mint.")
@click.option("--keep", type=click.IntRange(0), metavar="SAT", help="Leave so much more there.")
@click.option("--invoice", metavar="BOLT11", help="Have this Lightning invoice paid instead.")
def sweep(config_path: Path, threshold: int | None, keep: int | None, invoice: str | None) -> None:
    """Take all that is yours out of a stopped provider: a token in a file for each mint.

    Prints the names of the files, which lie in the state folder. Without options [sweep] of the
    file counts; a provider that has it does the same by itself while it runs.
    """
    from nostrllm.cli.report import failing
    from nostrllm.service.config import SweepTable, read_provider_config
    from nostrllm.service.sweep import sweep_stopped

    with failing():
        config = read_provider_config(config_path)
        if invoice is not None:
            _take(config, (None, None, "sat"), invoice)
            return
        table = config.sweep or SweepTable(threshold_sat=1)
        given = {"threshold_sat": threshold, "keep_sat": keep}
        table = table.model_copy(update={key: n for key, n in given.items() if n is not None})
        for swept in _run(sweep_stopped(config, table)):
            said = f"{swept.amount} {swept.unit} at {swept.mint}, the mint's fee {swept.fee}"
            click.echo(plain_line(said), err=True)
            click.echo(plain_line(str(swept.path)))
