"""The option that every command of a provider has."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

CONFIG: Final = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("provider.toml"),
    show_default=True,
    help="The provider's TOML file.",
)
