"""The commands `keys …`: keys for production.

Tested by tests/cli/test_keys.py.
"""

from pathlib import Path

import click

from scoreboard.cli.options import FilePath
from scoreboard.settings.keys import new_production_keys, new_signing_key, write_secrets


@click.group()
def keys() -> None:
    """Make keys for production."""


@keys.command("new")
@click.option(
    "--folder", type=FilePath(path_type=Path, file_okay=False), help="Write the files of a secrets folder instead."
)
@click.option("--signing", is_flag=True, help="Only a signing key, to put beside the present one.")
@click.option("--env", "as_variables", is_flag=True, help="Print environment variables instead of TOML.")
def new_keys(folder: Path | None, signing: bool, as_variables: bool) -> None:
    """Print a signing key and a master key, as settings for production. All nodes share them, and nothing keeps a
    copy."""
    made = new_signing_key() if signing else new_production_keys()
    if folder is not None:
        for file in write_secrets(folder, made, beside_others=signing):
            click.echo(str(file))
    elif as_variables:
        for (section, table, item), value in made.items():
            click.echo(f"SCOREBOARD_{section.upper()}__{table.upper()}__{item}={value}")
    else:
        for (section, table, item), value in made.items():
            click.echo(f'[{section}.{table}]\n{item} = "{value}"\n')
