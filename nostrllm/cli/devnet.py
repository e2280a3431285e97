"""`nostrllm devnet`: a relay, a mint, a model and two providers on this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("devnet"),
    show_default=True,
    help="Where keys, databases and logs are kept; a second run finds them again.",
)
@click.option(
    "--engine-url", help="An OpenAI-compatible server to use instead of the embedded one."
)
@click.option(
    "--gguf",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Weights for the embedded model; without it 93 MB are fetched once.",
)
def devnet(state: Path, engine_url: str | None, gguf: Path | None) -> None:
    """Run a whole market on this machine, on 127.0.0.1 only, until Ctrl-C.

    Where everything is stands in STATE/devnet.json once all of it is up.
    """
    from nostrllm.devnet.supervisor import DevnetOptions, run_devnet

    run_devnet(DevnetOptions(state, engine_url, gguf), click.echo)
