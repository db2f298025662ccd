"""The command line `scoreboard`: its commands and exit codes.

Each group of commands has a file beside this one. A bad setting, or a start that can't go on, ends with one line on
standard error and exit 2. Only `serve` and `migrate` make a database in a data folder that has none. Nothing outside of
this folder calls `trio.run`.
"""

import signal
import sys
from contextlib import suppress
from typing import Any

import click

from scoreboard import __version__
from scoreboard.cli.alerts import alerts
from scoreboard.cli.audit import audit
from scoreboard.cli.keys import keys
from scoreboard.cli.serve import check_config, serve
from scoreboard.cli.server_keys import server_keys
from scoreboard.cli.stores import migrate, rebuild_board, verify
from scoreboard.cli.users import users
from scoreboard.domain.errors import SettingsError, StartError, StorageUnavailable
from scoreboard.runtime.supervise import flatten_exceptions

EXPECTED = (SettingsError, StartError, StorageUnavailable)
EXIT_FAILED = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells count


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """A real-time leaderboard server."""


for command in (serve, check_config, migrate, rebuild_board, verify, audit, keys, users, server_keys, alerts):
    cli.add_command(command)


def main() -> None:
    """The entry point. An expected failure ends with one line on standard error and exit 2."""
    try:
        cli()
    except BaseException as exc:  # noqa: BLE001 – an unexpected one is raised again
        # not inside `except*`: Python 3.11.2 would show the group and this exit as tracebacks
        sys.exit(_exit_code(exc))


def _exit_code(exc: BaseException) -> Any:
    """Writes the line of an expected failure. Raises anything else again."""
    found = list(flatten_exceptions(exc))
    if not all(isinstance(leaf, (*EXPECTED, SystemExit, KeyboardInterrupt)) for leaf in found):
        raise exc
    for leaf in found:
        if isinstance(leaf, EXPECTED):
            with suppress(OSError):  # standard error may be closed
                click.echo(f"scoreboard: {' '.join(str(leaf).split())}", err=True)
            return EXIT_FAILED
    return next((leaf.code for leaf in found if isinstance(leaf, SystemExit)), EXIT_INTERRUPTED)
