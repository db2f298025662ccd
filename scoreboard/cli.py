"""The command line. It and `user_commands`, the group `users`, are the only places that call `trio.run`.

Every command reads the settings the same way, so each takes --config, --data-dir and --embedded. What is wrong with a setting is one line
and exit 2, a start that can't go on is one line and exit 1.
"""

import sys
import time
from collections.abc import Callable
from functools import partial, wraps
from os import environ
from pathlib import Path
from typing import Any

import click
import trio

from scoreboard import __version__, app, demo
from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import SettingsError, StartError, StorageUnavailable
from scoreboard.operations import projector
from scoreboard.operations.action_rules import actions_file, load_rules
from scoreboard.operations.verify import differences
from scoreboard.runtime import observe
from scoreboard.runtime.settings import Settings, load_settings
from scoreboard.storage import users as user_store
from scoreboard.storage.opening import stores_of
from scoreboard.user_commands import build_users_group
from scoreboard.web.branding import load_branding, shown_accents

SHOWN = 20  # differences that `verify` prints; it counts all


def configured() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the shared options to a command and hands it the settings."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--config", type=click.Path(path_type=Path), help="A TOML file beside the defaults.")
        @click.option("--embedded/--no-embedded", default=None, help="Start (or join) an own PostgreSQL and Valkey.")
        @click.option("--data-dir", type=click.Path(path_type=Path), help="Where the embedded servers keep their data.  [.data]")
        @wraps(command)
        def run(config: Path | None, embedded: bool | None, data_dir: Path | None, **others: Any) -> None:
            if embedded is None and data_dir is not None:
                embedded = True  # whoever names the folder means the servers in it
            flags = {"embedded.enabled": embedded, "embedded.data_dir": data_dir and str(data_dir)}
            flags |= {f"server.{name}": others.pop(name) for name in ("host", "port") if name in others}
            flags |= {"actions.file": str(actions)} if (actions := others.pop("actions", None)) else {}
            settings = load_settings(config, flags, environ)
            observe.configure(settings.log.level, settings.log.format, version=__version__)
            command(settings, **others)

        return run

    return decorate


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """A real-time leaderboard server."""


def main() -> None:
    """The entry point: errors that we expect end with one line."""
    try:
        cli()
    except* SettingsError as group:
        _end(group, 2)
    except* (StartError, StorageUnavailable) as group:
        _end(group, 1)


def _end(group: BaseException, code: int) -> None:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    click.echo(f"scoreboard: {group}", err=True)
    sys.exit(code)


# ---- serving --------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--host", help="Address to listen on.  [127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on, 0 for any.  [8000]")
@click.option("--actions", type=click.Path(path_type=Path), help="A file of your own actions.  [config/actions.toml]")
@click.option("--demo/--no-demo", "with_demo", default=None, help="Have demo players move the board; or make none at all.")
@configured()
def serve(settings: Settings, with_demo: bool | None) -> None:
    """Run one node of the server."""
    if with_demo and not settings.embedded.enabled:
        raise SettingsError("--demo: demo players live on embedded servers only (--embedded)")
    load_rules(settings)  # here too: what is wrong with these files is said before any store is started
    load_branding(settings.page)
    keys = settings.security.keys(settings.embedded.data_dir)
    trio.run(app.serve, settings, keys, partial(_announce, settings, with_demo))


async def _announce(settings: Settings, with_demo: bool | None, node: app.Node, port: int) -> None:
    """Once requests are answered: says where, and on embedded stores brings the demo players."""
    url = settings.server.url if settings.server.port else f"http://{settings.server.host}:{port}"
    if not settings.embedded.enabled or with_demo is False:
        click.echo(f"scoreboard is live: {url}")
        return
    await demo.load(node.accounts, await user_store.known(node.stores, list(demo.HANDLES)))
    click.echo(f"\n  scoreboard is live: {url}\n  log in as {demo.LOGIN} with the password {demo.PASSWORD}\n")
    opening = not (await node.leaderboard.snapshot()).rows
    if opening or with_demo:
        await demo.play(f"http://127.0.0.1:{port}", node.accounts, node.rules, opening=opening, for_ever=bool(with_demo))


@cli.command("check-config")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file beside the defaults.")
@click.option("--actions", type=click.Path(path_type=Path), help="A file of your own actions.")
def check_config(config: Path | None, actions: Path | None) -> None:
    """Check settings, actions and logo without touching the stores; exit 2 and one line that says what is wrong and where."""
    settings = load_settings(config, {"actions.file": actions and str(actions)}, environ, needs_stores=False)
    rules, page = load_rules(settings), settings.page
    load_branding(page)
    line = f"the settings are good ({settings.environment}); {len(rules)} action types from {actions_file(settings)}"
    if page.accent:
        light, dark = shown_accents(page.accent)
        line += f"; accent {light} on light, {dark} on dark"
    click.echo(line)


# ---- the stores -----------------------------------------------------------------------------------------------------


@cli.command()
@configured()
def migrate(settings: Settings) -> None:
    """Bring the database up to date. Safe from two nodes at once."""

    async def run() -> None:
        async with stores_of(settings):
            click.echo("the database is up to date")

    trio.run(run)


@cli.command("rebuild-board")
@configured()
def rebuild_board(settings: Settings) -> None:
    """Rebuild every Redis board from PostgreSQL."""

    async def run() -> None:
        async with stores_of(settings) as stores:
            began = time.monotonic()
            mark = await projector.rebuild_board(stores, LEADERBOARD)
            click.echo(f"{LEADERBOARD.id}: rebuilt in {time.monotonic() - began:.2f} s, epoch {mark.epoch}")

    trio.run(run)


@cli.command()
@configured()
def verify(settings: Settings) -> None:
    """Compare the action log, the scores and Redis; exit 1 if they differ."""

    async def run() -> bool:
        async with stores_of(settings) as stores:
            found, users = await differences(stores, LEADERBOARD)
        for about, what in list(found.items())[:SHOWN]:
            click.echo(f"{about}: {what}")
        if len(found) > SHOWN:
            click.echo(f"… and {len(found) - SHOWN} more")
        click.echo(f"{LEADERBOARD.id}: {users} users compared, {len(found)} differences")
        return not found

    if not trio.run(run):
        sys.exit(1)


cli.add_command(build_users_group(configured))
