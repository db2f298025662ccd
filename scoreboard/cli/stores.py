"""The commands of the stores: `migrate`, `rebuild-board` and `verify`.

Tested by tests/cli/test_main.py and tests/faults.
"""

import sys
import time
from collections.abc import Mapping

import click
import trio

from scoreboard.app.accounts import log_verifiers
from scoreboard.cli.options import configured
from scoreboard.domain.boards import BOARDS
from scoreboard.operations.admin.verify import corrections, differences, log_differences
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
    """Compare the action log, the scores, Redis and the transparency log; exit 1 if they differ."""
    keys = log_verifiers(settings)

    async def run() -> bool:
        is_equal = True
        async with start_stores(settings) as stores:
            for board in BOARDS:
                found, users = await differences(stores, board)
                _print(found)
                click.echo(f"{board.id}: {users} users compared, {len(found)} differences")
                is_equal = is_equal and not found
            banned, reversed_now = await corrections(stores)
            click.echo(f"moderation: {banned} users banned, {reversed_now} actions reversed")
            found, log = await log_differences(stores, keys)
            _print(found)
            click.echo(
                f"log: {log.leaves} records compared ({log.erased} of erased users, {log.pruned} removed by age), "
                f"{log.checkpoints} checkpoints, {len(found)} differences"
            )
        return is_equal and not found

    if not trio.run(run):
        sys.exit(1)


def _print(found: Mapping[str, str]) -> None:
    for about, what in list(found.items())[:MAX_PRINTED_DIFFERENCES]:
        click.echo(f"{about}: {what}")
    if len(found) > MAX_PRINTED_DIFFERENCES:
        click.echo(f"… and {len(found) - MAX_PRINTED_DIFFERENCES} more")
