"""The commands of the stores: `migrate`, `rebuild-board` and `verify`.

Tested in tests/cli/test_main.py.
"""

import sys
import time

import click
import trio

from scoreboard.cli.options import configured
from scoreboard.domain.boards import BOARDS
from scoreboard.operations.admin.verify import differences
from scoreboard.settings.model import Settings
from scoreboard.storage.start_stores import start_stores
from scoreboard.workers.projector import rebuild_board as rebuild

MAX_PRINTED_DIFFERENCES = 20  # differences that `verify` prints; it counts all


@click.command()
@configured(makes_data=True)
def migrate(settings: Settings) -> None:
    """Bring the database up to date. Safe from two nodes at once."""

    async def run() -> None:
        async with start_stores(settings):
            click.echo("the database is up to date")

    trio.run(run)


@click.command("rebuild-board")
@configured()
def rebuild_board(settings: Settings) -> None:
    """Rebuild every Redis board from PostgreSQL."""

    async def run() -> None:
        async with start_stores(settings) as stores:
            for board in BOARDS:
                began = time.monotonic()
                version = await rebuild(stores, board)
                click.echo(f"{board.id}: rebuilt in {time.monotonic() - began:.2f} s, epoch {version.epoch}")

    trio.run(run)


@click.command()
@configured()
def verify(settings: Settings) -> None:
    """Compare the action log, the scores and Redis; exit 1 if they differ."""

    async def run() -> bool:
        is_equal = True
        async with start_stores(settings) as stores:
            for board in BOARDS:
                found, users = await differences(stores, board)
                for about, what in list(found.items())[:MAX_PRINTED_DIFFERENCES]:
                    click.echo(f"{about}: {what}")
                if len(found) > MAX_PRINTED_DIFFERENCES:
                    click.echo(f"… and {len(found) - MAX_PRINTED_DIFFERENCES} more")
                click.echo(f"{board.id}: {users} users compared, {len(found)} differences")
                is_equal = is_equal and not found
        return is_equal

    if not trio.run(run):
        sys.exit(1)
