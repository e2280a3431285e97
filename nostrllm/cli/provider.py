"""`nostrllm provider init | check | run | status`; books.py and clients.py have the others."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from nostrllm.cli.books import audit, deposit, ledger, restored, sweep, withdraw
from nostrllm.cli.clients import block, clients, unblock
from nostrllm.cli.configured import CONFIG
from nostrllm.cli.pricing import pricing
from nostrllm.cli.terminal import print_json

TEMPLATE = """\
# A nostrllm provider: `nostrllm provider check` tries it, `nostrllm provider run` starts it.

[provider]
name = {name}
about = ""
state = {state}          # orders, ecash, seed: back this folder up
key_file = {key_file}    # the provider's Nostr key, mode 0600
relays = {relays}
mints = {mints}
nip04 = false              # answer old NIP-04 direct messages too
heartbeat_s = 600

[[backend]]                # a table for each model server
kind = "openai"            # any OpenAI-compatible one; or "anthropic", "llamacpp"
url = {engine}
slots = 4                  # answers written at once
# key_file = "backend.key" # mode 0600; or key_env = "NAME_OF_A_VARIABLE"

[terms]
retention_s = 0            # prompts are not kept
training = false
upstream = "self"

[[model]]
id = {model}             # what buyers see
upstream = {model}       # what the backend calls it
context = 8192             # tokens
max_tokens = 1024          # of one answer
input_msat_per_mtok = 1_000_000
output_msat_per_mtok = 3_000_000
request_msat = 1_000
"""


@click.group()
def provider() -> None:
    """Sell answers: set up, check and run a provider."""


for command in (audit, ledger, restored, withdraw, sweep, deposit, clients, block, unblock):
    provider.add_command(command)
provider.add_command(pricing)


@provider.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path(), help="Where to.")
@click.option("--name", default="A nostrllm provider", show_default=True)
@click.option("--engine-url", default="http://127.0.0.1:11434/v1", show_default=True)
@click.option("--model", default="llama3.2", show_default=True)
@click.option("--mint", "mints", multiple=True, default=["https://mint.minibits.cash/Bitcoin"])
@click.option("--relay", "relays", multiple=True, help="Default: the packaged list.")
def init(
    folder: Path,
    name: str,
    engine_url: str,
    model: str,
    mints: tuple[str, ...],
    relays: tuple[str, ...],
) -> None:
    """Write provider.toml and a fresh key; nothing that exists is touched."""
    from nostrllm.adapters.keys_sdk import to_npub
    from nostrllm.cli.report import failing
    from nostrllm.crypto.keys import public_key
    from nostrllm.errors import ConfigError
    from nostrllm.service.relaylist import default_relays
    from nostrllm.service.secrets import key_made_once, private_folder

    with failing():
        private_folder(folder)
        path = folder / "provider.toml"
        if path.exists():
            raise ConfigError(f"{path} exists already; edit it, or choose another --dir")
        key = key_made_once(folder / "nsec")
        values: dict[str, object] = {
            "name": name,
            "state": "state",
            "key_file": "nsec",
            "engine": engine_url,
            "model": model,
            "mints": list(mints),
            "relays": list(relays) or default_relays("inbox"),
        }
        text = TEMPLATE.format(**{key: _toml(value) for key, value in values.items()})
        path.write_text(text, encoding="utf-8")  # no secret is in it, and systemd must read it
        click.echo(f"wrote {path}")
        click.echo(f"you are {to_npub(public_key(key))}")
        click.echo(f"next: edit the prices, then nostrllm provider check --config {path}")


def _toml(value: object) -> str:
    """A string or list as TOML, which is JSON but for one letter that must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@provider.command()
@CONFIG
@click.option("--offline", is_flag=True, help="Read the file only; ask no relay, mint or backend.")
def check(config_path: Path, offline: bool) -> None:
    """Read the file, then try every relay, mint and backend once."""
    import asyncio

    from nostrllm.cli.report import failing
    from nostrllm.service.config import read_provider_config
    from nostrllm.service.provider import check_provider

    with failing():
        config = read_provider_config(config_path)
        click.echo(f"ok    {config_path}: {len(config.model)} models")
        if offline:
            return
        found = asyncio.run(check_provider(config))
        for what, trouble in found:
            click.echo(
                f"{'fail' if trouble else 'ok  '}  {what}" + (f": {trouble}" if trouble else "")
            )
        if any(trouble for _, trouble in found):
            sys.exit(1)


@provider.command()
@CONFIG
def run(config_path: Path) -> None:
    """Sell until SIGTERM; logs are JSON lines on stdout."""
    import uvloop

    from nostrllm.cli.report import failing
    from nostrllm.service.config import read_provider_config
    from nostrllm.service.logs import setup
    from nostrllm.service.provider import run_provider

    with failing():
        config = read_provider_config(config_path)
        setup(config.provider.log_level)
        uvloop.run(run_provider(config))


@provider.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(config_path: Path, as_json: bool) -> None:
    """How the running provider stands; exit code 1 when it does not run."""
    from nostrllm.cli.report import failing
    from nostrllm.errors import ConfigError
    from nostrllm.service.config import read_provider_config

    with failing():
        config = read_provider_config(config_path)
        path = config.provider.state / "status.json"
        if not path.exists():
            raise ConfigError(f"no provider has run on {config.provider.state} yet")
        content = json.loads(path.read_text(encoding="utf-8"))
    content["running"] = content["ready"] and _is_alive(content["pid"])
    if as_json:
        print_json(content)
    else:
        _print_status(content)
    sys.exit(0 if content["running"] else 1)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _print_status(content: dict[str, object]) -> None:
    relays = content["relays"]
    assert isinstance(relays, list)
    click.echo(f"{content['name']}  {content['npub']}")
    click.echo(f"running        {'yes' if content['running'] else 'no'} (pid {content['pid']})")
    click.echo(f"accepting      {'yes' if content['accepting'] else 'no'}")
    for relay in relays:
        click.echo(f"relay          {'up  ' if relay['connected'] else 'down'} {relay['url']}")
    backends = content["backends"]
    assert isinstance(backends, list)
    for backend in backends:
        state = "well" if backend["well"] else "ill "
        slots = f"{backend['running']} of {backend['slots']} slots"
        line = f"{backend['waiting']} waiting, about {backend['service_s']} s each"
        also = f", {line}" if backend["waiting"] else ""
        click.echo(f"backend        {state} {backend['name']}, {slots} in use{also}")
    click.echo(f"models         {', '.join(content['models'])}")  # type: ignore[arg-type]
    click.echo(f"orders open    {content['orders_open']}")
    click.echo(f"orders         {content['orders'] or 'none yet'}")
    click.echo(f"earned         {content['earned_msat']} msat")
    for unit, one in content.get("exchange", {}).items():  # type: ignore[attr-defined]
        rate = "unknown" if one["rate_msat"] is None else f"{one['rate_msat']} msat"
        click.echo(
            f"exchange       {unit}: {one['bought']} taken for {one['cost_msat']} msat; rate {rate}"
        )
    click.echo(f"outbox waiting {content['outbox_waiting']}")
    waiting = content.get("mints_waited_for", [])  # an older daemon does not say
    assert isinstance(waiting, list)
    for row in waiting:
        since = datetime.fromtimestamp(row["created_at"], UTC)
        click.echo(
            f"mint silent    {row['mint']} on {row['kind']} of {row['amount']} {row['unit']} "
            f"since {since:%Y-%m-%d %H:%M} UTC ({row['id'][:16]})"
        )
